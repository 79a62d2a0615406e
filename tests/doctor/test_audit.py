"""Measurements of signals with known level, offset and clipping; groups and similar names by hand."""

import itertools

import numpy as np
import pytest
import soundfile

from audiotag_jax.audio import decode, sndfile
from audiotag_jax.datasets.records import Clip
from audiotag_jax.doctor import audit
from audiotag_jax.doctor.audit import Group, count_in_runs, findings, group_clips, measure

RATE_HZ = 22050


def sine(level=0.5, duration_s=1.0, rate_hz=RATE_HZ):
    return level * np.sin(2 * np.pi * 440 * np.arange(round(rate_hz * duration_s)) / rate_hz)


def write(path, samples, rate_hz=RATE_HZ, subtype=None, **kwargs):
    soundfile.write(path, samples, rate_hz, subtype=subtype, **kwargs)
    return path


def kinds(path, rate_hz=RATE_HZ):
    return findings(measure(path, rate_hz), rate_hz)


def test_a_good_recording_has_no_findings(tmp_path):
    path = write(tmp_path / "a.flac", np.stack([sine(0.5), sine(0.25)], axis=1), subtype="PCM_24")
    recording = measure(path, RATE_HZ)
    assert (recording.rate_hz, recording.num_channels, recording.subtype) == (RATE_HZ, 2, "PCM_24")
    assert recording.duration_s == 1.0
    assert recording.peak_db == pytest.approx(20 * np.log10(0.375), abs=0.01)  # of the mean over channels
    assert recording.dc_offset == pytest.approx(0, abs=1e-6)
    assert recording.clipped_share == 0
    assert findings(recording, RATE_HZ) == {}
    assert findings(recording, 44100) == {"low_rate": "22050 Hz"}


def test_recordings_without_samples_are_lost(tmp_path):
    assert kinds(tmp_path / "absent.wav") == {"missing": ""}
    (tmp_path / "folder.wav").mkdir()
    assert kinds(tmp_path / "folder.wav") == {"unreadable": "unreadable (not a regular file)"}
    (tmp_path / "empty.wav").touch()
    assert kinds(tmp_path / "empty.wav") == {"empty": ""}
    (tmp_path / "text.wav").write_text("RIFF? no")
    assert list(kinds(tmp_path / "text.wav")) == ["unreadable"]
    assert "libsndfile" in kinds(tmp_path / "text.wav")["unreadable"]
    assert list(kinds(write(tmp_path / "none.wav", np.zeros(0)))) == ["unreadable"]
    for bad in (np.nan, np.inf):
        path = write(tmp_path / "bad.wav", np.array([0.1, bad, 0.2]), subtype="FLOAT")
        assert kinds(path) == {"non_finite": ""}
    assert all(set(kinds(path)) <= set(audit.LOST) for path in tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_cut_file_is_truncated(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", np.random.default_rng(0).normal(0, 0.1, 3 * RATE_HZ))
    assert kinds(path) == {}
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    assert list(kinds(path)) == ["truncated"]


def test_silence_is_measured_on_the_mono_mix(tmp_path):
    assert kinds(write(tmp_path / "a.wav", np.zeros(RATE_HZ))) == {"silent": "all zero"}
    assert kinds(write(tmp_path / "a.wav", sine(10 ** (-82 / 20)), subtype="PCM_24")) == {"silent": "peak -82.0 dB"}
    assert kinds(write(tmp_path / "a.wav", sine(10 ** (-78 / 20)), subtype="PCM_24")) == {}
    opposed = np.stack([sine(), -sine()], axis=1)  # their mean is zero
    found = kinds(write(tmp_path / "a.wav", opposed, subtype="FLOAT"))
    assert found == {"cancelling": "nothing is left", "silent": "all zero"}
    found = kinds(write(tmp_path / "a.wav", opposed * [1, 0.9], subtype="FLOAT"))
    assert found == {"cancelling": "the mono mix is 26 dB weaker"}


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8", "ULAW", "ALAW"])
def test_clipping_is_detected_in_every_sample_format(tmp_path, subtype):
    loud = np.clip(sine(2.0), -1, 1)
    path = write(tmp_path / "a.wav", loud, subtype=subtype)
    share = 1 - 2 * np.arcsin(0.5) / np.pi  # of a sine's time, above half its peak
    assert measure(path, RATE_HZ).clipped_share == pytest.approx(share, abs=0.02)
    assert list(kinds(path)) == ["clipped"]
    assert kinds(write(tmp_path / "a.wav", 0.97 * loud, subtype="PCM_16")) == {}


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_float_samples_above_full_scale_are_not_clipped(tmp_path, subtype):
    assert kinds(write(tmp_path / "a.wav", sine(2.5), subtype=subtype)) == {}
    limited = np.clip(sine(2.5), -1, 1)
    assert list(kinds(write(tmp_path / "a.wav", limited, subtype=subtype))) == ["clipped"]


def test_single_peaks_at_full_scale_are_not_clipped(tmp_path):
    samples = sine(0.5)
    for offset in (0, 1):  # two in a row
        samples[100 + offset : -100 : 100] = np.where(np.arange(219) % 2, 1, -1)
    assert kinds(write(tmp_path / "a.wav", samples)) == {}
    samples[102:-100:100] = samples[101:-100:100]
    assert list(kinds(write(tmp_path / "a.wav", samples))) == ["clipped"]
    samples = sine(0.5)
    samples[1000:1022] = 1.0  # 22 of 22,050: no more than a thousandth
    assert kinds(write(tmp_path / "a.wav", samples)) == {}
    samples[1022] = 1.0
    assert list(kinds(write(tmp_path / "a.wav", samples))) == ["clipped"]


def test_runs_across_blocks_are_counted():
    """Compares with counting whole arrays, the flags cut into blocks of any size."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        flags = rng.random((60, 2)) < 0.7
        runs = [list(group) for channel in flags.T for value, group in itertools.groupby(channel) if value]
        expected = sum(len(run) for run in runs if len(run) >= audit.CLIPPED_RUN)
        recent, count, start = np.zeros((audit.CLIPPED_RUN, 2), bool), 0, 0
        while start < len(flags):
            size = rng.integers(1, 9)
            more, recent = count_in_runs(recent, flags[start : start + size])
            count, start = count + more, start + size
        assert count == expected


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_clipping_and_content_do_not_depend_on_blocks(tmp_path, monkeypatch, suffix):
    path = write(tmp_path / f"a.{suffix}", np.clip(np.stack([sine(3.0), sine(0.1)], axis=1), -1, 1))
    whole = measure(path, RATE_HZ)
    for frames in (7, 100_000):
        monkeypatch.setattr(sndfile, "_BLOCK_FRAMES", frames)
        assert measure(path, RATE_HZ) == whole


def test_dc_offset_is_that_of_the_worst_channel(tmp_path):
    shifted = np.stack([sine(0.2), sine(0.2) - 0.05], axis=1)
    assert kinds(write(tmp_path / "a.wav", shifted)) == {"dc_offset": "-0.050"}
    assert kinds(write(tmp_path / "a.wav", sine(0.2) + 0.009)) == {}


def test_short_and_long_recordings(tmp_path, monkeypatch):
    assert kinds(write(tmp_path / "a.wav", sine(duration_s=0.09))) == {"too_short": "0.090 s"}
    assert kinds(write(tmp_path / "a.wav", sine(duration_s=0.11))) == {}
    monkeypatch.setattr(decode, "MAX_DURATION_S", 2)  # no limit here
    path = write(tmp_path / "a.wav", np.concatenate([sine(duration_s=2), np.ones(RATE_HZ)]))
    recording = measure(path, RATE_HZ)
    assert list(findings(recording, RATE_HZ)) == ["clipped", "dc_offset"]
    assert recording.duration_s == 3
    assert recording.content != measure(write(tmp_path / "b.wav", sine(duration_s=2)), RATE_HZ).content


def content(path):
    return measure(path, RATE_HZ).content


def test_content_is_equal_for_the_same_sound_in_other_formats(tmp_path):
    samples = np.round(np.random.default_rng(0).uniform(-1, 1, 10_000) * 32767) / 32768
    path = write(tmp_path / "a.wav", samples)
    for other, options in (
        ("b.flac", {}),
        ("b.aiff", {"subtype": "PCM_24"}),
        ("b.wav", {"subtype": "FLOAT"}),
        ("b.au", {"endian": "BIG"}),
    ):
        assert content(write(tmp_path / other, samples, **options)) == content(path), other
    assert content(write(tmp_path / "c.wav", np.stack([samples, samples], axis=1))) == content(path)
    changed = samples.copy()
    changed[5000] += 1 / 32768
    assert content(write(tmp_path / "c.wav", changed)) != content(path)
    assert content(write(tmp_path / "c.wav", samples[:-1])) != content(path)
    assert content(write(tmp_path / "c.wav", samples, rate_hz=44100)) != content(path)
    assert content(write(tmp_path / "c.wav", np.zeros(10_000))) == ""


def clip(clip_id, label="x", fold=0, split="train"):
    return Clip(clip_id, clip_id, label, fold, split, True)


def test_group_clips_finds_conflicts_and_crossed_folds():
    clips = [
        clip("a"),
        clip("b", fold=1),
        clip("c", "y"),
        clip("d"),
        clip("e", None, -1, "test"),
        clip("f", "x", -1, "test"),
        clip("g"),
        clip("h"),
    ]
    keys = {"b": 1, "a": 1, "d": 2, "c": 2, "e": 3, "f": 3, "g": 4, "h": ""}
    assert group_clips(clips, keys) == [
        Group(("a", "b"), ("x",), crosses_folds=True, crosses_splits=False),
        Group(("c", "d"), ("x", "y"), crosses_folds=False, crosses_splits=False),
        Group(("e", "f"), ("x",), crosses_folds=False, crosses_splits=False),
    ]
    assert [group.conflicts for group in group_clips(clips, keys)] == [False, True, False]
    (group,) = group_clips(clips, {"a": 1, "e": 1})
    assert (group.crosses_folds, group.crosses_splits, group.conflicts) == (False, True, False)
