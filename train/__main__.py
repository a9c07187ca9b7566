"""``python -m train``: train TIM-Net or a variant of it, and say honestly how good it is."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path

from rich.console import Console

from edge.errors import SerError, above_0, count, exit_code
from edge.frontend import LOG_MEL, PUBLISHED, STREAM
from edge.quiet import quiet_native

KEPT = "stopped; folds that had ended are kept, the same command goes on"
FRONTENDS = {"logmel": LOG_MEL, "stream": STREAM, "published": PUBLISHED}

EPOCHS = 160  # Assumed: enough for the recipe that ships.


def build_parser() -> argparse.ArgumentParser:
    from train.corpora import LAYOUTS
    from train.presets import FUSIONS, PRESETS

    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train a speech emotion recognizer; cross-validate it, or make one to ship.",
        epilog="The same command goes on with a run that was stopped, fold by fold.",
    )
    add = parser.add_argument
    add("--corpus", choices=LAYOUTS, default="emodb", help="default: emodb")
    add("--data", type=Path, metavar="DIR",
        help="the corpus's folder (a file for csv); default: $SER_DATA/CORPUS")  # fmt: skip
    add("--preset", choices=PRESETS, default="timnet-live",
        help="network and training; default: timnet-live, the one that ships")  # fmt: skip
    add("--frontend", choices=FRONTENDS, default="logmel",
        help="what the model hears: the log-mel spectrum, normalised by what is heard of the "
        "speaker; MFCCs that can be streamed; or the published MFCCs, which need whole clips; "
        "default: logmel")  # fmt: skip
    add("--protocol", choices=("sd10", "loso", "holdout"), default="loso",
        help="sd10: the ten published random folds; loso: leave one speaker out; "
        "holdout: one model, trained on all but --hold-out; default: loso")  # fmt: skip
    add("--hold-out", metavar="SPEAKERS", default="",
        help="with holdout: speakers to test on, separated by commas; default: nobody")  # fmt: skip
    add("--without", metavar="SPEAKERS", default="",
        help="speakers to leave out altogether, separated by commas; default: nobody")  # fmt: skip
    add("--epochs", type=count, default=EPOCHS, help=f"default: {EPOCHS}")
    add("--window-s", type=above_0, metavar="S",
        help="window or clip length; default: 3, or with the published front end the length that "
        "TIM-Net's authors used for the corpus")  # fmt: skip
    add("--n-blocks", type=count,
        help="default: the preset's; with the published front end 10 for iemocap")  # fmt: skip
    add("--n-filters", type=count, help="default: the preset's")
    add("--fusion", choices=FUSIONS, help="default: the preset's")
    add("--batch-size", type=count, help="default: the preset's")
    add("--seed", type=seed_number, default=0, help="of weights, order and dropout; default: 0")
    add("--jobs", type=count, metavar="N",
        help="folds at a time; default: one for each core, or 1 with a GPU")  # fmt: skip
    add("--dask", metavar="ADDRESS",
        help="run the folds on this Dask cluster, e.g. tcp://10.0.0.1:8786")  # fmt: skip
    add("--out", type=Path, metavar="DIR",
        help="run directory; default: runs/CORPUS-PRESET-FRONTEND-PROTOCOL")  # fmt: skip
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def seed_number(text: str) -> int:
    """Return an argument as a whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, not {text}")
    return int(text)


def data_folder(corpus: str, given: Path | None) -> Path:
    """Return the corpus's folder, from the flag or from ``$SER_DATA``."""
    if given is not None:
        return given
    if root := os.environ.get("SER_DATA"):
        return Path(root) / corpus
    raise SerError(f"where is {corpus}? give --data DIR, or set SER_DATA to the folder above it")


def run(args: argparse.Namespace, command: str) -> None:
    from train import corpora, protocols
    from train import run as training
    from train.dataset import default_window_s
    from train.presets import PRESETS
    from train.report import report

    console = Console(stderr=True)
    corpus = corpora.load(args.corpus, data_folder(args.corpus, args.data))
    corpora.check_readable(corpus)
    corpus = corpora.without(corpus, tuple(s for s in args.without.split(",") if s))
    speakers = tuple(s for s in args.hold_out.split(",") if s)
    if speakers and args.protocol != "holdout":
        raise SerError(f"--hold-out goes with --protocol holdout, not with {args.protocol}")
    folds = {
        "sd10": lambda: protocols.sd10(corpus),
        "loso": lambda: protocols.loso(corpus),
        "holdout": lambda: protocols.holdout(corpus, speakers),
    }[args.protocol]()
    config = PRESETS[args.preset]
    frontend = FRONTENDS[args.frontend]
    if args.corpus == "iemocap" and not frontend.streamable:
        config = dataclasses.replace(config, n_blocks=10)  # Cited: the published depth for it.
    for name in ("n_blocks", "n_filters", "fusion", "batch_size"):
        if (value := getattr(args, name)) is not None:
            config = dataclasses.replace(config, **{name: value})
    settings = training.Settings(
        corpus=args.corpus,
        clips_sha256=training.fingerprint(corpus),
        protocol=args.protocol,
        held_out=speakers,
        preset=args.preset,
        model=dataclasses.asdict(config),
        frontend=frontend.to_json(),
        window_s=args.window_s or default_window_s(args.corpus, frontend),
        epochs=args.epochs,
        seed=args.seed,
    )
    name = f"{args.corpus}-{args.preset}-{args.frontend}-{args.protocol}"
    out = args.out or Path("runs") / name
    n_jobs = min(len(folds), args.jobs or default_jobs())
    console.print(
        f"{corpus.name}: {len(corpus.clips)} clips, {len(corpus.speakers)} speakers, "
        f"{len(corpus.labels)} emotions. Licence: {corpus.licence}"
    )
    training.run(corpus, folds, settings, out, n_jobs, args.dask, console)
    result = report(out, folds, corpus, command)
    if "uar_mean" in result:
        print(
            f"UAR {100 * result['uar_mean']:.1f} ± {100 * result['uar_std']:.1f}, "
            f"WAR {100 * result['war_mean']:.1f} ± {100 * result['war_std']:.1f} over "
            f"{len(folds)} folds; pooled over clips UAR {100 * result['uar_pooled']:.1f}, "
            f"WAR {100 * result['war_pooled']:.1f}"
        )
    if "adapted_uar_mean" in result:
        print(
            f"adapted to the speaker: UAR {100 * result['adapted_uar_mean']:.1f} ± "
            f"{100 * result['adapted_uar_std']:.1f}, "
            f"WAR {100 * result['adapted_war_mean']:.1f} ± {100 * result['adapted_war_std']:.1f}; "
            f"pooled UAR {100 * result['adapted_uar_pooled']:.1f}, "
            f"WAR {100 * result['adapted_war_pooled']:.1f}"
        )
    print(out)


def default_jobs() -> int:
    """Return one job for each core, or one where TensorFlow has a GPU."""
    with quiet_native():
        import tensorflow as tf

        return 1 if tf.config.list_physical_devices("GPU") else (os.cpu_count() or 1)


def portable(arguments: list[str]) -> str:
    """Return the command without what belongs to one machine: folders, jobs, cluster."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--data", "--out", "--jobs", "--dask"):
        parser.add_argument(flag)
    parser.add_argument("--debug", action="store_true")
    return shlex.join(["python", "-m", "train", *parser.parse_known_args(arguments)[1]])


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # workers inherit it
    arguments = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(arguments)
    return exit_code(lambda: run(args, portable(arguments)), args.debug, KEPT)


if __name__ == "__main__":
    code = main()
    from train.fit import trainer

    if code == 130 and trainer.cache_info().currsize:
        # Stopped in the middle of a step here and not in a worker: TensorFlow's threads now and
        # then crash the tear-down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
