import numpy as np
import pytest

from edge.audio import read_file
from edge.frontend import mfcc
from edge.model import Model
from edge.recognizer import Recognizer, window_starts
from edge.speaker import SpeakerNorm


@pytest.fixture(scope="module")
def model():
    return Model()


def stream(recognizer, samples, size):
    estimates = []
    for start in range(0, len(samples), size):
        estimates += recognizer.push(samples[start : start + size])
    return estimates + recognizer.finish()


@pytest.mark.parametrize("size", [160, 333, 1024, 16_000, 10**6])
def test_the_stream_answers_like_the_file(model, clips, size):
    clip = max(clips, key=lambda c: c.path.stat().st_size)
    samples = read_file(clip.path, 16_000)
    recognizer = Recognizer(model)
    estimates = stream(recognizer, samples, size)
    rows = mfcc(samples, model.card.frontend)
    starts = window_starts(len(rows), model.card.n_rows, recognizer.hop_rows)
    assert len(starts) > 3
    norm, heard, expected = SpeakerNorm(model.card.frontend), 0, []
    for start in starts:
        norm.hear(rows[heard : start + model.card.n_rows])
        heard = start + model.card.n_rows
        expected.append(model.probs(norm.normalize(rows[start:heard])))
    found = [e.probs for e in estimates]
    # One step of int8 input, at most, where a feature lies on the edge between two.
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_allclose(recognizer.overall().probs, np.mean(expected, axis=0), atol=0.02)


def test_times_are_counted_in_samples(model):
    rng = np.random.default_rng(0)
    recognizer = Recognizer(model, hop_s=0.25)
    frontend, n_rows = model.card.frontend, model.card.n_rows
    window_s = frontend.n_samples(n_rows) / 16_000
    estimates = stream(recognizer, rng.normal(size=80_000).astype("f4") * 0.1, 1600)
    assert [e.start_s for e in estimates[:3]] == pytest.approx([0, 0.25, 0.5])
    assert all(e.end_s - e.start_s == pytest.approx(window_s) for e in estimates)
    assert estimates[-1].end_s == pytest.approx(
        frontend.n_samples(frontend.n_rows(80_000)) / 16_000
    )
    assert recognizer.n_estimates == len(estimates)


def test_a_short_stream_is_filled_up_with_silence(model, clips):
    samples = read_file(clips[0].path, 16_000)[:16_000]
    recognizer = Recognizer(model)
    (estimate,) = stream(recognizer, samples, 1600)
    padded = np.pad(samples, (0, model.card.frontend.n_samples(model.card.n_rows) - 16_000))
    norm = SpeakerNorm(model.card.frontend)
    norm.hear(mfcc(samples, model.card.frontend))
    expected = model.probs(norm.normalize(mfcc(padded, model.card.frontend)))
    np.testing.assert_allclose(estimate.probs, expected, atol=0.02)


def test_nothing_heard_gives_nothing(model):
    recognizer = Recognizer(model)
    assert recognizer.finish() == []
    assert recognizer.overall() is None


def test_exactly_one_window_gives_one_estimate(model):
    n = model.card.frontend.n_samples(model.card.n_rows)
    recognizer = Recognizer(model)
    assert len(stream(recognizer, np.full(n, 0.01, np.float32), 1000)) == 1


def test_reset_gives_the_same_answers_again(model, clips):
    samples = read_file(clips[3].path, 16_000)
    recognizer = Recognizer(model)
    first = stream(recognizer, samples, 1600)
    recognizer.reset()
    second = stream(recognizer, samples, 1600)
    assert [e.start_s for e in first] == [e.start_s for e in second]
    np.testing.assert_array_equal([e.probs for e in first], [e.probs for e in second])


def test_memory_of_the_stream_does_not_grow(model):
    recognizer = Recognizer(model)
    for _ in range(40):
        recognizer.push(np.full(16_000, 0.01, np.float32))
    assert len(recognizer._window) == model.card.n_rows
    assert len(recognizer._stream._pending) < model.card.frontend.n_fft


@pytest.mark.parametrize(
    ("n_rows", "starts"),
    [(10, [0]), (11, [0, 1]), (14, [0, 4]), (15, [0, 4, 5])],
)
def test_window_starts_reach_the_end(n_rows, starts):
    assert window_starts(n_rows, 10, 4) == starts


def test_a_hop_of_nothing_is_refused(model):
    with pytest.raises(ValueError, match="hop_s must be above 0"):
        Recognizer(model, hop_s=0)
