"""The tagger says of a clip what the evaluation of its run said, from the run's directory alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import random_runs
import scipy.special
import soundfile

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.audio.decode import load_audio
from audiotag_jax.evaluation.calibration import cross_fitted_error, expected_calibration_error, fit_temperature
from audiotag_jax.inference.calibrate import calibrate
from audiotag_jax.inference.predict import tag_recordings
from audiotag_jax.inference.tagger import load_tagger, round_to_half
from audiotag_jax.runtime.errors import UserError

KINDS = {
    "standard": {},
    "two channels": {"spectral.channels": ("linear_linear", "hires_q2")},
    "on the fly": {"dataset.on_the_fly": True, "dataset.margin_s": 0.1, "model.normalization": "imagenet"},
    "waveform": {"spectral.channels": ("waveform",), "model.name": "waveform"},
}


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory) -> Path:
    """To read, not to write."""
    return random_runs.make_run(random_runs.tiny_config(folder), tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def saved_predictions(workdir: Path, fold: int) -> dict:
    with np.load(workdir / f"fold_{fold}" / "predictions.npz") as saved:
        return dict(saved)


def change_config(workdir: Path, change) -> None:
    path = workdir / "config.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_the_evaluation(folder, tmp_path, kind):
    config = random_runs.tiny_config(folder)
    config.update_from_flattened_dict(KINDS[kind])
    workdir = random_runs.make_run(config, tmp_path / "run")
    for fold in (0, 1):
        saved = saved_predictions(workdir, fold)
        tagger = load_tagger(workdir, (fold,))
        recordings = [load_audio(folder / name, random_runs.RATE_HZ)[0] for name in saved["ids"]]
        clips = np.stack([crop_loudest(each, random_runs.LENGTH, random_runs.RATE_HZ // 2) for each in recordings])
        for temperature in (tagger.temperature, 1.0):
            expected = scipy.special.softmax(saved["logits"] / temperature, axis=1)
            found = dataclasses.replace(tagger, temperature=temperature).probabilities(clips)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert np.ptp(expected, axis=0).max() > 0.05  # the clips are told apart


def test_all_folds_without_data(copied):
    """The mean of the folds, with one temperature for the held-out clips of all."""
    tagger = load_tagger(copied)
    waveforms = np.random.default_rng(0).standard_normal((3, random_runs.LENGTH)).astype(np.float32)
    saved = [saved_predictions(copied, fold) for fold in (0, 1)]
    pooled = (np.concatenate([each[name] for each in saved]) for name in ("logits", "labels"))
    assert tagger.temperature == pytest.approx(fit_temperature(*pooled))
    single = [np.asarray(load_tagger(copied, (fold,)).probabilities(waveforms)) for fold in (0, 1)]
    one_temperature = [load_tagger(copied, (fold,)).temperature for fold in (0, 1)]
    # Back to logits, which are known up to a constant, and to the common temperature.
    rescaled = [
        scipy.special.softmax(np.log(each) * own / tagger.temperature, axis=1)
        for each, own in zip(single, one_temperature, strict=True)
    ]
    np.testing.assert_allclose(tagger.probabilities(waveforms), np.mean(rescaled, axis=0), rtol=0, atol=1e-5)
    assert (tagger.classes, tagger.folds) == (random_runs.CLASSES, (0, 1))
    assert (tagger.sample_rate_hz, tagger.length_samples) == (random_runs.RATE_HZ, random_runs.LENGTH)


def test_unlabelled_clips_have_no_say_in_the_temperature(copied, finished):
    for fold in (0, 1):
        saved = saved_predictions(finished, fold)
        junk = {name: np.concatenate([values, values]) for name, values in saved.items()}
        junk["labels"][len(saved["labels"]) :] = -1
        junk["logits"][len(saved["labels"]) :] *= 100
        np.savez(copied / f"fold_{fold}" / "predictions.npz", **junk)
    assert load_tagger(copied).temperature == load_tagger(finished).temperature


def test_one_fold_is_enough(copied):
    shutil.rmtree(copied / "fold_0")
    assert load_tagger(copied).folds == (1,)


def test_another_length_is_refused(finished):
    with pytest.raises(ValueError, match="1200"):
        load_tagger(finished).probabilities(np.zeros((1, 1201), np.float32))


def test_round_to_half_is_that_of_numpy():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.random(5000), 2.0 ** rng.uniform(-30, 0, 5000), [0, 1, 2**-14, 2**-24, 2**-25]])
    values = values.astype(np.float32)
    np.testing.assert_array_equal(round_to_half(values), values.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record["config"]["spectral"].update(colour="red"), "another version .* spectral.colour"),
        (lambda record: record["config"]["model"].pop("width"), "another version .* without model.width"),
        (lambda record: record["config"].pop("model"), "has no model"),
        (lambda record: record["config"]["model"].update(width=5), "fold 0: .* another network"),
        (lambda record: record["config"]["model"].update(name="large"), "model.name is 'large'"),
        (lambda record: record["classes"].append("cat"), "fold 0: .* another network"),
    ],
)
def test_a_run_that_does_not_fit(copied, change, words):
    change_config(copied, change)
    with pytest.raises(UserError, match=words):
        load_tagger(copied)


def test_what_is_missing(copied, tmp_path):
    with pytest.raises(UserError, match="contains no run"):
        load_tagger(tmp_path / "nowhere")
    with pytest.raises(UserError, match="fold 7 is not finished; choose from 0, 1"):
        load_tagger(copied, (0, 7))
    for fold in (0, 1):
        (copied / f"fold_{fold}" / "predictions.npz").unlink()
    with pytest.raises(UserError, match="no finished fold"):
        load_tagger(copied)


@pytest.mark.parametrize("kind", ["short", "one clip", "long", "two channels", "16 bits"])
def test_called_with_a_waveform_it_answers_as_mode_predict(finished, tmp_path, kind):
    """At another rate, in windows, with silence between them."""
    rate_hz = 6000
    rng = np.random.default_rng(len(kind))
    length = {"short": 900, "one clip": 1800}.get(kind, 9000)
    samples = 0.1 * rng.standard_normal((length, 2) if kind == "two channels" else length)
    samples[3000:6000] = 0
    if kind == "16 bits":
        samples = np.round(samples * 32768).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, rate_hz, subtype="PCM_16" if kind == "16 bits" else "DOUBLE")
    tagger = load_tagger(str(finished))
    [expected] = tag_recordings([tmp_path / "a.wav"], tagger, tagger.window_options(0.15))
    found = tagger(samples, rate_hz, hop_s=0.15)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert expected.num_silent == (0 if length < 9000 else 1)
    probabilities = [found[name] for name in tagger.classes]
    np.testing.assert_allclose(probabilities, expected.probabilities, rtol=0, atol=1e-5)


def test_called_with_silence_or_nonsense(finished):
    tagger = load_tagger(finished)
    assert tagger(np.zeros(5000), 4000) == {}
    wrong = [np.zeros(0), np.zeros((2, 5000)), np.zeros((2, 2, 2)), np.array(1.0), np.full(9, np.nan), np.array(["a"])]
    for waveform in wrong:
        with pytest.raises(ValueError, match="expected|cannot tag the waveform: non-finite"):
            tagger(waveform, 4000)
    for rate_hz, hop_s in ((1, 0), (4000, -1)):
        with pytest.raises(ValueError, match="it must be"):
            tagger(np.ones(9), rate_hz, hop_s)


def held_out(num_clips: int, num_classes: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """Clips whose labels are drawn from softmax(logits / 2): the right temperature is 2."""
    rng = np.random.default_rng(seed)
    logits = 4 * rng.standard_normal((num_clips, num_classes))
    chances = scipy.special.softmax(logits / 2, axis=1)
    labels = np.array([rng.choice(num_classes, p=row) for row in chances])
    ids = np.array([f"{seed}-{n:04d}" for n in range(num_clips)])
    return {
        "ids": ids,
        "labels": labels,
        "verified": np.ones(num_clips, bool),
        "logits": logits.astype(np.float32),
        "recordings": np.full(num_clips, ""),
    }


def save_folds(workdir, *folds):
    for number, arrays in enumerate(folds):
        (workdir / f"fold_{number}").mkdir(parents=True, exist_ok=True)
        np.savez(workdir / f"fold_{number}/predictions.npz", **arrays)
    return workdir, range(len(folds))


def test_the_temperature_is_that_of_verified_clips(tmp_path):
    """Labels that nobody has checked, half of them wrong, do not matter; the right one is known."""
    folds = [held_out(1000, seed=seed) for seed in (0, 1)]
    for each in folds:
        each["verified"] = np.arange(1000) % 2 == 0
        each["labels"] = np.where(np.arange(1000) % 4 == 1, (each["labels"] + 1) % 3, each["labels"])
    found = calibrate(*save_folds(tmp_path / "run", *folds))
    assert found.temperature == pytest.approx(2, rel=0.1)
    assert (found.fitted_to, found.doubt) == ("1000 verified held-out clips", "")
    assert found.errors[0] > 0.1 > 0.05 > found.errors[1]
    for each in folds:  # too few of them, or none of one class
        each["verified"] &= np.arange(1000) < 40
    too_few = calibrate(*save_folds(tmp_path / "run", *folds))
    assert (too_few.fitted_to, too_few.temperature > 3) == ("2000 held-out clips", True)
    for each in folds:
        each["verified"] = (np.arange(1000) % 2 == 0) & (each["labels"] > 0)
    assert calibrate(*save_folds(tmp_path / "run", *folds)).fitted_to == "2000 held-out clips"


def test_the_calibration_error_is_that_of_other_clips(tmp_path):
    """By the definition, fold by fold; a run of one fold by parts, in which recordings stay together."""
    one, two = held_out(60, seed=2), held_out(90, seed=3)
    found = calibrate(*save_folds(tmp_path / "run", one, two))
    scaled = [
        scipy.special.softmax(mine["logits"].astype(float) / fit_temperature(other["logits"], other["labels"]), axis=1)
        for mine, other in ((one, two), (two, one))
    ]
    labels = np.concatenate([one["labels"], two["labels"]])
    assert found.errors[1] == pytest.approx(expected_calibration_error(np.concatenate(scaled), labels))
    two["recordings"] = np.array([f"walk {n // 9}" for n in range(90)])
    alone = calibrate(*save_folds(tmp_path / "alone", two))
    parts = np.arange(90) // 9 % 5
    assert alone.errors[1] == pytest.approx(cross_fitted_error(two["logits"], two["labels"], parts))
    assert alone.temperature == fit_temperature(two["logits"], two["labels"])


def test_what_makes_probabilities_doubtful(tmp_path):
    right, wrong = held_out(200), held_out(200)
    right["labels"] = right["logits"].argmax(axis=1)
    wrong["labels"] = wrong["logits"].argmin(axis=1)
    assert calibrate(*save_folds(tmp_path / "right", right)).doubt == ""
    few = {name: values[:20] for name, values in right.items()}
    doubt = calibrate(*save_folds(tmp_path / "few", few)).doubt
    assert doubt.startswith("temperature 0.100 is at the limit of its range: 20 held-out clips") and "folds" in doubt
    sure, unsure = ({name: values[:12] for name, values in held_out(12, seed=seed).items()} for seed in (1, 2))
    for each in (sure, unsure):  # each fold's temperature is wrong for the other
        each["logits"] = np.eye(3, dtype=np.float32)[each["labels"]]
    unsure["labels"] = np.where(np.arange(12) % 3 > 0, (unsure["labels"] + 1) % 3, unsure["labels"])
    worse = calibrate(*save_folds(tmp_path / "worse", sure, unsure))
    assert worse.errors[1] > worse.errors[0] and "24 held-out clips are too few to calibrate with" in worse.doubt
    doubt = calibrate(*save_folds(tmp_path / "wrong", wrong)).doubt
    assert doubt.startswith("no better than guessing") and doubt.endswith(
        "temperature 10.000 is at the limit of its range"
    )
