import dataclasses

import numpy as np
import pytest

from edge.frontend import STREAM
from edge.speaker import Statistics
from train.dataset import NOISY_SHARE, Features, TrainingWindows

N_ROWS, N_CLIPS = 8, 400
FRONTEND = dataclasses.replace(
    STREAM, mean=(0.0,) * STREAM.n_features, scale=(1.0,) * STREAM.n_features
)


def drawn(n_noisy, short=0.0):
    """Return a window of each of many clips whose five versions hold their own number."""
    versions = tuple(np.full((20, STREAM.n_features), v, np.float32) for v in range(5))
    clip = Features(versions, tuple(Statistics.of(rows) for rows in versions))
    windows = TrainingWindows(
        [clip] * N_CLIPS, ["a"] * N_CLIPS, np.zeros(N_CLIPS, int), FRONTEND, N_ROWS, short, n_noisy
    )
    return windows.draw(np.random.default_rng(0))


def test_a_window_comes_from_one_version_of_its_clip():
    windows = drawn(0)
    assert windows.shape == (N_CLIPS, N_ROWS, STREAM.n_features)
    assert (np.ptp(windows, axis=(1, 2)) == 0).all()
    counts = np.bincount(windows[:, 0, 0].astype(int), minlength=5) / N_CLIPS
    np.testing.assert_allclose(counts, 0.2, atol=0.08)


@pytest.mark.parametrize("n_noisy", [1, 3])
def test_the_share_of_noise_does_not_depend_on_how_many_noises_there_are(n_noisy):
    versions = drawn(n_noisy)[:, 0, 0]
    assert (versions >= 5 - n_noisy).mean() == pytest.approx(NOISY_SHARE, abs=0.08)
    assert set(np.unique(versions)) == {0, 1, 2, 3, 4}
