import numpy as np
import pytest

from edge.smoothing import Smoother, Smoothing

A, B = np.array([0.8, 0.2]), np.array([0.3, 0.7])


def shown(smoother, sequence):
    return [smoother.push(probs)[0] for probs in sequence]


def test_without_smoothing_every_window_speaks_for_itself():
    smoother = Smoother(Smoothing(0, 0), 0.25)
    assert shown(smoother, [A, B, A]) == [0, 1, 0]
    np.testing.assert_array_equal(smoother.push(B)[1], B)


def test_the_average_forgets_with_its_time_constant():
    smoother = Smoother(Smoothing(0.5, 0), 0.25)
    smoother.push(np.array([1.0, 0.0]))
    for n in range(1, 6):
        _, average = smoother.push(np.array([0.0, 1.0]))
        weights = np.exp(-0.5 * np.arange(n + 1))
        np.testing.assert_allclose(average[0], weights[-1] / weights.sum())
    assert average.sum() == pytest.approx(1)


def test_another_label_has_to_lead_for_the_dwell():
    smoother = Smoother(Smoothing(0, 0.5), 0.25)
    assert shown(smoother, [A, B, B, A, B, B, B, B]) == [0, 0, 0, 0, 0, 0, 1, 1]


def test_reset_forgets():
    smoother = Smoother(Smoothing(1, 1), 0.25)
    shown(smoother, [A, A, A])
    smoother.reset()
    assert shown(smoother, [B]) == [1]
    np.testing.assert_allclose(smoother.push(B)[1], B)


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"average_s": -1}, "average_s must be at least 0"), ({"dwell_s": np.inf}, "dwell_s"),
     ({"uncertain_below": 1.5}, r"uncertain_below must be in \[0, 1\]")],
)  # fmt: skip
def test_impossible_settings_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        Smoothing(**settings)
