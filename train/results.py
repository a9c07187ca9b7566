"""``python -m train.results``: write the README's tables from the committed result files.

Recognition figures are the ``report.json`` of runs, copied to ``train/results/`` under the run's
name. The model card is written too. With ``--check`` nothing is written, and a page that differs is
an error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge import tables
from edge.card import Card
from edge.frontend import Frontend
from edge.storage import write_bytes
from train.presets import PRESETS
from train.table import CORPORA

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "edge/models/emodb.int8.tflite"
RESULTS = ROOT / "train" / "results"

# Cited: UAR and WAR in %, the last epoch of ten random folds. TIM-Net: its authors' corrected
# figures; the variants: the first report of the improvements.
PUBLISHED = {
    ("emodb", "timnet"): (89.19, 90.28),
    ("emodb", "timnet-td"): (86.06, 87.87),
    ("emodb", "timnet-td-sh"): (86.59, 87.46),
    ("emodb", "timnet-td-cl"): (86.86, 88.23),
    ("emodb", "timnet-all"): (84.81, 85.98),
    ("savee", "timnet"): (77.26, 79.36),
    ("savee", "timnet-td"): (76.30, 79.58),
    ("savee", "timnet-td-sa"): (73.76, 77.70),
    ("savee", "timnet-td-sa-cl"): (73.69, 76.67),
    ("savee", "timnet-all"): (78.84, 80.20),
}
PROTOCOLS = {
    "sd10": "10 random folds",
    "loso": "speakers never heard",
    "holdout": "some speakers never heard",
}


def load(path: Path) -> dict[str, Any]:
    """Read one result file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def demo() -> str:
    """Return what the demo leaves on a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "edge", "--demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    clips = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    right = [line for line in done.stderr.splitlines() if line.endswith("clips right")]
    return "\n".join(["```", *clips, *right, "```"])


def recognition(preset: str | None = None) -> str:
    """Return the table of cross-validated runs, and how each was made; of one preset or all."""
    lines = [
        "| corpus, preset | features | parameters | MACs | tested on | UAR | WAR "
        "| all clips together | published |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    commands = []
    reports = [load(path) for path in sorted(RESULTS.glob("*-*.json"))]
    order = list(PROTOCOLS)
    for report in sorted(reports, key=lambda r: order.index(r["settings"]["protocol"])):
        settings = report["settings"]
        if preset not in (None, settings["preset"]):
            continue
        key = (settings["corpus"], settings["preset"])
        frontend = Frontend.from_json({"adapt_s": 0.0, "pitch": False, **settings["frontend"]})
        kind = "MFCC" if frontend.n_mfcc else "log-mel, pitch"
        published = "-"
        if settings["protocol"] == "sd10" and not frontend.streamable:
            published = _published(*key)
        network = [
            ", ".join(key), kind, f"{report['n_parameters'] / 1000:.0f} K",
            f"{report['n_macs'] / 1e6:.1f} M",
        ]  # fmt: skip
        tested = PROTOCOLS[settings["protocol"]]
        lines.append(f"| {' | '.join([*network, tested, *_figures(report, ''), published])} |")
        if "adapted_uar_mean" in report:
            cells = [*network, f"{tested}, adapted", *_figures(report, "adapted_"), "-"]
            lines.append(f"| {' | '.join(cells)} |")
        commands.append(f"{report['command']}    # {report['date']}, {report['hardware']}")
    return "\n".join([*lines, "", "```", *commands, "```"])


def _figures(report: dict[str, Any], prefix: str) -> list[str]:
    return [*_spread(report, prefix), " / ".join(_percent(report, "pooled", prefix))]


def _published(corpus: str, preset: str) -> str:
    figures = PUBLISHED.get((corpus, preset))
    return "-" if figures is None else "{:.2f} / {:.2f}".format(*figures)


def _percent(found: dict[str, Any], suffix: str, prefix: str = "") -> list[str]:
    return [f"{100 * found[f'{prefix}{name}_{suffix}']:.1f}" for name in ("uar", "war")]


def _spread(found: dict[str, Any], prefix: str = "") -> list[str]:
    """Return UAR and WAR over folds, each mean and deviation."""
    both = zip(_percent(found, "mean", prefix), _percent(found, "std", prefix), strict=True)
    return [f"{mean} ± {std}" for mean, std in both]


def variants() -> str:
    """Return the table of TIM-Net's variants, on random folds and on strangers."""
    stored = load(RESULTS / "table.json")
    cells = stored["cells"]
    lines = [
        "| corpus, preset | parameters | int8 KB | MACs | random folds: epochs, seeds | UAR | WAR "
        "| published | forest | strangers: epochs | UAR | WAR | forest |",
        "|" + "---|" * 13,
    ]
    for corpus, preset in itertools.product(CORPORA, PRESETS):
        random, strangers = (cells.get(f"{corpus} {preset} {kind}") for kind in ("sd10", "loso"))
        if not (network := random or strangers):
            continue
        published = _published(corpus, preset)
        if random and (corpus, preset) in PUBLISHED:
            published += f", {'' if reached(corpus, preset, random['seeds']) else 'not '}reached"
        row = [
            f"{corpus}, {preset}", f"{network['n_parameters'] / 1000:.0f} K",
            f"{network['int8_bytes'] / 1000:.0f}", f"{network['n_macs'] / 1e6:.1f} M",
            f"{random['epochs']}, {len(random['seeds'])}" if random else "-",
            *_cell(random), published, _forest(random),
            str(strangers["epochs"]) if strangers else "-",
            *_cell(strangers), _forest(strangers),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(row)} |")
    any_cell, dates = next(iter(cells.values())), sorted(cell["date"] for cell in cells.values())
    schedule = any_cell["schedule"]
    lines += [
        "",
        f"`{stored['command']}`, with `--epochs` and `--seeds` as shown: batches of "
        f"{schedule['batch_size']}, learning rate {schedule['learning_rate']:g} falling to 0 "
        f"({schedule['schedule']}); {any_cell['hardware']}, {dates[0]} to {dates[-1]}.",
        "",
        "| EMO-DB, random folds, first seed | training UAR passes 90 % in epoch "
        "| training UAR at the end | test UAR "
        "| the loss on test clips climbs on its way down, of what it falls |",
        "|---|---|---|---|---|",
    ]
    for preset in PRESETS:
        if found := cells.get(f"emodb {preset} sd10"):
            training, test = (100 * np.array(found["curves"][name]) for name in ("uar", "test_uar"))
            first = str(1 + int((training > 90).argmax())) if training.max() > 90 else "none"
            passed = f"{first} of {found['epochs']}"
            lines.append(
                f"| {preset} | {passed} | {training[-1]:.1f} | {test[-1]:.1f} "
                f"| {100 * found['rise']:.0f} % |"
            )
    return "\n".join(lines)


def _cell(found: dict[str, Any] | None) -> list[str]:
    """Return UAR and WAR, each mean and deviation over folds, both means over seeds."""
    if found is None:
        return ["-", "-"]
    names = found["seeds"][0]
    return _spread({name: np.mean([seed[name] for seed in found["seeds"]]) for name in names})


def reached(corpus: str, preset: str, seeds: list[dict[str, float]]) -> bool:
    """Whether UAR and WAR are as published, or within their deviation over three seeds of it."""
    for name, published in zip(("uar", "war"), PUBLISHED[corpus, preset], strict=True):
        means = [100 * seed[f"{name}_mean"] for seed in seeds]
        allowed = np.std(means, ddof=1) if len(means) >= 3 else 0.0
        if np.mean(means) + allowed < published:
            return False
    return True


def _forest(found: dict[str, Any] | None) -> str:
    trees = found and found["forest"]
    return " / ".join(_percent(trees, "mean")) if trees else "-"


def ablation() -> str:
    """Return what each part of the recipe is worth."""
    stored = load(RESULTS / "ablation.json")
    heard = {"strangers": "", "adapted": "adapted_", "elsewhere": "elsewhere_"}
    head = " | ".join(f"{where}: UAR | cross-entropy" for where in heard)
    lines = [
        f"| changed | parameters | training UAR | {head} |",
        "|" + "---|" * (3 + 2 * len(heard)),
    ]
    for name, found in stored["variants"].items():
        numbers = [
            f"{found[f'{prefix}uar']:.1f} | {found[f'{prefix}cross_entropy']:.3f}"
            if f"{prefix}uar" in found
            else "- | -"
            for prefix in heard.values()
        ]
        lines.append(
            f"| {name} | {found['n_parameters'] / 1000:.0f} K | {found['train_uar']:.1f} "
            f"| {' | '.join(numbers)} |"
        )
    lines += [
        "",
        f"`{stored['command']}`: {stored['epochs']} epochs; {stored['hardware']}, "
        f"{stored['date']}.",
    ]
    return "\n".join(lines)


def shipped() -> str:
    """Return what the shipped model scores on the two speakers it never heard."""
    parity = load(ROOT / "edge/models/emodb.parity.json")
    provenance = Card.read(MODEL.with_suffix(".json")).provenance
    lines = [
        "| model | KB | largest probability difference | same label | UAR | UAR as trained |",
        "|---|---|---|---|---|---|",
    ]
    for precision, model in parity["models"].items():
        lines.append(
            f"| {precision} | {model['n_bytes'] / 1000:.0f} | {model['prob_difference']:.5f} "
            f"| {100 * model['agreement']:.2f} % | {model['uar']:.1f} | {model['uar_keras']:.1f} |"
        )
    any_model = next(iter(parity["models"].values()))
    speakers = " and ".join(provenance["held_out_speakers"])
    lines.append("")
    lines.append(
        f"On {any_model['n_windows']} windows of the {any_model['n_clips']} clips of speakers "
        f"{speakers}, {parity['date']}."
    )
    return "\n".join(lines)


def calibration() -> str:
    """Return how far the shipped model's probabilities can be taken at their word."""
    stored = load(RESULTS / "calibration.json")
    lines = [
        "| clips of | clips | UAR | calibration error | before calibration | not uncertain "
        "| right, of those |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {
        "left out in turn": "its own speakers, each left out in turn",
        "speakers never heard": "the two speakers never heard",
    }
    for key, study in stored["studies"].items():
        lines.append(
            f"| {names[key]} | {study['n_clips']} | {100 * study['uar']:.1f} "
            f"| {study['calibration_error']:.3f} | {study['calibration_error_uncalibrated']:.3f} "
            f"| {100 * study['coverage_above_threshold']:.0f} % "
            f"| {100 * study['right_above_threshold']:.0f} % |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"Temperature {stored['temperature']:.2f}; uncertain below "
            f"{stored['uncertain_below']:.2f}.",
        ]
    )


def adaptation() -> str:
    """Return how well a speaker is recognized of whom more and more has been heard."""
    stored = load(RESULTS / "adaptation.json")
    known = {"0 s": stored["uar"]["clean"]} | {
        name.removeprefix("known ").replace("inf s", "all"): value
        for name, value in stored["uar"].items()
        if name.startswith("known")
    }
    enrolled = {
        name.removeprefix("enrolled "): value
        for name, value in stored["uar"].items()
        if name.startswith("enrolled")
    }
    heads = [*(f"{name} heard" for name in known), *(f"{name} neutral" for name in enrolled)]
    values = [f"{value:.1f}" for value in (*known.values(), *enrolled.values())]
    return "\n".join(
        [
            f"| | {' | '.join(heads)} |",
            "|" + "---|" * (1 + len(heads)),
            f"| UAR | {' | '.join(values)} |",
            "",
            f"{stored['n_clips']} clips of {len(stored['speakers'])} speakers, each heard by a "
            f"model trained on the others, {' and '.join(stored['precision'])}, as a stream; "
            f"{stored['hardware']}, {stored['date']}.",
            "",
            "| speakers never heard, all clips together, UAR / WAR | nothing known | features "
            "normalised | leaning taken back too |",
            "|---|---|---|---|",
            *(_steps(load(RESULTS / f"{corpus}-timnet-live-loso.json")) for corpus in CORPORA),
        ]
    )


def _steps(report: dict[str, Any]) -> str:
    """Return a row of what each step of getting to know the speaker is worth."""
    kinds = ("", "normalized_", "adapted_")
    cells = [" / ".join(_percent(report, "pooled", kind)) for kind in kinds]
    return f"| {report['settings']['corpus']} | {' | '.join(cells)} |"


def living() -> str:
    """Return how the shipped model fares where people live."""
    stored = load(RESULTS / "conditions.json")
    found = stored["uar"]
    lines = ["| heard | UAR |", "|---|---|"]
    lines.append(f"| as recorded, offline | {stored['offline_uar']:.1f} |")
    names = {
        "clean": "as recorded, as a stream through the speech gate",
        "known inf s": "known: all of the speaker's other clips",
    }
    levels: dict[str, dict[str, float]] = {}
    for name, value in found.items():
        words = name.split()
        if words[-1] == "dB" and words[0] != "gain":
            levels.setdefault(" ".join(words[:-2]), {})[words[-2]] = value
        else:
            lines.append(f"| {names.get(name, name)} | {value:.1f} |")
    steps = list(next(iter(levels.values())))
    lines += ["", f"| noise | {' | '.join(f'{step} dB' for step in steps)} |"]
    lines.append("|---" * (1 + len(steps)) + "|")
    for noise, values in levels.items():
        lines.append(f"| {noise} | {' | '.join(f'{values[step]:.1f}' for step in steps)} |")
    mean = [sum(values[step] for values in levels.values()) / len(levels) for step in steps]
    lines.append(f"| mean | {' | '.join(f'{value:.1f}' for value in mean)} |")
    gate, free = (stored["non_speech"][kind] for kind in ("voice", "off"))
    lines += [
        "",
        f"{stored['n_clips']} clips of speakers {' and '.join(stored['speakers'])}, "
        f"{' and '.join(stored['precision'])}; {stored['hardware']}, {stored['date']}. Median time "
        f"from the start of a clip to a label that is right and stays, where it ends so "
        f"({stored['n_right_and_stable']} clips): "
        f"{stored['median_s_to_right_and_stable']:.2f} s; {stored['label_changes_per_minute']:.1f} "
        f"changes of label in a minute of speech. In {gate['hours']:.2f} hours of those sounds "
        f"and silence, reports an hour: {gate['utterances_per_hour']:.0f} "
        f"({gate['certain_per_hour']:.0f} of them not uncertain) with the gate, "
        f"{free['utterances_per_hour']:.0f} ({free['certain_per_hour']:.0f}) without.",
    ]
    return "\n".join(lines)


def model_card() -> str:
    """Return the text beside the shipped model."""
    card = Card.read(MODEL.with_suffix(".json"))
    about = card.provenance
    taught = ""
    if about["model"]["taught"]:
        taught = """
In training they also learnt to predict what the lower half of Whisper tiny's encoder (Radford et
al., 2023, MIT licence) makes of the same speech (`train/teacher.py`)."""
    return f"""# {MODEL.name}

Which of {", ".join(card.labels)} a voice sounds like. Written by `python -m train.results`.

**Data.** {about["licence"]}; {about["n_clips"]} clips of the speakers
{", ".join(about["speakers"])}. Speakers {" and ".join(about["held_out_speakers"])} are in no
training clip.

**Model.** Preset `{about["preset"]}`: {len(about["model"]["stems"])} networks that learn each on
its own and answer with the mean of their logits; {about["epochs"]} epochs, the last one taken;
windows of {card.window_s:.2g} s of {card.frontend.n_mels} log-mel bands, pitch and voicing,
normalised by what is heard of the speaker (`edge/speaker.py`).{taught}

**Intended use.** Research, art, games, self-observation; on the device, with the consent of those
who are heard. **Not** for judging anyone, and not at work or in schools, where the EU's AI Act
(article 5) bans it.

**Limits.** Acted speech, German, ten actors, a studio. It says what a voice sounds like, not what
somebody feels. About people whom it has never heard it is often wrong:

{shipped()}

## Cross-validation of the recipe

{recognition(about["preset"])}

## Whoever speaks

{adaptation()}

## Calibration

{calibration()}

## Where people live

Noises are so many dB below the speech. "Known" has heard so many seconds of the speaker's other
clips, "enrolled" of neutral ones. The room was measured with a clap of two boards, which has little
below 1 kHz, so that it is heard with and without the colour of that clap.

{living()}
"""


def cost() -> str:
    """Return what training costs."""
    speed = load(RESULTS / "speed.json")
    epoch = {name: f"{value:.2f} s" for name, value in speed["epoch_s"].items()}
    benchmark = "`python -m train.benchmark`"
    rows = {
        f"an epoch of {speed['n_clips']} clips on {speed['n_threads']} thread": (
            epoch["here"], benchmark,
        ),
        "the same with Keras's dilated `Conv1D`, as Keras compiles it by default": (
            f"{epoch['keras']}; ratio {speed['ratio_to_keras']:.2f}", benchmark,
        ),
        "the same compiled with XLA": (
            f"{epoch['keras_with_xla']}; ratio {speed['ratio_to_keras_with_xla']:.2f}",
            benchmark,
        ),
        "start of the next fold": (f"{speed['next_fold_s']:.2f} s", benchmark),
    }  # fmt: skip
    lines = ["| | measured | command |", "|---|---|---|"]
    lines += [f"| {name} | {value} | {command} |" for name, (value, command) in rows.items()]
    return "\n".join([*lines, "", f"{speed['hardware']}, {speed['date']}."])


def parity() -> str:
    """Return how every kind of converted model answers beside the trained one."""
    stored = load(ROOT / "convert/results/parity.json")
    lines = [
        "| model | KB | same label, clips | same label, windows | largest difference, windows |",
        "|---|---|---|---|---|",
    ]
    for name, model in stored["models"].items():
        lines.append(
            f"| {name} | {model['n_bytes'] / 1000:.0f} | {100 * model['clip_agreement']:.2f} % "
            f"| {100 * model['window_agreement']:.2f} % | {model['prob_difference']:.6f} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"On {stored['n_windows']} windows of {stored['n_clips']} clips of EMO-DB, as the "
            "device hears them (waveform models: on windows of the samples), "
            f"{stored['hardware']}, {stored['date']} (`{stored['command']}`). The waveform model "
            f"takes {stored['waveform_time_ratio']:.2f} of the time that the front end and the "
            "float32 model take for a window of its own; in a stream, the front end computes every "
            "row once, and the waveform model all of them for every estimate.",
        ]
    )


def instructions() -> str:
    """Return what an estimate costs, in instructions."""
    stored = load(RESULTS / "instructions.json")
    lines = ["| stage of an estimate | million instructions |", "|---|---|"]
    stages = dict(stored["instructions"])
    stages["all together"] = stages.pop("estimate")
    lines += [f"| {stage} | {number / 1e6:.2f} |" for stage, number in stages.items()]
    return "\n".join(
        [
            *lines,
            "",
            f"x86-64 under callgrind, Python {stored['python']}, NumPy {stored['numpy']}, "
            f"{stored['runtime']}, {stored['date']} (`{stored['command']}`). "
            f"On aarch64: {stored['aarch64']}.",
        ]
    )


TABLES = (
    demo,
    recognition,
    variants,
    shipped,
    ablation,
    adaptation,
    calibration,
    living,
    cost,
    parity,
    instructions,
    *tables.TABLES,
)


def with_tables(readme: str) -> str:
    """Return the README with every ``<!-- table: NAME -->`` block written anew."""
    for table in TABLES:
        begin, end = f"<!-- table: {table.__name__} -->", "<!-- end -->"
        pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
        if not pattern.search(readme):
            raise ValueError(f"README.md has no {begin} ... {end}")
        content = table()
        readme = pattern.sub(lambda m, text=content: f"{m[1]}{text}\n{m[2]}", readme)  # type: ignore[misc]
    return readme


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.results", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the README agrees")
    args = parser.parse_args(argv)
    path, card = ROOT / "README.md", MODEL.parent / "emodb.md"
    written = {path: with_tables(path.read_text(encoding="utf-8")), card: model_card()}
    for file, text in written.items():
        if not args.check:
            write_bytes(file, text.encode())
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            print(
                f"error: {file.name} differs from the result files; run python -m train.results",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
