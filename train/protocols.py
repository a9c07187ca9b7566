"""Who is trained on and who is tested on.

A run chooses nothing on its test clips: no epoch, no threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import KFold

from train.corpora import Corpus, CorpusError, require_speakers

# Cited: the seeds of the published folds; other corpora take EMODB's.
SD10_SEEDS = {"emodb": 46, "savee": 44}


@dataclass(frozen=True)
class Fold:
    """One split: indices into ``corpus.clips``, and the name of its folder in the run."""

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]


def sd10(corpus: Corpus) -> list[Fold]:
    """Return the published ten random folds; every test speaker is also trained on."""
    splitter = KFold(10, shuffle=True, random_state=SD10_SEEDS.get(corpus.name, 46))
    if len(corpus.clips) < 10:
        raise CorpusError(f"sd10 needs at least 10 clips; {corpus.name} has {len(corpus.clips)}")
    return [
        Fold(f"fold-{number:02d}", tuple(train.tolist()), tuple(test.tolist()))
        for number, (train, test) in enumerate(splitter.split(np.arange(len(corpus.clips))), 1)
    ]


def loso(corpus: Corpus) -> list[Fold]:
    """Return a fold for each speaker, who is tested on and never trained on."""
    if "" in corpus.speakers or len(corpus.speakers) < 2:
        raise CorpusError(
            f"{corpus.name}: leaving speakers out needs two or more named speakers, "
            f"found {list(corpus.speakers)}"
        )
    return [_without(corpus, f"speaker-{speaker}", (speaker,)) for speaker in corpus.speakers]


def holdout(corpus: Corpus, speakers: tuple[str, ...]) -> list[Fold]:
    """Return the one fold that trains on all but ``speakers`` (none: on everybody)."""
    require_speakers(corpus, speakers)
    if set(speakers) == set(corpus.speakers):
        raise CorpusError(f"holding out all speakers of {corpus.name} leaves nobody to train on")
    return [_without(corpus, "model", speakers)]


def _without(corpus: Corpus, name: str, speakers: tuple[str, ...]) -> Fold:
    test = [i for i, clip in enumerate(corpus.clips) if clip.speaker in speakers]
    train = [i for i, clip in enumerate(corpus.clips) if clip.speaker not in speakers]
    return Fold(name, tuple(train), tuple(test))
