"""Where samples come from: files, PCM on a pipe; any rate and channel count, as mono blocks.

Every source ends in `Resampler`, so a live stream and a file give the same samples, and training
reads its clips through `read_file` too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from edge.errors import AudioError

BLOCK_S = 0.1  # Assumed: short enough to feel live, long enough to cost nothing.

PCM_FORMATS = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}


@dataclass(frozen=True)
class Lost:
    """In a source, in place of a block: ``n_samples`` (at the blocks' rate) are missing here."""

    n_samples: int
    reason: str


@dataclass(frozen=True)
class Notice:
    """In a source, in place of a block: the device's ``state``, and a line about it for people."""

    state: str
    message: str


Source = Iterable[np.ndarray | Lost | Notice]


class Resampler:
    """Mono samples at one rate as mono samples at another, block by block.

    Parameters
    ----------
    from_hz, to_hz : int
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        if from_hz < 1 or to_hz < 1:
            raise ValueError(f"rates must be at least 1 Hz, not {from_hz} and {to_hz}")
        # "HQ" is also what librosa.load resamples with.
        self._stream = (
            None
            if from_hz == to_hz
            else soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")
        )

    def push(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Take samples (n,); return those at the new rate that are ready, all if ``last``."""
        if self._stream is None:
            return block
        return self._stream.resample_chunk(np.ascontiguousarray(block, np.float32), last=last)


def resample(blocks: Iterable[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    """Yield blocks (n,) or (n, n_channels) at ``from_hz`` as mono blocks at ``to_hz``."""
    resampler = Resampler(from_hz, to_hz)
    for block in blocks:
        yield resampler.push(block if block.ndim == 1 else block.mean(axis=1))
    yield resampler.push(np.zeros(0, np.float32), last=True)


def file_blocks(path: Path, sample_rate_hz: int, block_s: float = BLOCK_S) -> Iterator[np.ndarray]:
    """Yield an audio file as mono float32 blocks at ``sample_rate_hz``.

    Raises
    ------
    AudioError
        If the file is missing, not audio, damaged, or holds NaN or infinity.
    """
    if not path.is_file():
        raise AudioError(f"{path}: no such audio file")
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:  # a name need not be text
            n = max(1, round(block_s * file.samplerate))
            blocks = file.blocks(blocksize=n, dtype="float32", always_2d=True)
            yield from resample(finite(blocks, path), file.samplerate, sample_rate_hz)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: cannot be read as audio ({error.error_string})") from error


def read_file(path: Path, sample_rate_hz: int) -> np.ndarray:
    """Return a whole audio file, float32 (n_samples,), exactly as `file_blocks` streams it."""
    return np.concatenate(list(file_blocks(path, sample_rate_hz)))


def pcm_blocks(
    stream: BinaryIO,
    rate_hz: int,
    n_channels: int,
    pcm_format: str,
    sample_rate_hz: int,
    block_s: float = BLOCK_S,
) -> Iterator[np.ndarray]:
    """Yield raw interleaved PCM from ``stream`` as mono float32 blocks at ``sample_rate_hz``.

    ``pcm_format`` is a key of `PCM_FORMATS`; integers are scaled to [-1, 1]. An incomplete frame
    at the very end (a writer that was cut off) is no sample and is left out.
    """
    dtype = np.dtype(PCM_FORMATS[pcm_format])
    full_scale = 1.0 if dtype.kind == "f" else 2.0 ** (8 * dtype.itemsize - 1)
    frame = dtype.itemsize * n_channels
    size = frame * max(1, round(block_s * rate_hz))

    def blocks() -> Iterator[np.ndarray]:
        while pcm := stream.read(size):
            values = np.frombuffer(pcm[: len(pcm) // frame * frame], dtype)
            yield (values.reshape(-1, n_channels) / full_scale).astype(np.float32)

    yield from resample(finite(blocks(), "standard input"), rate_hz, sample_rate_hz)


def finite(blocks: Iterable[np.ndarray], source: object) -> Iterator[np.ndarray]:
    """Yield ``blocks``; AudioError, which names the source, at a sample that is no number."""
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError(f"{source}: holds NaN or infinity; expected samples in [-1, 1]")
        yield block
