"""Every variant of TIM-Net by name; plain data, so that asking for help loads no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FUSIONS = ("dynamic", "static", "self", "cross")


@dataclass(frozen=True)
class Config:
    """Everything about the network and its training that a preset names.

    Attributes
    ----------
    n_blocks : int
        Temporal-aware blocks in each stream; block ``j`` has dilation ``2 ** j``.
    n_filters : int
        Channels of every block.
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
    learning_rate, beta_1, beta_2, batch_size
        Adam's settings, and clips in a batch.
    """

    # Cited: the paper's section 3 and its published settings.
    n_blocks: int = 8
    n_filters: int = 39
    input_dropout: float = 0.0
    dropout: float = 0.1
    dropout_last: float = 0.1
    shuffle: bool = False
    fusion: str = "dynamic"
    n_hidden: int = 0
    focal_gamma: float = 0.0
    label_smoothing: float = 0.1
    learning_rate: float = 1e-3
    beta_1: float = 0.93
    beta_2: float = 0.98
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.n_blocks < 1 or self.n_filters < 1 or self.batch_size < 1 or self.n_hidden < 0:
            raise ValueError("model: n_blocks, n_filters and batch_size must be at least 1")
        for name in ("input_dropout", "dropout", "dropout_last", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model: {name} must be in [0, 1), not {getattr(self, name)}")
        if self.fusion not in FUSIONS:
            raise ValueError(f"model: fusion must be one of {FUSIONS}, not {self.fusion!r}")

    def dropout_of(self, block: int) -> float:
        """Return the spatial dropout rate of block 0 .. n_blocks - 1."""
        share = block / max(1, self.n_blocks - 1)
        return self.dropout + (self.dropout_last - self.dropout) * share


# Cited: the improvements. Assumed: their rates (input 0.1, growing from 0.1 to 0.3) and gamma 2,
# which is the value of Lin et al. (ICCV 2017), who introduced the focal loss.
_TD: dict[str, Any] = {"input_dropout": 0.1, "dropout": 0.1, "dropout_last": 0.3}
_CL: dict[str, Any] = {"n_hidden": 128, "focal_gamma": 2.0}

PRESETS: dict[str, Config] = {
    "timnet": Config(),
    "timnet-td": Config(**_TD),
    "timnet-td-sa": Config(**_TD, fusion="static"),
    "timnet-td-sa-cl": Config(**_TD, fusion="static", **_CL),
    "timnet-td-sh": Config(**_TD, shuffle=True),
    "timnet-td-cl": Config(**_TD, **_CL),
    "timnet-all": Config(**_TD, shuffle=True, fusion="static", **_CL),
    "timnet-td-self": Config(**_TD, fusion="self"),
    "timnet-td-cross": Config(**_TD, fusion="cross"),
}
