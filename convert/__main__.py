"""``python -m convert RUN_DIR``: make models for the device from a trained one, and check them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import date
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

from convert import bundle, coreml, tflite, waveform
from convert.parity import TOLERANCES
from convert.run import Made, Run, fold_folder
from edge.card import Card
from edge.errors import ModelError, exit_code
from edge.model import interpreter_module
from edge.storage import move_into, write_json

KINDS: dict[str, ModuleType] = {"tflite": tflite, "coreml": coreml}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Convert a trained model to TFLite or Core ML, each file with its card, and "
        "compare its answers with the trained model's. A model that strays too far is not written.",
    )
    add = parser.add_argument
    add("run_dir", type=Path, help="what python -m train left, or one fold of it")
    add("--to", choices=KINDS, default="tflite", help="default: tflite")
    add("--waveform", action="store_true",
        help="instead, TFLite and Core ML that hear samples: front end included")  # fmt: skip
    add("--bundle", type=Path, metavar="FILE.zip",
        help="instead, one file with the program, the model and its card")  # fmt: skip
    add("--out", type=Path, metavar="DIR",
        help="where to write; default: tflite, coreml or waveform in RUN_DIR")  # fmt: skip
    add("--name", help="of the files: NAME.int8.tflite and so on; default: the card's name")
    add("--precision", nargs="+", metavar="P",
        choices=(*tflite.PRECISIONS, *coreml.PRECISIONS),
        help=f"tflite: {', '.join(tflite.PRECISIONS)}; coreml: {', '.join(coreml.PRECISIONS)}; "
        "default: all, and for --bundle int8 or half")  # fmt: skip
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def refusal(made: Made) -> str:
    """Return the line that says why a model was not written."""
    parity, tolerance = made.parity, TOLERANCES[made.precision]
    line = (
        f"{made.path.name} was not written, it strays too far from the trained model: "
        f"largest probability difference {parity.prob_difference:.4f} (at most "
        f"{tolerance.prob_difference}), same label on {100 * parity.agreement:.1f} % of windows "
        f"(at least {100 * tolerance.agreement:.1f})"
    )
    if parity.uar is not None and parity.uar_keras is not None:
        line += (
            f", UAR {parity.uar:.1f} against {parity.uar_keras:.1f} "
            f"(at most {tolerance.uar_loss} lost)"
        )
    return line


def run(args: argparse.Namespace) -> None:
    interpreter_module()  # before TensorFlow: see convert.tflite.to_tflite
    fold = fold_folder(args.run_dir)
    card = Card.read(fold / "card.json")
    trained = Run(fold, args.name or card.name)
    if args.bundle:
        out = args.bundle.parent
    else:
        out = args.out or fold / ("waveform" if args.waveform else args.to)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=out) as name:
        folder = Path(name)
        if args.waveform:
            models = waveform.make(trained, folder)
        else:
            models = KINDS[args.to].make(trained, args.precision, folder)
        show(models, checked_on(card, args.waveform))
        if args.to == "coreml":
            show_operators(coreml.operators_before(trained), models[0])
        accepted = [model for model in models if model.within]
        if args.bundle:
            for model in accepted:
                bundle.write(args.bundle, model.path)
                print(args.bundle)
        else:
            report(out, trained.name, args, models, checked_on(card, args.waveform))
            paths = []
            for model in accepted:
                move_into(model.path.with_suffix(".json"), out)
                paths.append(move_into(model.path, out))
            for path in paths:  # a reader who leaves early finds all or nothing
                print(path)
    if refused := [refusal(model) for model in models if not model.within]:
        raise ModelError("; ".join(refused))


def checked_on(card: Card, hears_samples: bool) -> str:
    """Return what the models were compared on, in words."""
    if hears_samples:
        return "recordings of the demo"
    held_out = card.provenance.get("n_held_out_clips", 0)
    return "held-out clips" if held_out else "training clips (the run held nobody out)"


def report(
    out: Path, name: str, args: argparse.Namespace, models: list[Made], checked: str
) -> None:
    """Write what was measured as JSON."""
    kind = "waveform." if args.waveform else {"tflite": "", "coreml": "coreml."}[args.to]
    figures = {model.kind: model.to_json() for model in models}
    written = {"checked_on": checked, "date": date.today().isoformat(), "models": figures}
    write_json(out / f"{name}.{kind}parity.json", written)


def show(models: list[Made], checked: str) -> None:
    """Print how the models compare with the trained one, and what operators they consist of."""
    console = Console()
    parity = models[0].parity
    print(
        f"Against the trained model, on {parity.n_windows} windows of {parity.n_clips} {checked}:"
    )
    table = Table("model", "KB", "max. prob. difference", "same label %", "UAR", "trained")
    for model in models:
        uars = (model.parity.uar, model.parity.uar_keras)
        table.add_row(
            model.kind,
            f"{model.n_bytes / 1000:.0f}",
            f"{model.parity.prob_difference:.5f}",
            f"{100 * model.parity.agreement:.2f}",
            *("-" if uar is None else f"{uar:.2f}" for uar in uars),
        )
    console.print(table)
    for line in {model.on_device_line for model in models} - {""}:
        print(line)
    table = Table("operator", *(model.kind for model in models))
    for operator in sorted({operator for m in models for operator in m.operators}):
        table.add_row(operator, *(str(m.operators.get(operator, "")) for m in models))
    table.add_row("all", *(str(sum(m.operators.values())) for m in models))
    console.print(table)


def show_operators(before: dict[str, int], model: Made) -> None:
    """Print what our passes are worth."""
    table = Table("operator", "by coremltools alone", "here")
    for operator in sorted({*before, *model.operators}):
        numbers = (operators.get(operator, "") for operators in (before, model.operators))
        table.add_row(operator, *(str(n) for n in numbers))
    table.add_row("all", str(sum(before.values())), str(sum(model.operators.values())))
    Console().print(table)


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = build_parser()
    args = parser.parse_args(argv)
    known = KINDS[args.to].PRECISIONS
    if args.bundle:
        args.precision = args.precision or [{"tflite": "int8", "coreml": "half"}[args.to]]
        if len(args.precision) > 1 or args.waveform or args.out:
            parser.error("--bundle takes one --precision, and neither --out nor --waveform")
        if args.bundle.suffix != ".zip":
            parser.error(f"--bundle: expected a name that ends in .zip, not {args.bundle}")
    if args.waveform and args.to != "tflite":
        parser.error("--waveform writes a TFLite and a Core ML model; it takes no --to")
    if args.waveform and args.precision:
        parser.error("--waveform is float32; it takes no --precision")
    args.precision = args.precision or known
    if wrong := set(args.precision) - set(known):
        parser.error(f"--to {args.to} has no {', '.join(sorted(wrong))}; it has {', '.join(known)}")
    return exit_code(lambda: run(args), args.debug)


if __name__ == "__main__":
    sys.exit(main())
