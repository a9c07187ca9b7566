"""``python -m tests.instructions``: what one estimate costs in instructions, by stage.

Counted by callgrind, so the figure depends on the processor's model and the libraries' versions,
but not on what else the machine is doing. A stage's cost is the difference between a program that
runs it many times more and one that does not, over how many times more; the result is
``train/results/instructions.json``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from edge.machine import hardware
from edge.model import runtime
from edge.storage import write_json
from tests.device import ROOT

RESULT = ROOT / "train" / "results" / "instructions.json"
N = 20

# Every stage of an estimate, on real speech; "estimate" is all of it.
PROGRAM = """
import sys
import numpy as np
from edge import demo
from edge.audio import read_file
from edge.frontend import FeatureStream
from edge.gate import CHUNK_SAMPLES, SpeechGate
from edge.model import Model, softmax
from edge.recognizer import Recognizer
from edge.speaker import SpeakerNorm
stage, n = sys.argv[1], int(sys.argv[2])
model = Model()
card, frontend = model.card, model.card.frontend
recognizer, stream = Recognizer(model), FeatureStream(frontend)
hop = recognizer.hop_rows * frontend.hop_samples
speech = np.concatenate([read_file(c.path, frontend.sample_rate_hz) for c in demo.clips()])
stream.push(speech[:frontend.n_fft])
rows = np.zeros((card.n_rows, frontend.n_features), np.float32)
speaker = SpeakerNorm(frontend)
normal = speaker.normalize(rows)[None]
recognizer.push(speech[:frontend.n_samples(card.n_rows)])
at = frontend.n_samples(card.n_rows)
blocks = [speech[at + i * hop:at + (i + 1) * hop] for i in range(25)]
gate, pending = SpeechGate(rate_hz=frontend.sample_rate_hz), [np.zeros(0, np.float32)]
def ask_gate(block):
    samples = np.concatenate([pending[0], block])
    n = len(samples) // CHUNK_SAMPLES * CHUNK_SAMPLES
    pending[0] = samples[n:]
    for chunk in samples[:n].reshape(-1, CHUNK_SAMPLES):
        gate.push(chunk)
run = {
    "gate": ask_gate,
    "features": lambda block: stream.push(block),
    "normalize": lambda block: (speaker.hear(rows[:recognizer.hop_rows]), speaker.normalize(rows)),
    "model": lambda block: model.runtime.logits(normal),
    "estimate": lambda block: recognizer.push(block),
}[stage]
for block in blocks[:2 + n]:
    run(block)
"""


def count(stage: str, n: int, folder: Path) -> int:
    """Return how many instructions the program executes that runs a stage ``2 + n`` times."""
    done = subprocess.run(
        [
            "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
            sys.executable, "-c", PROGRAM, stage, str(n),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
        # The same hashes, one thread and no compiled files to look for: the same instructions.
        env=os.environ | {
            "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(folder),
        },
    )  # fmt: skip
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"error: valgrind failed:\n{done.stderr[-2000:]}")
    return int(found[1])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.instructions", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="default: train/results/")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stages = {
            stage: round((count(stage, N, folder) - count(stage, 0, folder)) / N)
            for stage in ("gate", "features", "normalize", "model", "estimate")
        }
    known = sum(n for stage, n in stages.items() if stage != "estimate")
    stages["the rest"] = stages["estimate"] - known
    write_json(
        args.out,
        {
            "command": "python -m tests.instructions",
            "date": datetime.date.today().isoformat(),
            "hardware": hardware(),
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "runtime": f"{runtime()} {version(runtime())}",
            "instructions": stages,
            "aarch64": "not run, Debian's qemu-user takes no plugins and cannot count",
        },
    )
    print(stages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
