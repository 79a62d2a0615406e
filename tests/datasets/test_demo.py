"""The synthetic data: reproducible, written atomically, and not separable by a linear model of mean spectra."""

from collections import Counter
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from audiotag_jax.datasets import demo
from audiotag_jax.datasets.demo_sounds import SYNTHESIZERS, render
from audiotag_jax.datasets.sources import open_source
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.tables import read_table
from benchmarks.demo_linear import linear_hits


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_source("demo", tmp_path_factory.mktemp("demo"), num_folds=3)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "TRAIN_PER_CLASS", 1)
    monkeypatch.setattr(demo, "TEST_PER_CLASS", 1)
    monkeypatch.setattr(demo, "UNVERIFIED_PER_CLASS", 0)


def content(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_counts_and_label_noise(source):
    train = [clip for clip in source.clips if clip.split == "train"]
    test = [clip for clip in source.clips if clip.split == "test"]
    assert (len(source.classes), len(train), len(test)) == (10, 300, 60)
    assert Counter(clip.fold for clip in train) == {0: 100, 1: 100, 2: 100}
    assert sum(not clip.verified for clip in train) == 90
    assert all(clip.verified and clip.label for clip in test)
    folder = Path(train[0].path).parents[1]
    truth = {row["path"]: row["true_label"] for row in read_table(folder / "clips.csv", ("true_label",))}
    wrong = [clip for clip in source.clips if clip.label != truth[clip.id]]
    assert len(wrong) == round(0.35 * 90)
    assert not any(clip.verified for clip in wrong)
    assert set(Counter(truth.values()).values()) == {36}


def test_rates_channels_durations_and_levels_vary(source):
    infos = [soundfile.info(clip.path) for clip in source.clips]
    assert {info.samplerate for info in infos} == {16000, 22050, 44100}
    assert {info.channels for info in infos} == {1, 2}
    durations_s = [info.duration for info in infos]
    assert 1.19 < min(durations_s) < 1.4
    assert 3.5 < max(durations_s) <= 4.0
    peaks_db = [20 * np.log10(np.abs(soundfile.read(clip.path)[0]).max()) for clip in source.clips]
    assert max(peaks_db) - min(peaks_db) > 30
    assert max(peaks_db) < 0


def test_mean_spectra_do_not_separate_the_classes(source):
    clips = [clip for clip in source.clips if clip.split == "train"]
    hits = linear_hits(clips)
    right = np.mean([hits[clip.id] for clip in clips if clip.verified])
    assert 0.1 < right < 0.55


def test_pitch_separates_the_chirps(source):
    """Their mean spectra are alike, but the strongest frequency rises during each call or falls."""
    right = []
    for clip in source.clips:
        if clip.label not in ("chirp_up", "chirp_down") or not clip.verified:
            continue
        magnitudes = np.abs(librosa.stft(librosa.load(clip.path, sr=16000)[0], n_fft=1024, hop_length=160))
        octaves = np.log2(np.maximum(magnitudes.argmax(0), 1))
        loud = magnitudes.max(0) > 0.3 * magnitudes.max()
        steps = np.diff(octaves)[loud[1:] & loud[:-1]]
        rises = steps[np.abs(steps) < 0.3].sum() > 0  # larger steps are those between two calls
        right.append(rises == (clip.label == "chirp_up"))
    assert np.mean(right) > 0.9


def autocorrelation(values, least, most):
    """The largest correlation of `values` with themselves, shifted by `least` to `most` places."""
    return max(np.corrcoef(values[:-shift], values[shift:])[0, 1] for shift in range(least, most))


def test_a_clock_is_regular_and_a_fire_is_not(source):
    found = {"ticking": [], "crackle": []}
    for clip in source.clips:
        if clip.label in found and clip.verified:
            samples = librosa.load(clip.path, sr=8000)[0]
            loudness = np.log(1e-3 + np.abs(samples[: len(samples) // 80 * 80]).reshape(-1, 80).max(1))
            found[clip.label].append(autocorrelation(loudness, 13, 62))
    assert np.median(found["ticking"]) > np.median(found["crackle"]) + 0.2


@pytest.mark.parametrize("name", SYNTHESIZERS)
def test_every_class_is_audible_at_every_rate(name):
    for seed, rate_hz in enumerate(demo.SAMPLE_RATES_HZ):
        sound = render(name, np.random.default_rng(seed), rate_hz, rate_hz)
        assert sound.shape == (rate_hz,) and np.isfinite(sound).all() and sound[0] == sound[-1] == 0
        assert np.sqrt(np.mean(sound**2)) > 0.02 * np.abs(sound).max()


def test_sounds_are_a_function_of_the_seed(tmp_path, small):
    first = demo.write_demo(tmp_path / "a", seed=5)
    assert len(content(first)) == 22
    assert content(first) == content(demo.write_demo(tmp_path / "b", seed=5))
    other = demo.write_demo(tmp_path / "a", seed=6)
    assert other != first
    assert all(content(first)[name] != data for name, data in content(other).items())


def test_a_complete_set_is_reused_and_another_version_is_written_elsewhere(tmp_path, small, monkeypatch):
    folder = demo.write_demo(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert demo.write_demo(tmp_path) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    monkeypatch.setattr(demo, "VERSION", demo.VERSION + 1)
    (tmp_path / ".DS_Store").touch()  # a file browser's
    assert demo.write_demo(tmp_path) != folder
    monkeypatch.setattr(demo, "VERSION", demo.VERSION + 1)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="contains other files"):
        demo.write_demo(tmp_path)


def test_an_interrupted_set_is_written_again(tmp_path, small, monkeypatch):
    written = []

    def write(path, *args):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path)
        write_sound(path, *args)

    write_sound = soundfile.write
    monkeypatch.setattr(soundfile, "write", write)
    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".demo"]
    monkeypatch.setattr(soundfile, "write", write_sound)
    assert content(demo.write_demo(tmp_path)) == content(demo.write_demo(tmp_path / "other"))


def test_an_existing_folder_raises_and_is_left_unchanged(tmp_path, small):
    own = tmp_path / f"demo_v{demo.VERSION}_seed0" / "mine.txt"
    own.parent.mkdir()
    own.write_text("keep")
    with pytest.raises(UserError, match="exists but is not a complete demo set"):
        demo.write_demo(tmp_path)
    assert own.read_text() == "keep"
    folder = demo.write_demo(tmp_path, seed=1)
    next((folder / "audio").iterdir()).unlink()
    with pytest.raises(UserError, match="not a complete demo set"):
        demo.write_demo(tmp_path, seed=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write the demo sounds"):
        demo.write_demo(tmp_path / "file")
