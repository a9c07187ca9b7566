"""Corpora of emotional speech as lists of clips: path, label, speaker.

Each loader knows one documented layout and is strict about it: a wrong folder, a file name that
does not follow the corpus's scheme or a class without a clip is an error that names it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import natsort
import soundfile

from edge.errors import SerError

# Cited: what libsndfile reads, of the endings that corpora use.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3")


class CorpusError(SerError):
    """A corpus that is not where, or not what, it should be."""


@dataclass(frozen=True)
class Clip:
    """One recording.

    Attributes
    ----------
    path : Path
    label : str
        The emotion, one of the corpus's labels.
    speaker : str
        Whose voice it is; "" if nobody knows.
    """

    path: Path
    label: str
    speaker: str


@dataclass(frozen=True)
class Corpus:
    """Clips in a fixed order: class by class, naturally sorted within a class.

    Attributes
    ----------
    name : str
    labels : tuple of str
        In the order of the model's outputs.
    clips : tuple of Clip
    licence : str
        One line that goes into the card of every model trained on it.
    """

    name: str
    labels: tuple[str, ...]
    clips: tuple[Clip, ...]
    licence: str

    @property
    def speakers(self) -> tuple[str, ...]:
        """All speakers, naturally sorted."""
        return tuple(natsort.natsorted({clip.speaker for clip in self.clips}))


def load(name: str, root: Path) -> Corpus:
    """Read the corpus ``name`` (a key of `LOADERS`) from the folder (or CSV file) ``root``."""
    if name not in LOADERS:
        raise CorpusError(f"unknown corpus {name!r}: expected one of {', '.join(LOADERS)}")
    if not (root.exists() if name == "csv" else root.is_dir()):
        raise CorpusError(f"{root}: no such folder; expected {name} there, {LAYOUTS[name]}")
    labels, licence, clips = LOADERS[name](root)
    for label in labels:
        if not any(clip.label == label for clip in clips):
            raise CorpusError(f"{root}: no clip of the class {label!r} of {name}; is it complete?")
    ordered = sorted(clips, key=lambda clip: labels.index(clip.label))
    return Corpus(name, labels, tuple(ordered), licence)


_Loaded = tuple[tuple[str, ...], str, list[Clip]]


def _audio_files(folder: Path, name: str, pattern: str = "*") -> Iterator[Path]:
    """Yield audio files in natural order of their paths; CorpusError if there are none."""
    found = [p for p in folder.glob(pattern) if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file()]
    if not found:
        raise CorpusError(f"{folder}: no audio files; expected {name}, {LAYOUTS[name]}")
    yield from natsort.natsorted(found, key=str)


def _matched(paths: Iterable[Path], pattern: str, example: str) -> Iterator[tuple[Path, re.Match]]:
    compiled = re.compile(pattern)
    for path in paths:
        match = compiled.fullmatch(path.stem)
        if match is None:
            raise CorpusError(f"{path}: unknown file name; expected one like {example}")
        yield path, match


def _emodb(root: Path) -> _Loaded:
    emotions = dict(
        W="anger", L="boredom", E="disgust", A="fear", F="happiness", N="neutral", T="sadness"
    )
    folder = root / "wav" if (root / "wav").is_dir() else root
    clips = [
        Clip(path, emotions[m["emotion"]], m["speaker"])
        for path, m in _matched(
            _audio_files(folder, "emodb"),
            r"(?P<speaker>\d\d)[ab]\d\d(?P<emotion>[WLEAFNT])[a-z]",
            "03a01Fa.wav",
        )
    ]
    return tuple(emotions.values()), "EMO-DB (Burkhardt et al., 2005): CC0 1.0", clips


def _savee(root: Path) -> _Loaded:
    emotions = dict(
        a="anger", d="disgust", f="fear", h="happiness", n="neutral", sa="sadness", su="surprise"
    )
    official = root / "AudioData" if (root / "AudioData").is_dir() else root
    if any((official / speaker).is_dir() for speaker in ("DC", "JE", "JK", "KL")):
        files = list(_audio_files(official, "savee", "[A-Z][A-Z]/*"))
    else:
        files = list(_audio_files(official, "savee"))
    clips = []
    scheme = r"(?:(?P<speaker>DC|JE|JK|KL)_)?(?P<emotion>sa|su|[adfhn])\d\d"
    for path, m in _matched(files, scheme, "DC/a01.wav or DC_a01.flac"):
        speaker = m["speaker"] or path.parent.name
        if speaker not in ("DC", "JE", "JK", "KL"):
            raise CorpusError(f"{path}: unknown speaker {speaker!r}; expected DC, JE, JK or KL")
        clips.append(Clip(path, emotions[m["emotion"]], speaker))
    licence = (
        "SAVEE (Haq and Jackson, 2009): research only, by registration; weights not for sharing"
    )
    return tuple(emotions.values()), licence, clips


def _ravdess(root: Path) -> _Loaded:
    emotions = {
        "01": "neutral", "02": "calm", "03": "happiness", "04": "sadness",
        "05": "anger", "06": "fear", "07": "disgust", "08": "surprise",
    }  # fmt: skip
    clips = [
        Clip(path, emotions[m["emotion"]], m["actor"])
        for path, m in _matched(
            _audio_files(root, "ravdess", "Actor_*/*"),
            r"03-01-(?P<emotion>0[1-8])-0[12]-0[12]-0[12]-(?P<actor>\d\d)",
            "03-01-05-01-02-01-12.wav (audio only, speech)",
        )
    ]
    return tuple(emotions.values()), "RAVDESS (Livingstone and Russo, 2018): CC BY-NC-SA 4.0", clips


def _cremad(root: Path) -> _Loaded:
    emotions = dict(
        ANG="anger", DIS="disgust", FEA="fear", HAP="happiness", NEU="neutral", SAD="sadness"
    )
    folder = root / "AudioWAV" if (root / "AudioWAV").is_dir() else root
    clips = [
        Clip(path, emotions[m["emotion"]], m["speaker"])
        for path, m in _matched(
            _audio_files(folder, "cremad"),
            r"(?P<speaker>\d{4})_[A-Z]{3}_(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX|X)",
            "1001_DFA_ANG_XX.wav",
        )
    ]
    return tuple(emotions.values()), "CREMA-D (Cao et al., 2014): Open Database License 1.0", clips


# Cited: the four classes in common use; excitement counts as happiness, other labels are left out.
_IEMOCAP = {
    "ang": "anger",
    "hap": "happiness",
    "exc": "happiness",
    "neu": "neutral",
    "sad": "sadness",
}
_IEMOCAP_LINE = re.compile(
    r"\[[\d.]+ - [\d.]+\]\t(?P<turn>(?P<dialog>Ses0\d[FM]_\w+)_(?P<speaker>[FM])\d+)"
    r"\t(?P<emotion>[a-z]{3})\t"
)


def _iemocap(root: Path) -> _Loaded:
    evaluations = natsort.natsorted(root.glob("Session*/dialog/EmoEvaluation/*.txt"), key=str)
    if not evaluations:
        raise CorpusError(f"{root}: no evaluation files; expected iemocap, {LAYOUTS['iemocap']}")
    clips = []
    for evaluation in evaluations:
        sentences = evaluation.parents[2] / "sentences" / "wav"
        for m in _IEMOCAP_LINE.finditer(evaluation.read_text(encoding="latin-1")):
            if m["emotion"] not in _IEMOCAP:
                continue
            path = sentences / m["dialog"] / f"{m['turn']}.wav"
            if not path.is_file():
                raise CorpusError(f"{path}: missing, but {evaluation.name} names it")
            # "Ses01F_..." names the one who wears the markers; both speak in every dialog.
            speaker = f"{m['turn'][:5]}{m['speaker']}"
            clips.append(Clip(path, _IEMOCAP[m["emotion"]], speaker))
    labels = tuple(dict.fromkeys(_IEMOCAP.values()))
    return labels, "IEMOCAP (Busso et al., 2008): research only, by agreement", clips


_OWN_LICENCE = "own recordings: the owner's terms"


def _folders(root: Path) -> _Loaded:
    """Read a folder per emotion: EMOTION/SPEAKER/clip.wav, or EMOTION/clip.wav."""
    folders = natsort.natsorted((p for p in root.iterdir() if p.is_dir()), key=str)
    if len(folders) < 2:
        raise CorpusError(f"{root}: expected two or more folders, {LAYOUTS['folders']}")
    clips = []
    for folder in folders:
        for path in _audio_files(folder, "folders", "**/*"):
            below = path.relative_to(folder).parts
            clips.append(Clip(path, folder.name, below[0] if len(below) > 1 else ""))
    return tuple(folder.name for folder in folders), _OWN_LICENCE, clips


def _table(path: Path) -> _Loaded:
    """Read a CSV file with the columns path, label and speaker; paths are relative to it."""
    if not path.is_file():
        raise CorpusError(f"{path}: expected a file, {LAYOUTS['csv']}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: expected UTF-8 ({error}); save it so") from error
    reader = csv.DictReader(io.StringIO(text))
    if missing := {"path", "label", "speaker"} - set(reader.fieldnames or ()):
        raise CorpusError(f"{path}: no column {', '.join(sorted(missing))}; {LAYOUTS['csv']}")
    clips = []
    for row in reader:
        values = [(row[name] or "").strip() for name in ("path", "label", "speaker")]
        clip = Clip(path.parent / values[0], values[1], values[2])
        if not values[0] or not clip.label:
            raise CorpusError(f"{path}, line {reader.line_num}: path or label is empty")
        if not clip.path.is_file():
            raise CorpusError(f"{path}, line {reader.line_num}: no such file {clip.path}")
        clips.append(clip)
    labels = tuple(sorted({clip.label for clip in clips}))
    if len(labels) < 2:
        raise CorpusError(f"{path}: expected clips of two or more labels, found {len(labels)}")
    return labels, _OWN_LICENCE, natsort.natsorted(clips, key=lambda clip: str(clip.path))


LOADERS: dict[str, Callable[[Path], _Loaded]] = {
    "emodb": _emodb,
    "savee": _savee,
    "iemocap": _iemocap,
    "ravdess": _ravdess,
    "cremad": _cremad,
    "folders": _folders,
    "csv": _table,
}
LAYOUTS = {
    "emodb": "wav/03a01Fa.wav and so on",
    "savee": "AudioData/DC/a01.wav and so on, or DC_a01.flac in one folder",
    "iemocap": "Session1/dialog/EmoEvaluation/*.txt and Session1/sentences/wav/*/*.wav",
    "ravdess": "Actor_01/03-01-01-01-01-01-01.wav and so on",
    "cremad": "AudioWAV/1001_DFA_ANG_XX.wav and so on",
    "folders": "EMOTION/SPEAKER/clip.wav or EMOTION/clip.wav",
    "csv": "a CSV file with the columns path, label and speaker",
}


def check_readable(corpus: Corpus) -> None:
    """Open every clip's header; CorpusError names the first one that cannot be read."""
    for clip in corpus.clips:
        if not duration_s(clip.path):
            raise CorpusError(f"{clip.path}: holds no sample; take it out of {corpus.name}")


def duration_s(path: Path) -> float:
    """Return how long a clip is; CorpusError if it cannot be read."""
    try:
        return float(soundfile.info(os.fsencode(path)).duration)
    except (soundfile.LibsndfileError, OSError) as error:
        raise CorpusError(f"{path}: cannot be read as audio ({error})") from error


def without(corpus: Corpus, speakers: tuple[str, ...]) -> Corpus:
    """Return ``corpus`` less all clips of ``speakers``."""
    require_speakers(corpus, speakers)
    clips = tuple(clip for clip in corpus.clips if clip.speaker not in speakers)
    if not clips:
        raise CorpusError(f"nothing of {corpus.name} is left without {', '.join(speakers)}")
    return dataclasses.replace(corpus, clips=clips)


def require_speakers(corpus: Corpus, speakers: tuple[str, ...]) -> None:
    """Raise CorpusError if one of ``speakers`` does not speak in ``corpus``."""
    if unknown := set(speakers) - set(corpus.speakers):
        raise CorpusError(
            f"{corpus.name} has no speaker {', '.join(sorted(unknown))}; "
            f"expected some of {', '.join(corpus.speakers)}"
        )
