"""One utterance: chunks of samples in, windows of feature rows out, each row computed once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from edge.card import Card
from edge.frontend import FeatureStream
from edge.gate import CHUNK_SAMPLES


@dataclass(frozen=True)
class Window:
    """What the model is asked about.

    Attributes
    ----------
    rows : float32, shape (n_rows, n_features)
        As the front end gives them, not normalised. What is shorter than a window is repeated
        until it fills one: of silence in its place the model hears the length, and not the voice
        (``python -m edge study``).
    speech : bool, shape (n_rows,)
        Whether the gate heard speech there.
    new_speech : float32, shape (k, n_features)
        Rows of speech that no window before it held.
    start, end : int
        Samples since the utterance began.
    full : bool
        Whether nothing had to be repeated.
    """

    rows: np.ndarray
    speech: np.ndarray
    new_speech: np.ndarray
    start: int
    end: int
    full: bool


class Windows:
    """The windows of one utterance after the other; `reset` before each.

    Parameters
    ----------
    card : Card
        Says how many rows a window has, and how rows are made.
    first_rows : int
        Rows before the first window, at most a window's.
    hop_rows : int
        Rows from one window to the next. The first full window is never skipped.

    Attributes
    ----------
    n_samples : int
        Samples fed since the last reset.
    n_full : int
        Full windows since the last reset.
    """

    def __init__(self, card: Card, first_rows: int, hop_rows: int) -> None:
        self.features = FeatureStream(card.frontend)
        self._frontend, self._window_rows = card.frontend, card.n_rows
        self._first_rows, self._hop_rows = min(first_rows, card.n_rows), hop_rows
        self.reset()

    def reset(self) -> None:
        """Forget the utterance."""
        self.features.reset()
        self.n_samples = self.n_full = 0
        self._n_rows = 0
        self._due_rows, self._last_rows = self._first_rows, 0
        self._chunks: list[np.ndarray] = []
        self._rows = np.zeros((0, self._frontend.n_features), np.float32)
        self._speech = np.zeros(0, bool)  # of the rows
        self._new_speech = [self._rows]  # since the last window
        self._flags: deque[bool] = deque()  # of the chunks from the next row's on
        self._flags_from = 0

    def push(self, chunk: np.ndarray, speech: bool) -> list[Window]:
        """Take a chunk, and whether it is speech; return the windows that came due."""
        self._chunks.append(chunk)
        self._flags.append(speech)
        self.n_samples += len(chunk)
        # Many rows at once cost less than one by one.
        if self._frontend.n_rows(self.n_samples) < self._due_rows:
            return []
        windows = []
        rows = self._pending_rows()
        while len(rows):
            taken, rows = np.split(rows, [min(self._due_rows - self._n_rows, len(rows))])
            self._keep(taken)
            if self._n_rows == self._due_rows:
                windows.append(self._window())
                due = self._due_rows + self._hop_rows
                full = self._window_rows
                self._due_rows = full if self._due_rows < full < due else due
        return windows

    def finish(self) -> list[Window]:
        """Return the window that ends with the utterance, unless the last one did."""
        if self._chunks:
            if not self._n_rows and self.n_samples < self._frontend.n_fft:
                self._chunks.append(np.zeros(self._frontend.n_fft - self.n_samples, np.float32))
            self._keep(self._pending_rows())
        due = not self.n_full or self._n_rows > self._last_rows
        return [self._window()] if due else []

    def _pending_rows(self) -> np.ndarray:
        rows = self.features.push(np.concatenate(self._chunks))
        self._chunks = []
        return rows

    def _keep(self, rows: np.ndarray) -> None:
        speech = np.zeros(len(rows), bool)
        for n, row in enumerate(range(self._n_rows, self._n_rows + len(rows))):
            chunk = self._frontend.middle(row) // CHUNK_SAMPLES
            while self._flags_from < chunk and len(self._flags) > 1:
                self._flags.popleft()
                self._flags_from += 1
            speech[n] = self._flags[0]
        self._n_rows += len(rows)
        self._new_speech.append(rows[speech])
        self._rows = np.concatenate([self._rows, rows])[-self._window_rows :]
        self._speech = np.concatenate([self._speech, speech])[-self._window_rows :]

    def _window(self) -> Window:
        rows, speech = self._rows, self._speech
        end = self._frontend.n_samples(self._n_rows)
        full = len(rows) == self._window_rows
        if full:
            self.n_full += 1
        else:
            rows = np.resize(rows, (self._window_rows, rows.shape[1]))
            speech = np.resize(speech, self._window_rows)
        start = end - self._frontend.n_samples(self._window_rows) if full else 0
        self._last_rows = self._n_rows
        new_speech = np.concatenate(self._new_speech)
        self._new_speech = [rows[:0]]
        return Window(rows, speech, new_speech, start, min(end, self.n_samples), full)
