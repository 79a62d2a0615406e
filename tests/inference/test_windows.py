"""Where windows begin, and that a recording read in pieces gives the windows of the whole recording."""

import numpy as np
import pytest

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.audio.decode import AudioError
from audiotag_jax.inference import windows
from audiotag_jax.inference.windows import WindowOptions, read_windows

RATE_HZ = 100


@pytest.mark.parametrize(
    ("num_samples", "starts"),
    [(1, [0]), (1000, [0]), (1009, [9]), (1010, [0, 10]), (1400, [0, 400]), (1409, [0, 409]), (1500, [0, 400, 500])],
)
def test_window_starts(num_samples, starts):
    assert windows.window_starts(num_samples, 1000, 400) == starts


def streamed(monkeypatch, samples, sizes, error=""):
    """Makes every file the samples, in pieces of the given sizes."""

    def stream_audio(path, rate_hz):
        yield from np.split(samples, np.cumsum(sizes))
        if error:
            raise AudioError(error)
        return "a note"

    monkeypatch.setattr(windows, "stream_audio", stream_audio)


def test_windows_do_not_depend_on_the_pieces(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(300):
        length, hop, num_samples = (int(2 ** rng.uniform(0, 9)) for _ in range(3))
        if rng.random() < 0.2:
            num_samples = length + rng.integers(0, 1 + length // 20)  # hardly longer than a window
        samples = rng.normal(size=num_samples).astype(np.float32)
        sizes = rng.integers(1, 1 + rng.integers(1, 300), size=1000)
        streamed(monkeypatch, samples, sizes[: np.searchsorted(np.cumsum(sizes), num_samples)])
        items = list(read_windows([tmp_path], WindowOptions(RATE_HZ, length, hop)))
        starts = windows.window_starts(num_samples, length, hop)
        assert [item.is_last for item in items] == [False] * (len(starts) - 1) + [True]
        assert (items[-1].duration_s, items[-1].note) == (num_samples / RATE_HZ, "a note")
        if len(starts) == 1:
            assert (items[0].start_s, items[0].end_s) == (0, num_samples / RATE_HZ)
            expected = [crop_loudest(samples, length, RATE_HZ // 2)]
        else:
            assert [item.start_s for item in items] == [start / RATE_HZ for start in starts]
            expected = [samples[start : start + length] for start in starts]
        for item, window in zip(items, expected, strict=True):
            if item.waveform is None:  # one sample is silent
                assert np.ptp(window) < 1e-3 or min(length, num_samples) == 1
            else:
                np.testing.assert_array_equal(item.waveform, window)


@pytest.mark.parametrize("hop", [1000, 20_000])
def test_small_pieces_are_not_joined_one_by_one(monkeypatch, tmp_path, hop):
    """Nor kept where the windows are far apart."""
    joined = []

    def concatenate(arrays, join=np.concatenate):
        joined.append(sum(map(len, arrays)))
        return join(arrays)

    streamed(monkeypatch, np.ones(50_000, np.float32), np.full(5000, 10))
    monkeypatch.setattr(np, "concatenate", concatenate)
    assert len(list(read_windows([tmp_path], WindowOptions(RATE_HZ, 1000, hop)))) == len(range(0, 49_000, hop)) + 1
    assert max(joined) < 4000 and sum(joined) < 4 * 50_000


def test_an_error_after_some_windows_ends_the_recording_with_a_note(monkeypatch, tmp_path):
    streamed(monkeypatch, np.arange(250, dtype=np.float32), [120, 100], error="non-finite samples")
    items = list(read_windows([tmp_path, tmp_path], WindowOptions(RATE_HZ, 100, 100)))
    assert [item.start_s for item in items] == 2 * [0, 1, 1.5]
    assert items[2].note == "truncated: 2.50 s tagged, then non-finite samples"
    streamed(monkeypatch, np.arange(100, dtype=np.float32), [50], error="non-finite samples")
    (item,) = read_windows([tmp_path], WindowOptions(RATE_HZ, 100, 100))
    assert (item.start_s, item.is_last, item.duration_s, item.note) == (None, True, None, "non-finite samples")
