"""One fold, from features to a trained network: the job that workers run."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import stop_if_asked
from edge.frontend import Frontend
from edge.model import softmax
from edge.quiet import quiet_native
from edge.speaker import Statistics
from train.dataset import Features, TrainingWindows, device_windows, measured
from train.presets import Config
from train.teacher import N_DIRECTIONS, Lessons

N_CALIBRATION = 512  # Assumed: windows kept to measure the ranges of an int8 model.
N_CHECKED = 64  # Assumed: least number of training clips to check a conversion on, nobody held out.


@dataclass(frozen=True)
class Job:
    """All that a fold needs; it travels to the worker that runs it.

    The labels are indices; ``known`` holds all that there is of the speaker of each test clip,
    other clips included; None where nobody knows who speaks.
    """

    name: str
    config: Config
    frontend: Frontend
    n_rows: int
    n_labels: int
    train: list[Features]
    train_labels: np.ndarray
    train_speakers: list[str]
    test: list[Features]
    test_labels: np.ndarray
    known: list[Statistics] | None
    epochs: int
    seed: int
    n_threads: int
    progress: Path


@dataclass(frozen=True)
class Result:
    """What a worker sends back; the last epoch's weights and answers, never a chosen epoch's.

    Attributes
    ----------
    weights : list of arrays, in the order of the Keras model's
    frontend : Frontend
        With the normalisation measured on the training clips.
    history : dict of lists, a number an epoch
        ``loss`` and ``uar`` as training went, with dropout; ``test_loss`` and ``test_uar``.
    test_probs : float32, shape (n_test_clips, n_labels)
        Mean over each clip's windows, every clip a stranger's.
    adapted_probs : float32, shape (n_test_clips, n_labels), or None
        The same with the speakers known; None unless they are and the front end is adaptive.
    windows, owners, logits, labels
        For checking a conversion: normalised windows, the clip that each belongs to, and the
        network's answers; and the clips' labels. Test clips, or training clips if there are none.
    calibration : float32, shape (at most N_CALIBRATION, n_rows, n_features)
        Normalised windows of training clips.
    start_s : float
        Seconds that the job took to get going: set-up and compilation, the epoch itself left out.
    epoch_s : float
        Seconds for an epoch, the median, testing left out.
    """

    name: str
    weights: list[np.ndarray]
    frontend: Frontend
    history: dict[str, list[float]]
    test_probs: np.ndarray
    adapted_probs: np.ndarray | None
    windows: np.ndarray
    owners: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray
    start_s: float
    epoch_s: float


class Trainer:
    """A network whose compiled steps serve one fold after another.

    Compiling takes far longer than an epoch; `reset` gives new weights to the same compiled steps.
    """

    def __init__(self, config: Config, n_rows: int, n_features: int, n_labels: int) -> None:
        import keras
        import tensorflow as tf

        from train.model import TimNet

        self.config = config
        self._fresh = functools.partial(TimNet, config, n_rows, n_features, n_labels)
        self.model = self._fresh()
        self._optimizer = keras.optimizers.Adam(
            config.learning_rate,
            beta_1=config.beta_1,
            beta_2=config.beta_2,
            weight_decay=config.weight_decay or None,
        )
        others = [v for v in self.model.trainable_variables if len(v.shape) != 2]
        self._label_weights = tf.Variable(tf.ones(n_labels), trainable=False)
        # What predicts the lessons, from all that a member's blocks leave; nothing of it is kept.
        self._trained = list(self.model.trainable_variables)
        self._pupils: list[Any] = []
        for member in self.model.members if config.taught else ():
            pupil = keras.layers.Dense(N_DIRECTIONS)
            pupil.build((None, len(member.streams) * config.n_blocks * config.n_filters))
            others += pupil.trainable_variables
            self._trained += pupil.trainable_variables
            self._pupils.append(pupil)
        if config.weight_decay:
            self._optimizer.exclude_from_weight_decay(var_list=others)
        self._optimizer.build(self._trained)
        # Copies: on a CPU, numpy() may be a view of the variable itself.
        self._at_start = [np.array(v) for v in self._optimizer.variables]

        @tf.function(jit_compile=True)
        def step(windows: Any, labels: Any, lessons: Any, seed: Any) -> Any:
            with tf.GradientTape() as tape:
                each = self.model.each(windows, seed)
                answers = [logits for _, logits in each]
                weights = tf.gather(self._label_weights, labels) if config.balanced else None
                # Each answers for itself: members that learn together rely on each other
                # (Jeffares et al., "Joint Training of Deep Ensembles Fails Due to Learner
                # Collusion", NeurIPS 2023).
                values = [
                    loss(logits, labels, config.label_smoothing, config.focal_gamma, weights)
                    for logits in answers
                ]
                value = whole = sum(values) / len(values)
                if self._pupils:
                    left = [
                        tf.reduce_mean((pupil(tf.concat(blocks, axis=1)) - lessons) ** 2)
                        for pupil, (blocks, _) in zip(self._pupils, each, strict=True)
                    ]
                    whole += config.taught * sum(left) / len(left)
            self._optimizer.apply(tape.gradient(whole, self._trained), self._trained)
            return value, sum(answers) / len(answers)

        @tf.function(jit_compile=True)
        def infer(windows: Any) -> Any:
            return self.model(windows)

        self._step, self._infer = step, infer

    def reset(self, seed: int, labels: np.ndarray | None = None) -> None:
        """Start again from new weights; nothing is compiled anew.

        ``labels``, of the training clips, are what a balanced loss goes by.
        """
        n_labels = self.model.n_labels
        counts = np.ones(n_labels) if labels is None else np.bincount(labels, minlength=n_labels)
        self._label_weights.assign(counts.mean() / np.maximum(counts, 1))
        self.model.set_weights(self._fresh(seed=seed).get_weights())
        for variable, value in zip(self._optimizer.variables, self._at_start, strict=True):
            variable.assign(value)
        for pupil in self._pupils:
            pupil.set_weights([np.zeros(w.shape) for w in pupil.get_weights()])

    def epoch(
        self,
        windows: np.ndarray,
        labels: np.ndarray,
        rng: np.random.Generator,
        done: float = 0.0,
        lessons: np.ndarray | None = None,
    ) -> tuple[float, np.ndarray]:
        """Train on all windows once, in random order; return mean loss and predicted labels.

        ``done``, in [0, 1), is the share of the epochs that lie behind; a schedule follows it. The
        last batch is filled up from the start of the order, so that every batch has one
        shape. The loss is that in predicting labels; ``lessons``, shape (n, N_DIRECTIONS), are to
        be predicted too if the preset has a teacher.
        """
        if self.config.schedule == "cosine":
            share = 0.5 * (1 + np.cos(np.pi * done))
            self._optimizer.learning_rate.assign(self.config.learning_rate * share)
        size = self.config.batch_size
        order = rng.permutation(len(windows))
        n_batches = -(-len(windows) // size)
        filled = np.resize(order, n_batches * size)
        losses, predicted = [], np.empty(len(windows), int)
        for batch in filled.reshape(n_batches, size):
            seed = rng.integers(2**31, size=2, dtype=np.int32)
            lesson = None if lessons is None else lessons[batch]
            value, logits = self._step(windows[batch], labels[batch], lesson, seed)
            losses.append(float(value))
            predicted[batch] = logits.numpy().argmax(axis=1)
        return float(np.mean(losses)), predicted

    def logits(self, windows: np.ndarray) -> np.ndarray:
        """Return the answers to normalised windows, float32 (n_windows, n_labels)."""
        size = self.config.batch_size
        answers = [np.empty((0, self.model.n_labels), np.float32)]
        for start in range(0, len(windows), size):
            batch = windows[start : start + size]
            filled = np.resize(batch, (size, *batch.shape[1:]))
            answers.append(self._infer(filled).numpy()[: len(batch)])
        return np.concatenate(answers)


def loss(logits: Any, labels: Any, smoothing: float, gamma: float, weights: Any = None) -> Any:
    """Return the mean focal loss (Lin et al., ICCV 2017) over smoothed targets.

    ``gamma`` 0 is cross-entropy. ``labels`` are indices, shape (n,); ``logits`` (n, n_labels);
    ``weights``, shape (n,), are how much each counts, or None for all alike.
    """
    import tensorflow as tf

    n_labels = logits.shape[-1]
    targets = tf.one_hot(labels, n_labels) * (1 - smoothing) + smoothing / n_labels
    log_probs = tf.nn.log_softmax(logits)
    focus = (1 - tf.exp(log_probs)) ** gamma if gamma else 1.0
    losses = -tf.reduce_sum(targets * focus * log_probs, axis=-1)
    return tf.reduce_mean(losses if weights is None else weights * losses)


@functools.lru_cache(maxsize=1)
def trainer(config: Config, n_rows: int, n_features: int, n_labels: int) -> Trainer:
    """Return this process's trainer of that shape; the next fold gets the same one."""
    return Trainer(config, n_rows, n_features, n_labels)


def recall(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the unweighted average recall (UAR), in [0, 1], over the classes that occur."""
    from sklearn.metrics import recall_score

    occurring = np.unique(labels)
    return float(recall_score(labels, predicted, labels=occurring, average="macro"))


def clip_means(values: np.ndarray, owners: np.ndarray, n_clips: int) -> np.ndarray:
    """Return the mean of the rows of ``values`` that belong to each clip."""
    sums = np.zeros((n_clips, values.shape[1]))
    np.add.at(sums, owners, values)
    return (sums / np.bincount(owners, minlength=n_clips)[:, None]).astype(np.float32)


def run_fold(job: Job) -> Result:
    """Train one fold to its last epoch and answer its test clips."""
    started = time.monotonic()
    _settle(job)
    fold_trainer = trainer(job.config, job.n_rows, job.frontend.n_features, job.n_labels)
    fold_trainer.reset(job.seed, job.train_labels)
    rng = np.random.default_rng(job.seed)
    frontend = measured(job.frontend, job.train, job.train_speakers)
    training = TrainingWindows(
        job.train, job.train_speakers, job.train_labels, frontend, job.n_rows, job.config
    )
    lessons = None
    if job.config.taught:
        taught = [np.asarray(clip[0].taught) for clip in job.train]
        lessons = Lessons(taught, job.train_speakers)
    every = max(1, len(job.train) // N_CHECKED)  # clips come class by class
    checked, labels = job.train[::every], job.train_labels[::every]
    if job.test:
        checked, labels = job.test, job.test_labels
    windows, owners = device_windows(checked, job.n_rows, frontend)

    def clip_probs(windows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return clip_means(softmax(fold_trainer.logits(windows)), owners, len(job.test))

    history: dict[str, list[float]] = {}
    report = _reporter(job.progress)
    first_s, epoch_s = 0.0, []
    probs = np.empty((0, job.n_labels), np.float32)
    for epoch in range(job.epochs):
        stop_if_asked()
        before = time.monotonic()
        drawn, spans_s = training.draw(rng)
        lesson = None if lessons is None else lessons.of(spans_s)
        value, predicted = fold_trainer.epoch(
            drawn, job.train_labels, rng, epoch / job.epochs, lesson
        )
        epoch_s.append(time.monotonic() - before)
        if epoch == 0:
            first_s = time.monotonic() - started
        numbers = {"loss": value, "uar": recall(job.train_labels, predicted)}
        if job.test:
            probs = clip_probs(windows, owners)
            likelihood = probs[np.arange(len(probs)), job.test_labels]
            numbers["test_loss"] = float(-np.log(np.maximum(likelihood, 1e-7)).mean())
            numbers["test_uar"] = recall(job.test_labels, probs.argmax(axis=1))
        for key, number in numbers.items():
            history.setdefault(key, []).append(number)
        report({"fold": job.name, "epoch": epoch + 1, **numbers})

    return Result(
        name=job.name,
        weights=[np.array(weight) for weight in fold_trainer.model.get_weights()],
        frontend=frontend,
        history=history,
        test_probs=probs,
        adapted_probs=(
            clip_probs(*device_windows(job.test, job.n_rows, frontend, job.known))
            if frontend.adapt_s and job.test and job.known
            else None
        ),
        windows=windows,
        owners=owners,
        logits=fold_trainer.logits(windows),
        labels=labels,
        calibration=training.draw(rng)[0][rng.permutation(len(job.train))[:N_CALIBRATION]],
        start_s=first_s - float(np.median(epoch_s)),
        epoch_s=float(np.median(epoch_s)),
    )


def _settle(job: Job) -> None:
    """Make this process a quiet worker with its share of threads."""
    with quiet_native():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    # A process in which TensorFlow has already started keeps the threads that it has.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(job.n_threads)
        tf.config.threading.set_inter_op_parallelism_threads(job.n_threads)
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)


def _reporter(folder: Path) -> Callable[[dict[str, Any]], None]:
    """Return a function that appends a line to this process's file in ``folder``.

    A worker on a machine without that folder reports nothing until its fold has ended.
    """
    if not folder.is_dir():
        return lambda numbers: None
    path = folder / f"{os.getpid()}-{threading.get_ident()}.jsonl"

    def report(numbers: dict[str, Any]) -> None:
        # A bar that stands still is no reason to lose a fold.
        with contextlib.suppress(OSError), path.open("a") as file:
            file.write(json.dumps(numbers) + "\n")

    return report
