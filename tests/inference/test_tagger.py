"""The tagger says of a clip what the evaluation of its run said, from the run's directory alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import random_runs
import scipy.special

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.audio.decode import load_audio
from audiotag_jax.evaluation.calibration import fit_temperature
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
