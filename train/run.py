"""A run: its folds as independent jobs, each saved as it ends, and the directory they leave.

RUN/settings.json        what was asked for
RUN/<fold>/model.keras   the network after the last epoch
RUN/<fold>/saved_model/  the same for one window, laid out for conversion
RUN/<fold>/card.json     what it hears and answers
RUN/<fold>/windows.npz   calibration windows; held-out windows with the network's answers
RUN/<fold>/result.json   the fold's figures; written last, so its presence means "done"
RUN/report.json, curves.png, confusion.png
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import platform
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edge.card import Card, sha256
from edge.errors import SerError, stop_if_asked
from edge.frontend import Frontend
from edge.quiet import quiet_native
from edge.storage import write_json, write_with
from train import teacher
from train.corpora import Corpus
from train.dataset import Features, corpus_features, speaker_statistics
from train.fit import Job, Result, recall, run_fold
from train.presets import Config
from train.protocols import Fold

if TYPE_CHECKING:
    from train.model import TimNet


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run was asked for; stored as ``settings.json`` and compared when it goes on.

    ``clips_sha256`` stands for the corpus's clips and their order (`fingerprint`), ``model`` holds
    the fields of `train.presets.Config`.
    """

    corpus: str
    clips_sha256: str
    protocol: str
    held_out: tuple[str, ...]
    preset: str
    model: dict[str, Any]
    frontend: dict[str, Any]
    window_s: float
    epochs: int
    seed: int

    def write_or_compare(self, path: Path) -> None:
        """Store the settings, or make sure that a run that goes on was asked for the same.

        A run without a fold that has ended has nothing that could go on.
        """
        mine = json.loads(json.dumps(dataclasses.asdict(self)))
        if path.exists() and any(path.parent.glob("*/result.json")):
            theirs = json.loads(path.read_text())
            if differing := [key for key in mine if mine[key] != theirs.get(key)]:
                raise SerError(
                    f"{path.parent} holds a run with other settings "
                    f"({', '.join(f'{k}: {theirs.get(k)!r}' for k in differing)}); "
                    "give another --out, or the same settings to go on with it"
                )
        else:
            write_json(path, mine)


def require_fit(preset: str, config: Config, frontend: Frontend) -> None:
    """Raise SerError if the front end does not give what the network is made for."""
    if config.beside and not frontend.pitch:
        raise SerError(
            f"{preset} expects bands and, beside them, pitch and voicing, which this front end "
            "does not give; use --frontend logmel, or another --preset"
        )
    augmented = config.speeds or config.n_noisy or config.short or config.taught
    if augmented and not frontend.streamable:
        raise SerError(
            f"{preset} is trained on speech at other speeds and in noise, of which this front end, "
            "which needs whole clips, gives none; use --frontend logmel, or another --preset"
        )
    if config.taught and frontend.sample_rate_hz != teacher.RATE_HZ:
        raise SerError(
            f"{preset} learns from a teacher that hears {teacher.RATE_HZ} Hz, not "
            f"{frontend.sample_rate_hz}; use --frontend logmel, or another --preset"
        )


def fingerprint(corpus: Corpus) -> str:
    """Return a hash of the clips' names, labels and speakers, in order."""
    lines = [f"{clip.path.name} {clip.label} {clip.speaker}" for clip in corpus.clips]
    return sha256("\n".join(lines).encode())


def run(
    corpus: Corpus,
    folds: list[Fold],
    settings: Settings,
    out: Path,
    n_jobs: int,
    dask: str | None,
    console: Console,
) -> None:
    """Train every fold that ``out`` does not hold yet."""
    frontend, config = Frontend.from_json(settings.frontend), Config(**settings.model)
    window_samples = round(settings.window_s * frontend.sample_rate_hz)
    n_rows = frontend.n_rows(window_samples)
    if n_rows < 1:
        raise SerError(f"a window of {settings.window_s:g} s is shorter than one frame")
    require_fit(settings.preset, config, frontend)
    settings.write_or_compare(out / "settings.json")
    waiting = [fold for fold in folds if not (out / fold.name / "result.json").exists()]
    if len(waiting) < len(folds):
        console.print(f"{len(folds) - len(waiting)} of {len(folds)} folds are done already")
    if not waiting:
        return
    # Neither what is known of speakers nor, in a stream, the window changes the rows.
    hears = dataclasses.replace(frontend, mean=(), scale=(), adapt_s=0.0)
    cropped = 0 if frontend.streamable else window_samples
    features = read_clips(
        corpus, hears, cropped, config.speeds, config.n_noisy, config.taught > 0, n_jobs, console
    )
    # Where nobody knows whose voice it is, every clip is a voice of its own.
    named = "" not in corpus.speakers
    speakers = [clip.speaker or str(clip.path) for clip in corpus.clips]
    known = speaker_statistics(features, speakers, 0)
    targets = np.array([corpus.labels.index(clip.label) for clip in corpus.clips])
    with tempfile.TemporaryDirectory(prefix="progress-", dir=out) as progress:
        jobs = [
            Job(
                name=fold.name,
                config=config,
                frontend=frontend,
                n_rows=n_rows,
                n_labels=len(corpus.labels),
                train=[features[i] for i in fold.train],
                train_labels=targets[list(fold.train)],
                train_speakers=[speakers[i] for i in fold.train],
                test=[features[i] for i in fold.test],
                test_labels=targets[list(fold.test)],
                known=[known[speakers[i]] for i in fold.test] if named else None,
                epochs=settings.epochs,
                seed=settings.seed + folds.index(fold),
                n_threads=max(1, (os.cpu_count() or 1) // n_jobs),
                progress=Path(progress),
            )
            for fold in waiting
        ]
        by_name = {fold.name: fold for fold in folds}
        with _bars(jobs, settings.epochs, Path(progress), console) as finished:
            for result in _results(jobs, n_jobs, dask):
                numbers = _save(result, by_name[result.name], corpus, settings, out)
                finished(result.name, numbers)
                stop_if_asked()


@functools.lru_cache(maxsize=1)  # for the next run in this process, which may hear the same
def read_clips(
    corpus: Corpus,
    frontend: Frontend,
    window_samples: int,
    speeds: tuple[float, ...],
    n_noisy: int,
    taught: bool,
    n_jobs: int,
    console: Console,
) -> list[Features]:
    """Return what `train.dataset.corpus_features` yields, behind a bar, on ``n_jobs`` workers."""
    bar = Progress(*Progress.get_default_columns(), console=console, transient=True)
    with _workers(), bar as progress:
        clips = corpus_features(corpus, frontend, window_samples, speeds, n_noisy, taught, n_jobs)
        read = list(progress.track(clips, len(corpus.clips), description="reading clips"))
    # A worker that has read clips takes TensorFlow's memory for a leak: after its first fold it
    # would make way for a new one, which compiles the network again.
    get_reusable_executor().shutdown()
    return read


def _results(jobs: list[Job], n_jobs: int, dask: str | None) -> Iterator[Result]:
    """Yield results as folds end: processes here, or the workers of a Dask cluster."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_workers())
        if dask is not None:
            import distributed

            try:
                client = distributed.Client(dask, timeout="10s")
            except (OSError, ValueError) as error:
                raise SerError(f"no Dask scheduler answers at {dask} ({error})") from error
            stack.enter_context(client)
            stack.enter_context(joblib.parallel_config(backend="dask"))
            n_jobs = -1
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)
        yield from parallel(joblib.delayed(run_fold)(job) for job in jobs)


def _workers() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which this machine's workers leave Ctrl-C to their parent."""
    arguments = (signal.SIGINT, signal.SIG_IGN)
    context: contextlib.AbstractContextManager[Any] = joblib.parallel_config(
        backend="loky", initializer=signal.signal, initargs=arguments
    )
    return context


def load_network(folder: Path) -> TimNet:
    """Return the network in a fold's folder."""
    with quiet_native():
        import keras

        from train.model import TimNet

    network: TimNet = keras.models.load_model(
        folder / "model.keras", custom_objects={"TimNet": TimNet}
    )
    return network


def _save(
    result: Result, fold: Fold, corpus: Corpus, settings: Settings, out: Path
) -> dict[str, Any]:
    """Write a fold's folder, ``result.json`` last; return its numbers."""
    with quiet_native():
        import tensorflow as tf

        from train.model import TimNet

    folder = out / fold.name
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted save may have left
    folder.mkdir(parents=True)
    n_rows = result.calibration.shape[1]
    n_features, n_labels = result.frontend.n_features, len(corpus.labels)
    model = TimNet(Config(**settings.model), n_rows, n_features, n_labels)
    model.set_weights(result.weights)
    write_with(folder / "model.keras", model.save)
    with quiet_native():
        model.save_deployed(str(folder / "saved_model"), result.calibration)
    arrays = dict(
        calibration=result.calibration,
        windows=result.windows,
        owners=result.owners,
        logits=result.logits,
        labels=result.labels,
    )
    write_with(folder / "windows.npz", lambda path: np.savez_compressed(path, **arrays))
    provenance = {
        "corpus": corpus.name,
        "licence": corpus.licence,
        "n_clips": len(fold.train),
        "speakers": sorted({corpus.clips[i].speaker for i in fold.train}),
        "held_out_speakers": sorted(
            {corpus.clips[i].speaker for i in fold.test}
            - {corpus.clips[i].speaker for i in fold.train}
        ),
        "n_held_out_clips": len(fold.test),
        "protocol": settings.protocol,
        "preset": settings.preset,
        "model": settings.model,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__},
    }
    name = f"{corpus.name}-{settings.preset}"
    card = Card(name, corpus.labels, result.frontend, n_rows, provenance=provenance)
    card.write(folder / "card.json")
    numbers: dict[str, Any] = {
        "n_parameters": sum(w.size for w in result.weights),
        "start_s": round(result.start_s, 2),
        "epoch_s": round(result.epoch_s, 3),
        "history": {key: [round(v, 4) for v in values] for key, values in result.history.items()},
        "clips": [
            {
                "clip": corpus.clips[i].path.name,
                "label": corpus.clips[i].label,
                "probs": [round(float(p), 4) for p in probs],
            }
            for i, probs in zip(fold.test, result.test_probs, strict=True)
        ],
    }
    if fold.test:
        predicted = result.test_probs.argmax(axis=1)
        numbers["uar"] = recall(result.labels, predicted)
        numbers["war"] = float((result.labels == predicted).mean())
    if result.adapted_probs is not None:
        for clip, probs in zip(numbers["clips"], result.adapted_probs, strict=True):
            clip["adapted_probs"] = [round(float(p), 4) for p in probs]
    write_json(folder / "result.json", numbers)
    return numbers


@contextlib.contextmanager
def _bars(jobs: list[Job], epochs: int, folder: Path, console: Console) -> Iterator[Any]:
    """Show a bar for the run and one for each fold under way; yield a function for ended folds."""
    bars = Progress(
        TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[numbers]}"),
        console=console, refresh_per_second=4,
    )  # fmt: skip
    whole = bars.add_task("all folds", total=len(jobs) * epochs, numbers="")
    rows = {
        job.name: bars.add_task(job.name, total=epochs, visible=False, numbers="") for job in jobs
    }
    done: dict[str, int] = {}
    lock = threading.Lock()

    def refresh() -> None:
        for path in folder.glob("*.jsonl"):
            with contextlib.suppress(IndexError, ValueError, OSError):  # a line half written
                last = json.loads(path.read_text().splitlines()[-1])
                if done.get(last["fold"], 0) < last["epoch"]:
                    done[last["fold"]] = last["epoch"]
                    text = f"loss {last['loss']:.3f}  recall {100 * last['uar']:5.1f} %"
                    bars.update(
                        rows[last["fold"]], completed=last["epoch"], visible=True, numbers=text
                    )
        bars.update(whole, completed=sum(done.values()))

    def finished(name: str, numbers: dict[str, Any]) -> None:
        with lock:
            done[name] = epochs
            bars.update(rows[name], completed=epochs, visible=False)
        tested = f"UAR {100 * numbers['uar']:.1f} %" if "uar" in numbers else "nobody held out"
        bars.console.print(f"{name}: {tested}, last loss {numbers['history']['loss'][-1]:.3f}")

    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            with lock:
                refresh()

    watcher = threading.Thread(target=watch, daemon=True)
    with bars:
        watcher.start()
        try:
            yield finished
        finally:
            stop.set()
            watcher.join()
