"""``python -m tests.runtimes``: device tests and demo, with each TFLite runtime on each Python.

Every pair gets a virtual environment of its own, with the NumPy that edge/requirements.txt gives
that runtime, and the tests that need nothing but `edge`. A Python that the machine does not have,
or a runtime without a wheel for one, is said to be not run.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edge.model import Model
from tests.device import DEMO, ROOT, demo, differences, one_step, requirements

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# By runtime: a Python for which edge/requirements.txt chooses it.
RUNTIMES = {"tflite-runtime": "3.11", "ai-edge-litert": "3.12"}
ALLOWED = {"edge", "numpy", "pytest", "soundfile", "soxr", "sounddevice", *sys.stdlib_module_names}


def python_of(version: str) -> str | None:
    """Return the interpreter of a Python version: on the PATH, or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    paths = [str(p) for p in sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in (*paths, shutil.which(f"python{version}")):
        if candidate:
            done = subprocess.run(
                [candidate, "-c", "import ensurepip, sys; print(*sys.version_info[:2], sep='.')"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.stdout.strip() == version:
                return candidate
    return None


def device_tests() -> list[str]:
    """Return the test files that import nothing but `edge` and its requirements."""
    files = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
        if imported <= ALLOWED:
            files.append(str(path.relative_to(ROOT)))
    return files


def check(version: str, runtime: str, tests: list[str]) -> str:
    """Return what was found with one pair, SystemExit if a test fails or the demo differs."""
    python = python_of(version)
    if python is None:
        return f"not run: no Python {version} here"
    environment = ROOT / f".venv-{version}-{runtime}"
    inside = str(environment / "bin" / "python")
    if not (environment / ".done").exists():
        subprocess.run([python, "-m", "venv", "--clear", str(environment)], check=True)
        wanted = list(requirements(RUNTIMES[runtime]).values())
        more = ["pytest", "pytest-timeout"]
        done = subprocess.run(
            [inside, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *wanted, *more],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            reason = [x for x in done.stderr.splitlines() if x.startswith("ERROR")] or ["?"]
            return f"not run: {reason[-1]}"
        (environment / ".done").touch()
    done = subprocess.run(
        [inside, "-m", "pytest", "-q", *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"error: Python {version} with {runtime}:\n{done.stdout}{done.stderr}")
    tolerance = one_step(Model())
    wrong, largest = differences(demo([sys.executable, *DEMO]), demo([inside, *DEMO]), tolerance)
    if wrong:
        raise SystemExit("\n".join([f"error: Python {version} with {runtime}:", *wrong[:20]]))
    return (
        f"{summary(done.stdout)}; demo: largest probability difference {largest:.4f} "
        f"(one int8 step: {tolerance:.4f})"
    )


def summary(output: str) -> str:
    """Return how many tests passed and were skipped: the letters of pytest's progress lines."""
    lines = [line.split("[")[0] for line in output.splitlines() if line.rstrip().endswith("%]")]
    letters = "".join(lines)
    return f"{letters.count('.')} tests passed, {letters.count('s')} skipped"


def main() -> int:
    tests = device_tests()
    print("device tests:", *tests)
    for version in PYTHONS:
        for runtime in RUNTIMES:
            print(f"Python {version}, {runtime}: {check(version, runtime, tests)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
