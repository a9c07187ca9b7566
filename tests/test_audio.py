import io

import numpy as np
import pytest
import soundfile

from edge.audio import Resampler, file_blocks, pcm_blocks, read_file
from edge.errors import AudioError


def tone(rate, seconds=1.0, hz=440.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype("f4")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff"])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_any_format_and_rate_becomes_the_same_tone(tmp_path, suffix, rate):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(rate), rate)
    samples = read_file(path, 16_000)
    assert len(samples) == 16_000
    tolerance = 0.05 if suffix == "ogg" else 2e-3
    middle = slice(2000, 14_000)  # the resampler needs neighbours on both sides
    np.testing.assert_allclose(samples[middle], tone(16_000)[middle], rtol=0, atol=tolerance)


def test_channels_are_averaged(tmp_path):
    left, right = tone(16_000), tone(16_000, hz=1000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], 1), 16_000, subtype="FLOAT")
    samples = read_file(tmp_path / "stereo.wav", 16_000)
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)


def test_block_size_does_not_change_the_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(44_100), 44_100)
    whole = read_file(tmp_path / "a.wav", 16_000)
    small = np.concatenate(list(file_blocks(tmp_path / "a.wav", 16_000, block_s=0.013)))
    np.testing.assert_allclose(small, whole, atol=1e-6)


def test_a_pipe_gives_the_same_samples_as_a_file(tmp_path):
    rng = np.random.default_rng(0)
    pcm = rng.integers(-20_000, 20_000, (44_100, 2), dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, 44_100)
    piped = pcm_blocks(io.BytesIO(pcm.tobytes()), 44_100, 2, "s16le", 16_000)
    np.testing.assert_array_equal(
        np.concatenate(list(piped)), read_file(tmp_path / "a.wav", 16_000)
    )


@pytest.mark.parametrize(
    ("pcm_format", "full_scale", "dtype"),
    [("s16le", 2**15, "<i2"), ("s32le", 2**31, "<i4"), ("f32le", 1, "<f4")],
)
def test_pcm_is_scaled_to_one(pcm_format, full_scale, dtype):
    values = np.array([0.5, -1.0, 0.25])
    pcm = (values * full_scale).astype(dtype).tobytes()
    blocks = pcm_blocks(io.BytesIO(pcm), 16_000, 1, pcm_format, 16_000)
    np.testing.assert_array_equal(np.concatenate(list(blocks)), values.astype("f4"))


def test_half_a_sample_at_the_end_is_no_sample():
    blocks = pcm_blocks(io.BytesIO(b"\0\0\0\0\0"), 16_000, 1, "s16le", 16_000)
    assert len(np.concatenate(list(blocks))) == 2


def test_the_resampler_gives_back_every_sample():
    resampler = Resampler(48_000, 16_000)
    n = sum(len(resampler.push(tone(48_000, 0.01))) for _ in range(100))
    assert n + len(resampler.push(np.zeros(0, np.float32), last=True)) == 16_000


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"absent\.wav: no such audio file"):
        read_file(tmp_path / "absent.wav", 16_000)
    (tmp_path / "text.wav").write_text("this is not audio")
    with pytest.raises(AudioError, match=r"text\.wav: cannot be read as audio"):
        read_file(tmp_path / "text.wav", 16_000)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan]), 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"nan\.wav: holds NaN"):
        read_file(tmp_path / "nan.wav", 16_000)
    nan = np.array([np.nan], "<f4").tobytes()
    with pytest.raises(AudioError, match="standard input: holds NaN"):
        list(pcm_blocks(io.BytesIO(nan), 16_000, 1, "f32le", 16_000))
