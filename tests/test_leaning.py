import numpy as np
import pytest

from edge.leaning import FEW_S, MEMORY_S, NO_SHIFT, Leaning
from edge.model import softmax

N = 7
RNG = np.random.default_rng(0)


def answers(labels, lean, noise=1.0):
    """Return probabilities for true ``labels`` of a voice that ``lean`` is added to."""
    logits = 3.0 * np.eye(N)[labels] + noise * RNG.normal(size=(len(labels), N)) + lean
    return softmax(logits)


def after(probs, seconds=3.0):
    leaning = Leaning.none(N)
    for one in probs:
        leaning = leaning.after(one, seconds)
    return leaning


def corrected(probs, leaning):
    return softmax(np.log(probs) - leaning.shift)


def test_of_a_stranger_nothing_is_taken_back():
    assert not Leaning.none(N).shift.any()


def test_what_is_said_too_readily_of_a_voice_is_taken_back():
    lean = np.array([0, 0, 0, -1.5, 0, 0, 2.5])
    labels = RNG.integers(N, size=200)
    probs = answers(labels, lean)
    found = after(RNG.permutation(answers(RNG.integers(N, size=100), lean)))
    assert 1.0 < found.shift[6] < 2.5
    assert -1.5 < found.shift[3] < -0.8
    assert np.abs(np.delete(found.shift, [3, 6])).max() < 0.5
    before = (probs.argmax(1) == labels).mean()
    assert (corrected(probs, found).argmax(1) == labels).mean() > before + 0.15


def test_who_is_always_calm_is_not_taken_for_one_of_whom_it_is_always_said():
    calm = after(answers(np.full(100, 5), 0.0))
    assert np.abs(calm.shift).max() < 0.6
    labels = RNG.integers(N, size=500)
    probs = answers(labels, 0.0)
    right = (probs.argmax(1) == labels).mean()
    assert (corrected(probs, calm).argmax(1) == labels).mean() > right - 0.03


def test_it_trusts_the_more_the_more_it_has_heard():
    lean = np.array([0, 0, 0, 0, 0, 0, 2.0])
    probs = answers(np.arange(70) % N, lean, noise=0.0)
    shifts = [after(probs[:n]).shift[6] for n in (1, 7, 21, 70)]
    assert 0 < shifts[0] < shifts[1] < shifts[2] < shifts[3] < 2
    few = after(probs[:1])
    assert few.seconds.argmax() == 0
    assert 0 < few.seconds.sum() < 3


def test_one_emotion_tells_no_more_than_one_can():
    one = Leaning(np.eye(N)[0] * 1e9, np.outer(np.eye(N)[0], np.arange(N)) * 1e9)
    np.testing.assert_allclose(one.shift, np.arange(N) / (1 + NO_SHIFT), rtol=1e-3)
    few = Leaning(np.eye(N)[0] * FEW_S, np.outer(np.eye(N)[0], np.arange(N)) * FEW_S)
    np.testing.assert_allclose(few.shift, np.arange(N) / 2 / (0.5 + NO_SHIFT))
    every = Leaning(np.full(N, 1e9), np.tile(np.arange(N), (N, 1)) * 1e9)
    np.testing.assert_allclose(every.shift, np.arange(N) * N / (N + NO_SHIFT), rtol=1e-3)


def test_the_temperature_changes_nothing_but_the_unit():
    logits = 3.0 * np.eye(N)[[2, 4, 4, 6]]
    as_trained, calibrated = Leaning.none(N), Leaning.none(N)
    for one in logits:
        as_trained = as_trained.after(softmax(one), 3.0)
        calibrated = calibrated.after(softmax(one / 1.7), 3.0, temperature=1.7)
    np.testing.assert_allclose(as_trained.shift, calibrated.shift, atol=1e-9)


def test_what_was_heard_long_ago_fades():
    lean = np.array([0, 0, 0, 0, 0, 0, 2.0])
    labels = np.arange(7000) % N
    leaning = after(answers(labels, lean), 10.0)
    assert leaning.seconds.sum() == pytest.approx(MEMORY_S)
    for one in answers(labels[:700], -lean):
        leaning = leaning.after(one, 10.0)
    assert leaning.shift[6] < -1


def test_nothing_that_is_said_moves_it_without_bounds():
    sure = np.eye(N)[0]
    leaning = after([sure] * 100)
    assert np.isfinite(leaning.shift).all()
