"""Every variant of TIM-Net by name; plain data, so that asking for help loads no TensorFlow."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

FUSIONS = ("dynamic", "static", "self", "cross")
SCHEDULES = ("constant", "cosine")

# Filters, taps in time, taps in frequency, stride in time, stride in frequency.
ConvShape = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Config:
    """Everything about the network and its training that a preset names.

    Attributes
    ----------
    n_blocks : int
        Temporal-aware blocks in each stream; block ``j`` has dilation ``2 ** j``.
    n_filters : int
        Channels of every block.
    stems : tuple of tuples of (int, int, int, int, int)
        A TIM-Net for each. The stem is the convolutions over time and frequency that the bands go
        through before its streams hear them: filters, taps in time, taps in frequency, stride in
        time, stride in frequency. One without any in the paper, whose features are cepstra.
        Several learn each on its own, and their logits' mean is the answer.
    beside : int
        Features at the end of a row that are no bands and go past a stem.
    bounded : bool
        Whether nothing exceeds 6, so that int8 keeps it in fine steps (ReLU6: Sandler et al., CVPR
        2018); the streams' entry, in the paper a product alone, is then normalised and clipped to
        -3 to 3.
    head_dropout : float
        Rate of the dropout on the fused vector.
    input_dropout : float
        Rate of the 1-D spatial dropout (whole coefficients) right after the input.
    dropout, dropout_last : float
        Rates of the spatial dropout in the first and the last block, linear in between.
    shuffle : bool
        Whether a third stream hears the frames in a random order: drawn anew for every batch in
        training, one fixed permutation at inference. That permutation depends on the number of
        frames alone, so an exported model is deterministic, and a model with another window
        length gets an unrelated permutation.
    fusion : {"dynamic", "static", "self", "cross"}
        How the pooled outputs of the blocks become one vector; see `train.model.Fusion`.
    n_hidden : int
        Units of a hidden layer before the output; 0 for none.
    focal_gamma : float
        Focusing exponent of the loss; 0 is cross-entropy.
    label_smoothing : float
        Share of a target's weight that is spread over all labels.
    balanced : bool
        Whether every label counts alike in the loss, however many clips it has.
    learning_rate, beta_1, beta_2, batch_size
        Adam's settings, and clips in a batch.
    weight_decay : float
        Share of every kernel that a step takes away, times the learning rate (Loshchilov and
        Hutter, ICLR 2019).
    schedule : {"constant", "cosine"}
        Of the learning rate over the run: "cosine" falls to 0 (Loshchilov and Hutter, ICLR 2017).
    speeds : tuple of float
        At which clips are also played in training, besides their own.
    short : float
        Share of the training windows that hold less than a window, repeated until it is full.
    n_noisy : int
        Rooms with noise in which every speaker is also heard in training; see `train.augment`.
    microphones : float
        Share of the training windows that another microphone hears, a new one each time.
    taught : float
        Weight of the loss in predicting what the teacher makes of a window, beside the loss in
        predicting its label; see `train.teacher`.
    """

    # Cited: the paper's section 3 and its published settings.
    n_blocks: int = 8
    n_filters: int = 39
    stems: tuple[tuple[ConvShape, ...], ...] = ((),)
    beside: int = 0
    bounded: bool = False
    head_dropout: float = 0.0
    input_dropout: float = 0.0
    dropout: float = 0.1
    dropout_last: float = 0.1
    shuffle: bool = False
    fusion: str = "dynamic"
    n_hidden: int = 0
    focal_gamma: float = 0.0
    label_smoothing: float = 0.1
    balanced: bool = False
    learning_rate: float = 1e-3
    beta_1: float = 0.93
    beta_2: float = 0.98
    batch_size: int = 64
    weight_decay: float = 0.0
    schedule: str = "constant"
    speeds: tuple[float, ...] = ()
    short: float = 0.0
    n_noisy: int = 0
    microphones: float = 0.0
    taught: float = 0.0

    def __post_init__(self) -> None:
        if self.n_blocks < 1 or self.n_filters < 1 or self.batch_size < 1 or self.n_hidden < 0:
            raise ValueError("model: n_blocks, n_filters and batch_size must be at least 1")
        # A card holds lists.
        stems = tuple(tuple(tuple(conv) for conv in stem) for stem in self.stems)
        object.__setattr__(self, "stems", stems)
        object.__setattr__(self, "speeds", tuple(self.speeds))
        if not stems or any(len(conv) != 5 or min(conv) < 1 for stem in stems for conv in stem):
            raise ValueError(
                "model: stems must hold, for each network, any number of (filters, taps in time "
                f"and frequency, strides in time and frequency), not {self.stems}"
            )
        if self.beside and not any(stems):
            raise ValueError("model: beside needs a stem to go past")
        rates = (
            "input_dropout",
            "dropout",
            "dropout_last",
            "head_dropout",
            "label_smoothing",
            "short",
            "microphones",
        )
        for name in rates:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model: {name} must be in [0, 1), not {getattr(self, name)}")
        if self.fusion not in FUSIONS:
            raise ValueError(f"model: fusion must be one of {FUSIONS}, not {self.fusion!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"model: schedule must be one of {SCHEDULES}, not {self.schedule!r}")
        if any(not 0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"model: speeds must be in [0.5, 2], not {self.speeds}")

    def dropout_of(self, block: int) -> float:
        """Return the spatial dropout rate of block 0 .. n_blocks - 1."""
        share = block / max(1, self.n_blocks - 1)
        return self.dropout + (self.dropout_last - self.dropout) * share


def rows_per_frame(stem: tuple[ConvShape, ...]) -> int:
    """Return how many rows one frame behind a stem stands for."""
    return math.prod(conv[3] for conv in stem)


def multiply_accumulates(config: Config, n_rows: int, n_features: int, n_labels: int) -> int:
    """Return the multiplications with a weight that one window costs, gates and pooling aside."""
    n_streams = 3 if config.shuffle else 2
    # Behind the dynamic fusion, the first layer sees all blocks of all streams at once.
    n_vectors = n_streams * config.n_blocks if config.fusion == "dynamic" else 1
    head = [n_vectors * config.n_filters, *([config.n_hidden] if config.n_hidden else []), n_labels]
    total = 0
    for stem in config.stems:
        n_frames, width = n_rows, n_features
        if stem:
            width, n_bands = 1, n_features - config.beside
            for n_filters, time_taps, band_taps, time_stride, band_stride in stem:
                n_frames = -(-n_frames // time_stride)
                n_bands = -(-n_bands // band_stride)
                total += n_frames * n_bands * time_taps * band_taps * width * n_filters
                width = n_filters
            width = width * n_bands + config.beside * rows_per_frame(stem)
        stream = width * config.n_filters + config.n_blocks * 2 * 2 * config.n_filters**2
        total += n_streams * n_frames * stream
        total += sum(a * b for a, b in itertools.pairwise(head))
    return total


# Cited: the improvements. Assumed: their rates (input 0.1, growing from 0.1 to 0.3) and gamma 2,
# which is the value of Lin et al. (ICCV 2017), who introduced the focal loss.
_TD: dict[str, Any] = {"input_dropout": 0.1, "dropout": 0.1, "dropout_last": 0.3}
_CL: dict[str, Any] = {"n_hidden": 128, "focal_gamma": 2.0}

_LIVE = Config(
    stems=(((20, 4, 5, 4, 2), (28, 1, 3, 1, 2), (32, 1, 3, 1, 2)), ()),
    beside=2,
    bounded=True,
    n_filters=36,
    n_blocks=4,
    head_dropout=0.3,
    dropout=0.2,
    dropout_last=0.2,
    balanced=True,
    weight_decay=0.2,
    learning_rate=8e-3,
    batch_size=16,
    schedule="cosine",
    speeds=(0.85, 0.9, 0.95, 1.05, 1.1, 1.15),
    short=0.3,
    n_noisy=8,
    microphones=0.5,
    taught=1.0,
)

PRESETS: dict[str, Config] = {
    "timnet": Config(),
    "timnet-td": Config(**_TD),
    "timnet-td-sa": Config(**_TD, fusion="static"),
    "timnet-td-sa-cl": Config(**_TD, fusion="static", **_CL),
    "timnet-td-sh": Config(**_TD, shuffle=True),
    "timnet-td-cl": Config(**_TD, **_CL),
    "timnet-all": Config(**_TD, shuffle=True, fusion="static", **_CL),
    "timnet-td-self": Config(**_TD, fusion="self"),
    "timnet-live": _LIVE,
    "timnet-td-cross": Config(**_TD, fusion="cross"),
}
