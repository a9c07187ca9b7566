"""``python -m convert RUN_DIR``: make models for the device from a trained one, and check them."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from convert.parity import TOLERANCES, Parity, measure
from convert.tflite import PRECISIONS, operators, to_tflite
from edge.card import Card, ModelFile, sha256
from edge.errors import ModelError, exit_code
from edge.model import Model
from edge.storage import write_bytes, write_json


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Convert a trained model to TFLite, each file with its card, and compare its "
        "answers with the trained model's. A model that strays too far is not written.",
    )
    parser.add_argument("run_dir", type=Path, help="what python -m train left, or one fold of it")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write; default: RUN_DIR/tflite"
    )
    parser.add_argument(
        "--name", help="of the files: NAME.int8.tflite and so on; default: the card's name"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS, help="default: all four"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def fold_folder(run_dir: Path) -> Path:
    """Return the folder of the one trained model in ``run_dir``."""
    if (run_dir / "card.json").exists():
        return run_dir
    folders = sorted(card.parent for card in run_dir.glob("*/card.json"))
    if not folders:
        raise ModelError(f"{run_dir}: no trained model here; expected a run of python -m train")
    if len(folders) > 1:
        raise ModelError(
            f"{run_dir} holds {len(folders)} models; name one, for example {folders[0]}"
        )
    return folders[0]


@dataclasses.dataclass(frozen=True)
class Converted:
    """One model for the device, in memory."""

    content: bytes
    card: Card
    operators: dict[str, int]
    parity: Parity


def convert(fold: Path, precision: str, name: str) -> Converted:
    """Convert the model in ``fold`` and compare it with the trained one; write nothing."""
    card = Card.read(fold / "card.json")
    try:
        with np.load(fold / "windows.npz") as stored:
            arrays = dict(stored)
    except (OSError, ValueError) as error:
        raise ModelError(f"{fold / 'windows.npz'}: cannot be read ({error})") from error
    content = to_tflite(fold / "saved_model", precision, arrays.pop("calibration"))
    file = ModelFile(f"{name}.{precision}.tflite", sha256(content), precision)
    card = dataclasses.replace(card, name=name, file=file)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / file.name
        trial.write_bytes(content)
        card.write(trial.with_suffix(".json"))
        parity = measure(Model(trial), arrays, precision)
    return Converted(content, card, dict(operators(content)), parity)


def refusal(converted: Converted) -> str:
    """Return the line that says why a model was not written."""
    assert converted.card.file is not None
    parity, tolerance = converted.parity, TOLERANCES[converted.card.file.precision]
    return (
        f"{converted.card.file.name} was not written, it strays too far from the trained model: "
        f"largest probability difference {parity.prob_difference:.4f} (at most "
        f"{tolerance.prob_difference}), same label on {100 * parity.agreement:.1f} % of windows "
        f"(at least {100 * tolerance.agreement:.1f}), UAR {parity.uar:.1f} against "
        f"{parity.uar_keras:.1f} (at most {tolerance.uar_loss} lost)"
    )


def run(args: argparse.Namespace) -> None:
    fold = fold_folder(args.run_dir)
    out = args.out or fold / "tflite"
    card = Card.read(fold / "card.json")
    name = args.name or card.name
    models = {precision: convert(fold, precision, name) for precision in args.precision}
    held_out = card.provenance.get("n_held_out_clips", 0)
    checked = "held-out clips" if held_out else "training clips (the run held nobody out)"
    show(models, checked)
    write_json(
        out / f"{name}.parity.json",
        {
            "checked_on": checked,
            "models": {
                precision: {
                    "n_bytes": len(model.content),
                    "operators": model.operators,
                    **model.parity.to_json(),
                }
                for precision, model in models.items()
            },
        },
    )
    for model in models.values():
        assert model.card.file is not None
        if model.parity.within:
            path = out / model.card.file.name
            write_bytes(path, model.content)
            model.card.write(path.with_suffix(".json"))
            print(path)
    if refused := [refusal(model) for model in models.values() if not model.parity.within]:
        raise ModelError("; ".join(refused))


def show(models: dict[str, Converted], checked: str) -> None:
    """Print how the models compare with the trained one, and what operators they consist of."""
    console = Console()
    parity = next(iter(models.values())).parity
    print(
        f"Against the trained model, on {parity.n_windows} windows of {parity.n_clips} {checked}:"
    )
    table = Table("model", "KB", "max. prob. difference", "same label %", "UAR", "trained")
    for precision, model in models.items():
        table.add_row(
            precision,
            f"{len(model.content) / 1000:.0f}",
            f"{model.parity.prob_difference:.5f}",
            f"{100 * model.parity.agreement:.2f}",
            f"{model.parity.uar:.2f}",
            f"{model.parity.uar_keras:.2f}",
        )
    console.print(table)
    table = Table("operator", *models)
    for operator in sorted({operator for m in models.values() for operator in m.operators}):
        table.add_row(operator, *(str(m.operators.get(operator, "")) for m in models.values()))
    table.add_row("all", *(str(sum(m.operators.values())) for m in models.values()))
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    args = build_parser().parse_args(argv)
    try:
        return exit_code(lambda: run(args), args.debug)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
