"""Probes: the classifier against scikit-learn, features computed once, and runs that need only their folder."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import random_runs
import scipy.special
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.audio.decode import load_audio
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.models.head import POOLINGS, pool_features
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.spectral.front_end import normalize, to_images
from audiotag_jax.study import report
from audiotag_jax.study import run as study
from audiotag_jax.training import checkpoints, evaluate, frozen_body, frozen_features, train
from audiotag_jax.training.experiment import open_experiment
from audiotag_jax.training.initial_weights import SEEN, initial_body
from audiotag_jax.training.probe import fit_probe

PENALTY = 3.0


@pytest.fixture(scope="module")
def pretrained(folder, tmp_path_factory) -> Path:
    """The fold of a run that has seen none of the sounds. To read, not to write."""
    config = random_runs.tiny_config(folder)
    config.train.folds = (0,)
    workdir = random_runs.make_run(config, tmp_path_factory.mktemp("pretrained") / "run")
    (workdir / "fold_0" / SEEN).write_text("[]")
    return workdir / "fold_0"


@pytest.fixture(scope="module")
def base(folder, pretrained) -> ConfigDict:
    config = random_runs.tiny_config(folder)
    config.dataset.num_folds = 3
    config.model.init_from = str(pretrained)
    config.model.normalization = "imagenet"
    config.train.probe = True
    config.optimizer.probe_penalty = PENALTY
    config.train.probe_power = 0.5
    return config


@pytest.fixture
def config(base) -> ConfigDict:
    return base.copy_and_resolve_references()


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory) -> Path:
    """To read, not to write."""
    workdir = tmp_path_factory.mktemp("probes") / "finished"
    train.run(parse_settings(base), workdir)
    return workdir


@pytest.fixture
def uncached(config, tmp_path) -> ConfigDict:
    """With the prepared datasets, but without features."""
    shutil.copytree(config.dataset.prepared_dir, tmp_path / "prepared")
    shutil.rmtree(tmp_path / "prepared" / frozen_features.FOLDER, ignore_errors=True)
    config.dataset.prepared_dir = str(tmp_path / "prepared")
    return config


def predictions(workdir: Path, fold: int) -> dict[str, np.ndarray]:
    with np.load(workdir / f"fold_{fold}" / "predictions.npz") as saved:
        return dict(saved)


def no_computing(*_):
    raise AssertionError("features are computed again")


@pytest.mark.parametrize("penalty", [0.3, 3.0, 100.0])
def test_the_classifier_is_that_of_scikit_learn(penalty, num_features=60):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 50)
    features = 3 + rng.standard_normal((50, num_features)) + 2 * rng.standard_normal((4, num_features))[labels]
    weights = rng.choice([0.3, 1.0], 50)
    probe, metrics = fit_probe(features, np.eye(4)[labels], weights, penalty)
    scaler = StandardScaler().fit(features)
    reference = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10_000)
    reference.fit(scaler.transform(features), labels, sample_weight=weights)
    new = 3 + 2 * rng.standard_normal((20, num_features))
    found, expected = probe.logits(new), reference.decision_function(scaler.transform(new))
    centred = found - found.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(centred, expected - expected.mean(axis=1, keepdims=True), rtol=0, atol=2e-3)
    log_probabilities = reference.predict_log_proba(scaler.transform(features))[np.arange(50), labels]
    assert metrics["loss"] == pytest.approx(-np.average(log_probabilities, weights=weights), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("penalty", [1.0, 30.0])
def test_of_several_labels_each_class_is_scikit_learn_s_against_the_rest(penalty):
    rng = np.random.default_rng(0)
    rates = np.array([0.1, 0.3, 0.6, 0.05])
    labels = rng.random((120, 4)) < rates
    features = 3 + rng.standard_normal((120, 30)) + labels @ rng.standard_normal((4, 30))
    weights = rng.choice([0.3, 1.0], 120)
    masses = np.stack([labels, ~labels], axis=-1).astype(float)
    probe, metrics = fit_probe(features, masses, weights, penalty)
    scaler = StandardScaler().fit(features)
    new = scaler.transform(3 + 2 * rng.standard_normal((20, 30)))
    losses = []
    for k in range(4):
        reference = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10_000)
        reference.fit(scaler.transform(features), labels[:, k], sample_weight=weights)
        found = probe.logits(scaler.inverse_transform(new))[:, k]
        np.testing.assert_allclose(found, reference.decision_function(new), rtol=0, atol=5e-3)
        log_probabilities = reference.predict_log_proba(scaler.transform(features))
        losses.append(-np.average(log_probabilities[np.arange(120), labels[:, k].astype(int)], weights=weights))
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-3)


def test_a_feature_without_variance_changes_nothing():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((50, 60)).astype(np.float32)
    features[:, 7] = 0.1
    probe, _ = fit_probe(features, np.eye(4)[np.arange(50) % 4], np.ones(50), 1.0)
    assert not probe.kernel[7].any() and probe.kernel[:7].all()
    changed = features.copy()
    changed[:, 7] = 1e6
    np.testing.assert_array_equal(probe.logits(changed), probe.logits(features))


def test_pooling_agrees_with_numpy():
    features = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    flat = features.reshape(2, 12, 5)
    expected = {"mean": [], "mean_std": [flat.std(1)], "mean_max": [flat.max(1)]}
    assert tuple(expected) == POOLINGS
    for pooling, others in expected.items():
        found = pool_features(features, pooling)
        np.testing.assert_allclose(found, np.hstack([flat.mean(1), *others]), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="choose from mean, mean_std, mean_max"):
        pool_features(features, "median")


def test_a_run_is_scikit_learn_on_features_of_the_body(config, finished, pretrained):
    """The held-out logits of each fold, from features that the test computes by itself."""
    settings = parse_settings(config)
    experiment = open_experiment(settings)
    _, arrays, _ = checkpoints.read_arrays(pretrained / "checkpoints")
    network = settings.model.network(len(experiment.classes))
    images = normalize(to_images(experiment.examples.load_inputs(), settings.front_end), settings.front_end)
    body = {kind: {"body": arrays[kind]["body"]} for kind in ("params", "batch_stats")}
    features = np.asarray(network.apply(body, images, method="features")).mean((1, 2))
    features = np.sign(features) * np.sqrt(np.abs(features))
    labels, folds = experiment.examples.labels, experiment.examples.folds
    for fold in (0, 1, 2):
        scaler = StandardScaler().fit(features[folds != fold])
        reference = LogisticRegression(C=1 / PENALTY, tol=1e-8, max_iter=10_000)
        reference.fit(scaler.transform(features[folds != fold]), labels[folds != fold])
        expected = reference.predict_log_proba(scaler.transform(features[folds == fold]))
        saved = predictions(finished, fold)
        assert saved["ids"].tolist() == experiment.examples.ids[folds == fold].tolist()
        found = scipy.special.log_softmax(saved["logits"], axis=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2)
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["probe"] and summary["validation"]["all"]["num_clips"] == random_runs.NUM_CLIPS
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 6  # training and validation of three folds


def test_the_seed_and_the_search_use_the_same_features_and_the_seed_changes_nothing(
    config, finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(frozen_features, "_compute", no_computing)
    config.seed = 1
    train.run(parse_settings(config), tmp_path / "seed")
    for fold in (0, 1, 2):
        np.testing.assert_array_equal(
            predictions(tmp_path / "seed", fold)["logits"], predictions(finished, fold)["logits"]
        )
    config.train.inner_split, config.optimizer.probe_penalty = True, 10.0
    train.run(parse_settings(config), tmp_path / "trial")
    assert predictions(tmp_path / "trial", 0)["ids"].tolist() == predictions(finished, 1)["ids"].tolist()


def test_interrupted_it_continues_with_the_features_it_has_and_replaces_damaged_ones(
    uncached, finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(frozen_features, "_CHUNK", 4)  # of 14 clips: four files
    read = []

    def counted(path, ids, features):
        if len(read) == 2:
            read.append(None)
            raise KeyboardInterrupt
        read.append(path.name)
        written(path, ids, features)

    written = frozen_features._write
    monkeypatch.setattr(frozen_features, "_write", counted)
    with pytest.raises(KeyboardInterrupt):
        train.run(parse_settings(uncached), tmp_path / "run")
    train.run(parse_settings(uncached), tmp_path / "run")
    names = [f"train_{start:06d}.npz" for start in (0, 4, 8, 12)]
    assert read == [*names[:2], None, *names[2:]]
    for fold in (0, 1, 2):
        expected = predictions(finished, fold)["logits"]
        np.testing.assert_allclose(predictions(tmp_path / "run", fold)["logits"], expected, rtol=0, atol=1e-3)
    [path] = Path(uncached.dataset.prepared_dir).glob(f"{frozen_features.FOLDER}/*/{names[1]}")
    path.write_bytes(path.read_bytes()[:100])
    uncached.train.folds = (0,)
    train.run(parse_settings(uncached), tmp_path / "other")
    assert read[5:] == [names[1]]
    np.testing.assert_array_equal(
        predictions(tmp_path / "other", 0)["logits"], predictions(tmp_path / "run", 0)["logits"]
    )


def test_interrupted_before_its_predictions_a_fold_is_not_fitted_again(config, finished, tmp_path, monkeypatch):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    (workdir / "fold_1" / "predictions.npz").unlink()
    monkeypatch.setattr("audiotag_jax.training.probe.fit_probe", None)
    train.run(parse_settings(config), workdir)
    for name in ("fold_1/predictions.npz", "summary.json", "metrics.jsonl"):
        assert (workdir / name).read_bytes() == (finished / name).read_bytes()


def test_evaluate_gives_the_same_predictions(config, finished, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    (workdir / "fold_0" / "predictions.npz").unlink()
    evaluate.run(parse_settings(config), workdir)
    assert (workdir / "fold_0" / "predictions.npz").read_bytes() == (finished / "fold_0/predictions.npz").read_bytes()


def test_the_tagger_needs_the_folder_alone_and_computes_the_body_once(folder, finished, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))  # of which nothing is linked any more
    for fold in (0, 1, 2):
        saved = predictions(workdir, fold)
        tagger = load_tagger(workdir, (fold,))
        recordings = [load_audio(folder / name, random_runs.RATE_HZ)[0] for name in saved["ids"]]
        clips = np.stack([crop_loudest(each, random_runs.LENGTH, random_runs.RATE_HZ // 2) for each in recordings])
        expected = scipy.special.softmax(saved["logits"] / tagger.temperature, axis=1)
        np.testing.assert_allclose(tagger.probabilities(clips), expected, rtol=0, atol=1e-4)
    together = load_tagger(workdir)
    assert together.shares_body
    single = [load_tagger(workdir, (fold,)) for fold in (0, 1, 2)]
    common = [np.log(np.asarray(each.probabilities(clips))) * each.temperature for each in single]
    expected = np.mean([scipy.special.softmax(each / together.temperature, axis=1) for each in common], axis=0)
    np.testing.assert_allclose(together.probabilities(clips), expected, rtol=0, atol=1e-5)


def test_a_body_that_changed_or_is_missing_is_found(finished, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    path = workdir / "fold_0" / "body.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="body.safetensors has changed since the probe was trained"):
        load_tagger(workdir)
    path.unlink()
    with pytest.raises(UserError, match="body.safetensors, is missing or damaged"):
        load_tagger(workdir)


def test_its_body_is_the_first_weights_of_other_runs(config, finished):
    """Of a fine-tuning and of vectors, which begin with the body that the probe was trained on."""
    settings = parse_settings(config)
    experiment = open_experiment(settings)
    body, shape = settings.model.network(len(experiment.classes)).body, experiment.image_shape
    _, _, expected = frozen_body.read_network(finished / "fold_1" / "checkpoints")
    model = dataclasses.replace(settings.model, init_from=f"{finished}/fold_{{fold}}")
    found = frozen_body.FrozenBody(initial_body(body, model, shape, 1))
    assert found.hash == expected


def test_a_probe_needs_a_network_that_has_learned_before(config):
    config.model.init_from = ""
    with pytest.raises(UserError, match=r"name it by config\.model\.pretrained or config\.model\.init_from"):
        parse_settings(config)


def test_a_study_of_probes_takes_one_seed_and_chooses_the_penalty(config, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(report, "write", lambda *arguments: calls.append(arguments))
    config.study.variants, config.study.seeds = ("log_db",), (0, 1)
    config.study.rate_factors = (0.1, 10.0)
    study.run(parse_settings(config), tmp_path / "study")
    said = capsys.readouterr().out
    assert "a probe draws nothing at random, so every seed gives the same; seed 0 alone" in said
    assert "probes: 3, 3 of them to do" in said
    assert "penalty x 0.1, 10 tried on inner splits: 6 trainings, 6 of them to do" in said
    [(_, _, runs, _, budget)] = calls
    assert [(run.variant, run.seed) for run in runs] == [("log_db", 0)]
    assert dict(budget)["penalty"] == "× 0.1, 10, chosen for each fold on an inner split"
    records = [json.loads(path.read_text()) for path in (tmp_path / "study").glob("search/*/config.json")]
    penalties = [record["config"]["optimizer"]["probe_penalty"] for record in records]
    assert sorted(penalties) == pytest.approx([0.1 * PENALTY, 10 * PENALTY])
