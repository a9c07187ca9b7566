"""What a network says too readily of one voice, learnt from its own answers and taken back.

Of some voices it says more often that they are sad than they are. The answers of a voice are taken
for those that everybody's emotions get, plus a leaning that is the voice's own: a mixture with one
part for each label, all moved by the same shift. Which part an answer belongs to and how far all of
them are moved is found together (expectation-maximization: Dempster et al., 1977), an utterance at
a time (Cappé and Moulines, 2009), so that somebody who is always calm is not taken for somebody of
whom the network always says so. No label is needed, and nothing is kept but sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.model import softmax
from edge.speaker import MEMORY_S, Statistics

# Chosen on EMO-DB's eight speakers of the shipped model, each a stranger to the network.
CENTRE = 3.0  # how far above the others a label's logit lies where it is right, about
STRANGER_S = 30.0  # seconds of speech that no leaning counts like
SHARE_S = 6.0  # seconds of speech that each label is assumed to have had before any
LEAST_PROBABILITY = 1e-4  # Assumed: of a label, so that no answer moves a leaning without bounds.


@dataclass(frozen=True)
class Leaning:
    """What has been gathered of one voice.

    Attributes
    ----------
    heard_s : float
        Seconds of speech that it stands for.
    excess : float64, shape (n_labels,)
        By how much the logits lay above what the emotions explain, summed over those seconds.
    shares : float64, shape (n_labels,)
        Seconds of each label.
    """

    heard_s: float
    excess: np.ndarray
    shares: np.ndarray

    @classmethod
    def none(cls, n_labels: int) -> Leaning:
        """Return that of a voice that has not been heard yet."""
        return cls(0.0, np.zeros(n_labels), np.zeros(n_labels))

    @property
    def shift(self) -> np.ndarray:
        """What this voice adds to the logits, float64 (n_labels,)."""
        return self.excess / (self.heard_s + STRANGER_S)

    def after(self, probs: np.ndarray, seconds: float, temperature: float = 1.0) -> Leaning:
        """Return what is known after an utterance.

        Parameters
        ----------
        probs : shape (n_labels,)
            What the network said of it, uncorrected.
        seconds : float
            Of speech in it.
        temperature : float
            What the logits were divided by.
        """
        logits = temperature * np.log(np.maximum(probs, LEAST_PROBABILITY))
        centred = logits - logits.mean()
        shares = (self.shares + SHARE_S) / np.sum(self.shares + SHARE_S)
        part = softmax(centred - self.shift + np.log(shares))
        excess = centred - CENTRE * (part - 1 / len(part))
        heard_s = self.heard_s + seconds
        fading = min(1.0, MEMORY_S / heard_s) if heard_s else 1.0
        return Leaning(
            heard_s * fading,
            (self.excess + seconds * excess) * fading,
            (self.shares + seconds * part) * fading,
        )


@dataclass(frozen=True)
class Voice:
    """All that a device keeps of a speaker.

    Attributes
    ----------
    statistics : Statistics
        Of the features of their speech, whatever the model.
    leaning : Leaning or None
        Of one model's answers to it; None if nothing is known of those.
    """

    statistics: Statistics
    leaning: Leaning | None = None
