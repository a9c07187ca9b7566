import dataclasses
import itertools

import numpy as np
import pytest

from edge.audio import Lost, Notice, read_file
from edge.card import Card
from edge.events import Estimate, Gap, SpeechEnd, SpeechStart, Status, Utterance
from edge.frontend import LOG_MEL, feature_rows
from edge.gate import CHUNK_SAMPLES, GateSettings, SpeechGate
from edge.leaning import Voice
from edge.model import Model, softmax
from edge.recognizer import Recognizer, window_starts
from edge.smoothing import Smoothing

RATE = 16_000
YEAR = 365 * 24 * 3600 * RATE


@pytest.fixture(scope="module")
def model():
    model = Model()
    frontend = dataclasses.replace(model.card.frontend, adapt_s=0.0)
    model.card = dataclasses.replace(model.card, frontend=frontend)
    return model


@pytest.fixture(scope="module")
def scene(clips):
    """Quiet, a clip, quiet, another clip, quiet."""
    rng = np.random.default_rng(0)
    parts = [np.zeros(2 * RATE)]
    for number in (2, 13):
        parts += [read_file(clips[number].path, RATE), np.zeros(2 * RATE + 77)]
    samples = np.concatenate(parts)
    return (samples + 1e-4 * rng.normal(size=len(samples))).astype("f4")


def recognizer_of(model, kind="energy", **options):
    return Recognizer(model, SpeechGate(kind), **options)


def answer(model, rows):
    """What a model says of rows if it does not adapt to the speaker."""
    return model.probs(model.card.frontend.normalize(rows))


def blocks(samples, size=1600):
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def of_type(events, *types):
    return [event for event in events if isinstance(event, types)]


@pytest.mark.parametrize("size", [160, 333, 1024, 16_000, 10**6])
def test_the_stream_answers_like_the_file(model, clips, size):
    clip = max(clips, key=lambda c: c.path.stat().st_size)
    samples = read_file(clip.path, RATE)
    recognizer = recognizer_of(model, "off", smoothing=Smoothing(0, 0), first_s=100)
    events = list(recognizer.events(blocks(samples, size)))
    rows = feature_rows(samples, model.card.frontend)
    starts = window_starts(len(rows), model.card.n_rows, recognizer.hop_rows)
    assert len(starts) > 3
    expected = [answer(model, rows[s : s + model.card.n_rows]) for s in starts]
    found = [list(e.window_probs.values()) for e in of_type(events, Estimate)]
    # One step of int8 input, at most, where a feature lies on the edge between two.
    np.testing.assert_allclose(found, expected, atol=0.02)
    (utterance,) = of_type(events, Utterance)
    mean = np.mean(expected, axis=0)
    np.testing.assert_allclose(list(utterance.probs.values()), mean, atol=0.02)
    assert utterance.label == model.card.labels[int(mean.argmax())]
    assert events[-1].probs == utterance.probs  # the clip is its only utterance


@pytest.mark.parametrize("kind", ["voice", "energy", "off"])
@pytest.mark.parametrize("size", [1, 511, 16_001])
def test_block_size_changes_nothing_at_all(model, scene, kind, size):
    recognizer = recognizer_of(model, kind)
    scene = scene[: 6 * RATE]
    whole = list(recognizer.events([scene]))
    recognizer.reset()
    assert list(recognizer.events(blocks(scene, size))) == whole
    assert len(of_type(whole, Estimate)) > 3


def test_estimates_come_only_while_somebody_speaks(model, scene, clips):
    events = list(recognizer_of(model, "voice").events(blocks(scene)))
    names = [e.name for e in events if not isinstance(e, Status)]
    n = names.index("speech_end")
    one = ["speech_start", *["estimate"] * (n - 2), "utterance", "speech_end"]
    assert names[: n + 1] == one
    assert names[-1] == "clip"
    first, *_, last = of_type(events, SpeechStart)
    seconds = len(read_file(clips[2].path, RATE)) / RATE
    assert first.start_s == pytest.approx(2.0, abs=0.4)
    assert of_type(events, SpeechEnd)[0].end_s == pytest.approx(2 + seconds, abs=0.5)
    assert last.start_s > 4 + seconds - 0.4


def test_an_utterance_is_made_of_its_own_audio_only(model, scene):
    recognizer = recognizer_of(model, smoothing=Smoothing(0, 0))
    events = list(recognizer.events(blocks(scene)))
    utterance = of_type(events, Utterance)[0]
    samples = scene[utterance.start_sample : utterance.end_sample]
    rows = feature_rows(samples, model.card.frontend)
    starts = window_starts(len(rows), model.card.n_rows, recognizer.hop_rows)
    expected = np.mean([answer(model, rows[s : s + model.card.n_rows]) for s in starts], axis=0)
    np.testing.assert_allclose(list(utterance.probs.values()), expected, atol=0.02)
    assert utterance.n_windows == len(starts)


def test_what_is_shorter_than_a_window_is_repeated(model, clips):
    samples = read_file(clips[0].path, RATE)[: RATE + 123]
    events = list(recognizer_of(model, "off").events([samples]))
    (utterance,) = of_type(events, Utterance)
    rows = feature_rows(samples, model.card.frontend)
    rows = np.resize(rows, (model.card.n_rows, rows.shape[1]))
    np.testing.assert_allclose(list(utterance.probs.values()), answer(model, rows), atol=0.02)
    assert utterance.end_sample == len(samples)
    assert utterance.n_windows == 1


@pytest.mark.parametrize("n_samples", [1, 500, 513, 1100])
def test_hardly_anything_still_gets_its_one_label(model, n_samples):
    events = list(recognizer_of(model, "off").events([np.full(n_samples, 0.1, "f4")]))
    (utterance,) = of_type(events, Utterance)
    assert utterance.end_sample == n_samples
    assert sum(utterance.probs.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["voice", "energy", "off"])
def test_nothing_heard_gives_nothing(model, kind):
    (clip,) = recognizer_of(model, kind).events([])
    assert clip.label is None
    assert "label" not in clip.to_json()


def test_silence_is_never_asked_about(model):
    class Deaf:
        card = model.card

        def logits(self, rows):
            raise AssertionError("silence reached the model")

    events = list(recognizer_of(Deaf(), "voice").events([np.zeros(10 * RATE + 512, "f4")]))
    assert {e.name for e in events} == {"status", "clip"}
    assert len(events) == 11


def test_the_first_estimate_comes_after_first_s_then_one_every_hop(model):
    rng = np.random.default_rng(0)
    samples = rng.normal(size=5 * RATE).astype("f4") * 0.1
    recognizer = recognizer_of(model, "off", hop_s=0.25, first_s=1.0)
    estimates = of_type(recognizer.events(blocks(samples)), Estimate)
    ends = [e.end_s for e in estimates]
    row_s = model.card.frontend.hop_samples / RATE
    assert ends[0] == pytest.approx(1.0, abs=row_s)
    assert model.card.window_s in [pytest.approx(e) for e in ends]  # the first full window
    assert np.diff(ends[:-1]).max() == pytest.approx(round(0.25 / row_s) * row_s)
    assert all(0 <= e.at_s - e.end_s <= 0.033 for e in estimates)
    assert all(e.start_s == pytest.approx(max(0, e.end_s - model.card.window_s), abs=1e-9)
               for e in estimates[:3] + estimates[-3:])  # fmt: skip


def test_reset_gives_the_same_events_again(model, scene):
    recognizer = recognizer_of(model, "voice")
    first = list(recognizer.events(blocks(scene)))
    recognizer.reset()
    assert list(recognizer.events(blocks(scene))) == first


def test_a_year_later_the_same_is_heard_at_exact_times(model, scene):
    recognizer = recognizer_of(model)
    now = list(recognizer.events(blocks(scene)))
    recognizer.reset(at_sample=YEAR)
    later = list(recognizer.events(blocks(scene)))
    shifted = [
        dataclasses.replace(
            e,
            at_sample=e.at_sample + YEAR,
            start_sample=e.start_sample + YEAR,
            end_sample=e.end_sample + YEAR,
        )
        for e in now
    ]
    assert later == shifted
    assert later[-1].to_json()["at_s"] == 365 * 24 * 3600 + now[-1].to_json()["at_s"]


def test_a_gap_ends_the_speech_and_moves_the_time(model, scene):
    recognizer = recognizer_of(model)
    middle = 3 * RATE  # in the midst of the first clip
    items = [scene[:middle], Lost(RATE, "test"), scene[middle:]]
    events = list(recognizer.events(items))
    (gap,) = of_type(events, Gap)
    assert (gap.start_sample, gap.end_sample, gap.reason) == (middle, middle + RATE, "test")
    before = events[: events.index(gap)]
    assert [e.name for e in before[-2:]] == ["utterance", "speech_end"]
    assert before[-1].end_sample == middle
    assert recognizer.n_heard == len(scene)
    assert recognizer.n_lost == RATE
    assert recognizer.n_samples == len(scene) + RATE
    assert len(of_type(events, SpeechStart)) == len(of_type(events, SpeechEnd)) == 3


def test_a_loss_of_unknown_length_does_not_cut_speech(model, scene):
    recognizer = recognizer_of(model)
    whole = list(recognizer.events([scene]))
    recognizer.reset()
    with_loss = list(recognizer.events([scene[:48_000], Lost(0, "who knows"), scene[48_000:]]))
    assert of_type(with_loss, Gap)[0].end_sample == 48_000 // 512 * 512
    assert of_type(with_loss, Utterance) == of_type(whole, Utterance)


def test_a_notice_is_a_status(model):
    items = [np.zeros(RATE + 512, "f4"), Notice("waiting", "gone"), Notice("listening", "back")]
    events = of_type(recognizer_of(model).events(items), Status)
    assert [(e.state, e.message) for e in events] == [
        ("listening", None), ("waiting", "gone"), ("listening", "back"),
    ]  # fmt: skip


def test_speech_without_end_is_cut_without_losing_a_sample(model, scene):
    settings = GateSettings(longest_s=1.0)
    recognizer = Recognizer(model, SpeechGate("off", settings=settings))
    utterances = of_type(recognizer.events([scene[: 5 * RATE]]), Utterance)
    assert len(utterances) == 5
    edges = [(u.start_sample, u.end_sample) for u in utterances]
    assert edges[0][0] == 0
    assert edges[-1][1] == 5 * RATE
    assert all(one[1] == two[0] for one, two in itertools.pairwise(edges))


def test_the_window_knows_which_of_its_rows_are_speech(model, scene):
    recognizer = recognizer_of(model)
    seen, real = [], recognizer.windows.push

    def spy(chunk, speech):
        windows = real(chunk, speech)
        seen.extend(windows)
        return windows

    recognizer.windows.push = spy
    list(recognizer.events(blocks(scene)))
    first = seen[0]
    assert first.speech.shape == (model.card.n_rows,)
    before = round(GateSettings().before_s * RATE / model.card.frontend.hop_samples)
    assert not first.speech[: before - 3].any()
    assert first.speech[before + 2 : before + 10].all()


class Adapting:
    """A model that adapts to the speaker, and tells how loud its first and last feature are."""

    def __init__(self, adapt_s):
        frontend = dataclasses.replace(
            LOG_MEL, mean=(-50.0,) * 66, scale=(10.0,) * 66, adapt_s=adapt_s
        )
        self.card = Card("test", ("low", "high"), frontend, n_rows=100)

    def logits(self, window):
        return window.mean(axis=0)[[0, 63]]


def test_it_gets_to_know_the_speaker_from_speech_alone(scene):
    recognizer = recognizer_of(Adapting(2.0))
    heard, real = [], recognizer.speaker.hear
    recognizer.speaker.hear = lambda rows: (heard.append(rows), real(rows))
    events = list(recognizer.events(blocks(scene)))
    rows = np.concatenate(heard)
    speech_s = sum(u.duration_s for u in of_type(events, Utterance))
    assert speech_s - 2 < len(rows) / 50 < speech_s  # not the padding, and every row once
    assert rows[:, :64].max(axis=1).min() > -75  # the scene's quiet lies below
    of_others = list(recognizer_of(Adapting(0.0)).events(blocks(scene)))
    assert of_type(events, SpeechEnd) == of_type(of_others, SpeechEnd)
    assert of_type(events, Utterance) != of_type(of_others, Utterance)
    recognizer.reset()
    assert list(recognizer.events(blocks(scene))) == events


def test_it_learns_how_the_model_leans_from_every_utterance(scene):
    model = Model()
    recognizer = recognizer_of(model, smoothing=Smoothing(0, 0))
    assert not recognizer.leaning.shift.any()
    events = list(recognizer.events(blocks(scene)))
    leaning, (one, _) = recognizer.leaning, of_type(events, Utterance)
    frontend = model.card.frontend
    heard_s = recognizer.speaker.heard.n_rows * frontend.hop_samples / RATE
    assert 0.1 * heard_s < leaning.seconds.sum() < heard_s
    # Of a stranger's first utterance nothing has been taken back yet.
    first = [e for e in of_type(events, Estimate) if e.start_s < one.end_s]
    full = [list(e.window_probs.values()) for e in first][-one.n_windows :]
    np.testing.assert_allclose(list(one.probs.values()), np.mean(full, axis=0), atol=1e-6)
    known = recognizer_of(model, smoothing=Smoothing(0, 0), known=recognizer.voice)
    assert known.leaning == leaning
    alike = recognizer_of(
        model, smoothing=Smoothing(0, 0), known=Voice(recognizer.voice.statistics)
    )
    said, but_for_it = (
        of_type(r.events(blocks(scene)), Estimate)[0].window_probs.values() for r in (known, alike)
    )
    logits = model.card.temperature * np.log(list(but_for_it)) - leaning.shift
    np.testing.assert_allclose(list(said), softmax(logits / model.card.temperature), atol=1e-5)


def test_a_model_that_does_not_adapt_takes_nothing_back(scene):
    recognizer = recognizer_of(Adapting(0.0))
    assert of_type(recognizer.events(blocks(scene)), Utterance)
    assert not recognizer.leaning.shift.any()


def test_callbacks_get_what_the_iterator_yields(model, scene):
    recognizer = recognizer_of(model)
    expected = of_type(recognizer.events([scene]), Utterance)
    recognizer.reset()
    found, starts = [], []
    recognizer.run([scene], utterance=found.append, speech_start=starts.append)
    assert found == expected
    assert len(starts) == len(expected) == 2
    with pytest.raises(TypeError, match="no events are called speech; expected speech_start"):
        recognizer.run([scene], speech=print)


def test_memory_of_the_stream_does_not_grow(model):
    rng = np.random.default_rng(0)
    recognizer = recognizer_of(model, "off")
    for _ in range(40):
        recognizer.push(0.1 * rng.normal(size=RATE).astype("f4"))
    windows = recognizer.windows
    assert len(windows._rows) == model.card.n_rows
    assert sum(map(len, windows._chunks)) < RATE
    assert len(windows._flags) < 40


def test_low_confidence_is_called_uncertain(model, scene):
    sure, unsure = (
        of_type(recognizer_of(model, smoothing=Smoothing(uncertain_below=p)).events([scene]),
                Utterance)
        for p in (0.0, 1.0)
    )  # fmt: skip
    assert all(not u.uncertain and u.shown_label == u.label for u in sure)
    assert all(u.uncertain and u.shown_label == "uncertain" for u in unsure)
    assert [u.label for u in sure] == [u.label for u in unsure]


@pytest.mark.parametrize(
    ("n_rows", "starts"),
    [(10, [0]), (11, [0, 1]), (14, [0, 4]), (15, [0, 4, 5])],
)
def test_window_starts_reach_the_end(n_rows, starts):
    assert window_starts(n_rows, 10, 4) == starts


def test_a_status_is_never_due_more_than_once_a_chunk(model):
    events = recognizer_of(model, status_s=1e-9).push(np.zeros(10 * CHUNK_SAMPLES))
    assert [e.at_sample for e in events] == [CHUNK_SAMPLES * n for n in range(1, 11)]


@pytest.mark.parametrize("name", ["hop_s", "first_s", "status_s"])
def test_times_of_nothing_are_refused(model, name):
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        recognizer_of(model, **{name: 0})
