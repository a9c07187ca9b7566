"""What a network says too readily of one voice, learnt from its own answers and taken back.

Of some voices it says more often that they are sad than they are. The answers of a voice are taken
for those that everybody's emotions get, plus a leaning that is the voice's own: a mixture with one
part for each label, all moved by the same shift, and each by something that is its own. Which part
an answer belongs to and how far all of them are moved is found together (expectation-maximization:
Dempster et al., 1977), an utterance at a time (Cappé and Moulines, 2009). However often one emotion
was heard, it tells of the shift no more than one emotion can: somebody who is always calm is not
taken for somebody of whom the network always says so. No label is needed, and nothing is kept but
sums.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from edge.model import softmax
from edge.speaker import MEMORY_S, Statistics

# Chosen on EMO-DB's eight speakers of the shipped model, each a stranger to the network.
CENTRE = 3.0  # how far above the others a label's logit lies where it is right, about
FEW_S = 20.0  # seconds of a label that tell half of what more can tell
NO_SHIFT = 1.0  # labels, heard for long, that count like the assumption that nothing is shifted
SHARE_S = 6.0  # seconds of speech that each label is assumed to have had before any
LEAST_PROBABILITY = 1e-4  # Assumed: of a label, so that no answer moves a leaning without bounds.


@dataclass(frozen=True)
class Leaning:
    """What has been gathered of one voice.

    Attributes
    ----------
    seconds : float64, shape (n_labels,)
        Of speech that tells of each label. What is a little of many tells of none: a share of a
        half counts a quarter.
    excess : float64, shape (n_labels, n_labels)
        In a row by how much the logits lay above what its label explains, summed over its seconds.
    """

    seconds: np.ndarray
    excess: np.ndarray

    @classmethod
    def none(cls, n_labels: int) -> Leaning:
        """Return that of a voice that has not been heard yet."""
        return cls(np.zeros(n_labels), np.zeros((n_labels, n_labels)))

    @functools.cached_property
    def shift(self) -> np.ndarray:
        """What this voice adds to the logits, float64 (n_labels,)."""
        # What each label tells, excess / seconds, counts like seconds / (seconds + FEW_S) labels.
        counts = self.seconds / (self.seconds + FEW_S)
        told = self.excess / (self.seconds + FEW_S)[:, None]
        return told.sum(axis=0) / (NO_SHIFT + counts.sum())

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
        logits = logits_of(probs, temperature)
        shares = softmax(logits - self.shift + np.log(self.seconds + SHARE_S))
        explained = CENTRE * (np.eye(len(shares)) - 1 / len(shares))
        told = seconds * shares**2
        heard, excess = self.seconds + told, self.excess + told[:, None] * (logits - explained)
        fading = MEMORY_S / max(MEMORY_S, heard.sum())
        return Leaning(heard * fading, excess * fading)


def logits_of(probs: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return logits, of mean 0, that probabilities (..., n_labels) may have come from."""
    logits = temperature * np.log(np.maximum(probs, LEAST_PROBABILITY))
    return np.asarray(logits - logits.mean(axis=-1, keepdims=True))


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
