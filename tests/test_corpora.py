import os
import re

import numpy as np
import pytest
import soundfile
from sklearn.model_selection import KFold

from tests.conftest import write_tone
from train import corpora, protocols
from train.corpora import CorpusError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_emodb_is_complete(emodb):
    corpus = corpora.load("emodb", emodb)
    counts = {label: sum(c.label == label for c in corpus.clips) for label in corpus.labels}
    assert counts == {
        "anger": 127, "boredom": 81, "disgust": 46, "fear": 69,
        "happiness": 71, "neutral": 79, "sadness": 62,
    }  # fmt: skip
    assert corpus.speakers == ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
    corpora.check_readable(corpus)


def test_savee_is_complete(savee):
    corpus = corpora.load("savee", savee)
    counts = [sum(c.label == label for c in corpus.clips) for label in corpus.labels]
    assert counts == [60, 60, 60, 60, 120, 60, 60]
    assert corpus.speakers == ("DC", "JE", "JK", "KL")


def test_emodb_names_are_read(tmp_path):
    touch(tmp_path, *(f"wav/16b10{e}b.wav" for e in "WLEAFNT"), "wav/03a01Fa.wav")
    clips = corpora.load("emodb", tmp_path).clips
    assert [(c.label, c.speaker) for c in clips if c.path.name == "03a01Fa.wav"] == [
        ("happiness", "03")
    ]
    # Class by class, whatever the files' own order.
    assert [c.label for c in clips][:2] == ["anger", "boredom"]


SAVEE = ("a01", "d01", "f01", "h01", "n01", "sa01", "su01")


@pytest.mark.parametrize("layout", ["AudioData/{s}/{t}.wav", "{s}/{t}.wav", "{s}_{t}.flac"])
def test_savee_layouts_are_read_alike(tmp_path, layout):
    for speaker in ("KL", "DC"):
        touch(tmp_path, *(layout.format(s=speaker, t=text) for text in SAVEE))
    clips = corpora.load("savee", tmp_path).clips
    assert [(c.label, c.speaker) for c in clips[-4:]] == [
        ("sadness", "DC"), ("sadness", "KL"), ("surprise", "DC"), ("surprise", "KL"),
    ]  # fmt: skip


def test_ravdess_names_are_read(tmp_path):
    names = [
        f"Actor_{a:02d}/03-01-{e:02d}-01-02-01-{a:02d}.wav" for a in (1, 2) for e in range(1, 9)
    ]
    touch(tmp_path, *names)
    corpus = corpora.load("ravdess", tmp_path)
    assert len(corpus.labels) == 8
    assert (corpus.clips[0].label, corpus.clips[0].speaker) == ("neutral", "01")
    assert corpus.clips[-1].label == "surprise"


def test_cremad_names_are_read(tmp_path):
    emotions = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    touch(
        tmp_path,
        *(f"AudioWAV/1001_DFA_{e}_XX.wav" for e in emotions),
        "AudioWAV/1076_MTI_SAD_X.wav",
    )
    corpus = corpora.load("cremad", tmp_path)
    assert [(c.label, c.speaker) for c in corpus.clips[-2:]] == [
        ("sadness", "1001"), ("sadness", "1076"),
    ]  # fmt: skip


def iemocap(root, *lines, wavs=()):
    path = root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    path.parent.mkdir(parents=True)
    path.write_text("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n" + "\n".join(lines))
    touch(root, *(f"Session1/sentences/wav/Ses01F_impro01/{w}.wav" for w in wavs))


def line(turn, emotion):
    return f"[6.2901 - 8.2357]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]"


def test_iemocap_takes_four_classes(tmp_path):
    turns = [f"Ses01F_impro01_{who}00{i}" for who in "FM" for i in range(3)]
    emotions = ["ang", "hap", "neu", "exc", "sad", "fru"]
    iemocap(tmp_path, *map(line, turns, emotions), wavs=turns)
    corpus = corpora.load("iemocap", tmp_path)
    assert corpus.labels == ("anger", "happiness", "neutral", "sadness")
    assert [(c.label, c.speaker) for c in corpus.clips] == [
        ("anger", "Ses01F"), ("happiness", "Ses01F"), ("happiness", "Ses01M"),
        ("neutral", "Ses01F"), ("sadness", "Ses01M"),
    ]  # fmt: skip


def test_iemocap_names_a_missing_recording(tmp_path):
    iemocap(tmp_path, line("Ses01F_impro01_F000", "ang"))
    with pytest.raises(CorpusError, match=r"F000\.wav: missing, but Ses01F_impro01\.txt names it"):
        corpora.load("iemocap", tmp_path)


def test_own_folders(tmp_path):
    touch(tmp_path, "calm/ann/1.wav", "calm/ann/10.wav", "calm/ann/2.wav", "angry/bob/1.flac")
    corpus = corpora.load("folders", tmp_path)
    assert corpus.labels == ("angry", "calm")
    assert [c.path.name for c in corpus.clips] == ["1.flac", "1.wav", "2.wav", "10.wav"]
    assert corpus.speakers == ("ann", "bob")


def test_own_table(tmp_path):
    touch(tmp_path, "x/1.wav", "x/2.wav")
    (tmp_path / "all.csv").write_text("path,label,speaker\nx/1.wav,sad,ann\nx/2.wav,glad,bob\n")
    corpus = corpora.load("csv", tmp_path / "all.csv")
    assert [(c.label, c.speaker) for c in corpus.clips] == [("glad", "bob"), ("sad", "ann")]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("path,label\n", "no column speaker"),
        ("path,label,speaker\ngone.wav,sad,ann\n", "line 2: no such file"),
        ("path,label,speaker\n,sad,ann\n", "line 2: path or label is empty"),
        ("path,label,speaker\nhere.wav,sad,ann\n", "two or more labels, found 1"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, table, text):
    touch(tmp_path, "here.wav")
    (tmp_path / "all.csv").write_text(table)
    with pytest.raises(CorpusError, match=text):
        corpora.load("csv", tmp_path / "all.csv")


def test_a_table_in_another_encoding_is_named(tmp_path):
    (tmp_path / "all.csv").write_bytes(
        "path,label,speaker\nhere.wav,fröhlich,ann\n".encode("latin-1")
    )
    with pytest.raises(CorpusError, match=r"all\.csv: expected UTF-8"):
        corpora.load("csv", tmp_path / "all.csv")


@pytest.mark.parametrize("name", [n for n in corpora.LOADERS if n != "csv"])
def test_a_wrong_folder_is_named_with_the_expected_layout(tmp_path, name):
    with pytest.raises(CorpusError, match=re.escape(corpora.LAYOUTS[name])):
        corpora.load(name, tmp_path)
    with pytest.raises(CorpusError, match="no such folder"):
        corpora.load(name, tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match="no such folder"):
        corpora.load(name, tmp_path / "file")


def test_an_unknown_file_name_is_named(tmp_path):
    touch(tmp_path, "wav/03a01Fa.wav", "wav/notes.wav")
    with pytest.raises(
        CorpusError, match=r"notes\.wav: unknown file name; expected one like 03a01"
    ):
        corpora.load("emodb", tmp_path)


def test_a_missing_class_is_named(tmp_path):
    touch(tmp_path, *(f"wav/03a01{e}a.wav" for e in "WLEAFN"))
    with pytest.raises(CorpusError, match="no clip of the class 'sadness'"):
        corpora.load("emodb", tmp_path)


def test_an_unreadable_file_is_named(tmp_path):
    for e in "WLEAFNT":
        write_tone(tmp_path / f"wav/03a01{e}a.wav", 300)
    (tmp_path / "wav/03a01Na.wav").write_bytes(b"broken")
    with pytest.raises(CorpusError, match=r"03a01Na\.wav: cannot be read as audio"):
        corpora.check_readable(corpora.load("emodb", tmp_path))


def test_an_empty_file_is_named(tmp_path):
    for e in "WLEAFNT":
        write_tone(tmp_path / f"wav/03a01{e}a.wav", 300)
    soundfile.write(tmp_path / "wav/03a01Na.wav", np.zeros(0), 16_000)
    with pytest.raises(CorpusError, match=r"03a01Na\.wav: holds no sample"):
        corpora.check_readable(corpora.load("emodb", tmp_path))


def test_every_corpus_says_its_licence(tiny_emodb):
    assert "CC0" in corpora.load("emodb", tiny_emodb).licence


def test_sd10_gives_the_published_folds(emodb, savee):
    for name, root, n, seed in (("emodb", emodb, 535, 46), ("savee", savee, 480, 44)):
        corpus = corpora.load(name, root)
        expected = KFold(10, shuffle=True, random_state=seed).split(range(n))
        for fold, (train, test) in zip(protocols.sd10(corpus), expected, strict=True):
            assert (list(fold.train), list(fold.test)) == (train.tolist(), test.tolist())
        names = [os.path.basename(c.path) for c in corpus.clips]  # noqa: PTH119
        assert names[0] == {"emodb": "03a01Wa.wav", "savee": "DC_a01.flac"}[name]


def test_loso_never_trains_on_the_speaker_it_tests(tiny_emodb):
    corpus = corpora.load("emodb", tiny_emodb)
    folds = protocols.loso(corpus)
    assert [fold.name for fold in folds] == ["speaker-03", "speaker-08", "speaker-09"]
    for fold in folds:
        heard = {corpus.clips[i].speaker for i in fold.train}
        tested = {corpus.clips[i].speaker for i in fold.test}
        assert len(tested) == 1
        assert not heard & tested
        assert sorted(fold.train + fold.test) == list(range(len(corpus.clips)))


def test_holdout_leaves_out_who_it_is_told(tiny_emodb):
    corpus = corpora.load("emodb", tiny_emodb)
    (fold,) = protocols.holdout(corpus, ("03", "09"))
    assert {corpus.clips[i].speaker for i in fold.train} == {"08"}
    (everybody,) = protocols.holdout(corpus, ())
    assert everybody.test == ()
    with pytest.raises(CorpusError, match="emodb has no speaker 99"):
        protocols.holdout(corpus, ("99",))
    with pytest.raises(CorpusError, match="leaves nobody"):
        protocols.holdout(corpus, ("03", "08", "09"))


def test_leaving_out_unknown_speakers_is_refused(tmp_path):
    touch(tmp_path, "calm/1.wav", "angry/1.wav")
    with pytest.raises(CorpusError, match="two or more named speakers"):
        protocols.loso(corpora.load("folders", tmp_path))
