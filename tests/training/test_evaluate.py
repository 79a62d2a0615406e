"""Logits of every clip once and in order, and what the summary says of saved ones."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.datasets.reader import Examples
from audiotag_jax.evaluation.predictions import load_predictions
from audiotag_jax.models.build import build_model
from audiotag_jax.runtime.files import write_npz
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training.evaluate import format_summary, is_finished, predict_logits, save_predictions, summarize
from audiotag_jax.training.experiment import Experiment, Programs
from audiotag_jax.training.state import TrainState
from audiotag_jax.training.steps import AXIS, StepSettings, pmapped_steps, replicate
from configs import default

CLASSES, NUM_CLIPS, IMAGE_SHAPE = 5, 21, (32, 32, 1)


def make_examples(seed: int, num_clips: int) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples(
        ids=np.array([f"{seed}-{n:02d}" for n in range(num_clips)]),
        inputs=rng.uniform(size=(num_clips, *IMAGE_SHAPE)).astype(np.float16),
        labels=rng.integers(0, CLASSES, num_clips),
        folds=np.arange(num_clips) % 3,
        verified=rng.uniform(size=num_clips) < 0.5,
    )


@pytest.fixture(scope="module")
def model():
    return build_model("small", CLASSES, width=2, dropout=0.5, axis_name=AXIS)


@pytest.fixture(scope="module")
def variables(model):
    """Drawn, none of them the 0 or 1 of initialization."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *IMAGE_SHAPE)), False))

    def draw(leaf):
        if leaf.ndim > 1:
            return rng.normal(0, np.sqrt(2 * leaf.shape[-1] / leaf.size), leaf.shape).astype(np.float32)
        return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


@pytest.fixture(scope="module")
def state(model, variables) -> TrainState:
    step, params, stats = np.int32(0), variables["params"], variables["batch_stats"]
    return replicate(TrainState(step, model.apply, params, tx=None, opt_state=(), batch_stats=stats))


@pytest.fixture(scope="module")
def eval_step():
    return pmapped_steps(StepSettings(CLASSES))[1]


@pytest.fixture(params=[False, True], ids=["stream", "device"])
def experiment(request, model, eval_step) -> Experiment:
    """Of batches of eight clips, one a device, from three folds, with a test split of three clips."""
    config = default.get_config("demo")
    config.train.batch_size = 8
    programs = Programs((), model, None, {}, None, eval_step)
    metadata = {"classes": [f"class {k}" for k in range(CLASSES)], "problems": []}
    folds = (0, 1, 2)
    made = Experiment(
        parse_settings(config),
        Path("nowhere"),
        metadata,
        make_examples(0, NUM_CLIPS),
        request.param,
        folds,
        folds,
        2,
        programs,
    )
    vars(made)["recordings"] = {"0-01": "r", "0-04": "r"}
    vars(made)["test_examples"] = make_examples(1, 3)  # read from disk otherwise
    return made


@pytest.fixture(scope="module")
def directly(model, variables):
    """Logits of images by the network itself, all at once."""
    apply = jax.jit(lambda images: model.apply(variables, images, train=False))
    padded = jnp.zeros((NUM_CLIPS, *IMAGE_SHAPE))  # compiled once
    return lambda images: np.asarray(apply(padded.at[: len(images)].set(images)))[: len(images)]


@pytest.mark.parametrize("count", [NUM_CLIPS, 16, 1])
def test_logits_are_the_network_s_in_the_order_asked_for(experiment, state, directly, count):
    """The last batch of five, of eight, of one; in an order that is not the dataset's."""
    clips = np.random.default_rng(2).permutation(NUM_CLIPS)[:count]
    logits = predict_logits(experiment, state, experiment.examples, clips, "evaluating")
    assert (logits.shape, logits.dtype) == ((count, CLASSES), np.float32)
    expected = directly(experiment.examples.inputs[clips])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    if count > 1:
        assert np.abs(expected - expected[::-1]).max() > 0.01  # another order would show


def test_saved_predictions_are_the_fold_s_and_the_test_split_s(experiment, state, directly, tmp_path):
    (tmp_path / "fold_1").mkdir()
    assert not is_finished(experiment, tmp_path, 1)
    save_predictions(experiment, tmp_path, 1, functools.partial(predict_logits, experiment, state))
    assert is_finished(experiment, tmp_path, 1)
    examples, test = experiment.examples, experiment.test_examples
    for name, source, clips in (
        ("predictions", examples, np.flatnonzero(examples.folds == 1)),
        ("test_predictions", test, np.arange(3)),
    ):
        saved = load_predictions(tmp_path / f"fold_1/{name}.npz")
        np.testing.assert_allclose(saved["logits"], directly(source.inputs[clips]), rtol=1e-4, atol=1e-4)
        for field in ("ids", "labels", "verified"):
            np.testing.assert_array_equal(saved[field], getattr(source, field)[clips])
        expected = [experiment.recordings.get(clip, "") for clip in saved["ids"].tolist()]
        np.testing.assert_array_equal(saved["recordings"], expected)
    (tmp_path / "fold_1/test_predictions.npz").unlink()
    assert not is_finished(experiment, tmp_path, 1)


def test_predictions_of_an_earlier_release_get_their_recordings_from_the_source(experiment, tmp_path):
    (tmp_path / "fold_0").mkdir()
    fields = {"ids": experiment.examples.ids[:5], "labels": np.zeros(5, int), "verified": np.ones(5, bool)}
    logits = np.eye(5, CLASSES, dtype=np.float32)
    write_npz(tmp_path / "fold_0/predictions.npz", logits=logits, **fields)
    vars(experiment)["test_examples"] = None
    assert summarize(experiment, tmp_path, (0,))["validation"]["all"]["num_recordings"] == 4  # two of five are one


def test_a_summary_of_some_folds_names_the_others(experiment, tmp_path, monkeypatch):
    """Fold 0 has nothing verified, so no score of it; fold 2 is right in all three."""
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_2").mkdir()
    labels = np.array([0, 1, 2])
    for fold, order in ((0, -1), (2, 1)):
        logits = np.eye(CLASSES, dtype=np.float32)[labels][::order]
        fields = {"ids": np.array([f"{fold}-{n}" for n in labels]), "labels": labels, "verified": labels < fold}
        for name in ("predictions", "test_predictions"):
            write_npz(tmp_path / f"fold_{fold}/{name}.npz", logits=logits, **fields)
    vars(experiment)["test_examples"] = None
    summary = json.loads(json.dumps(summarize(experiment, tmp_path, (0, 2))))
    assert summary["missing_folds"] == [1]
    assert "test" not in summary
    accuracy = [each["all"]["accuracy"]["value"] for each in (summary["validation"], *summary["folds"])]
    assert accuracy == pytest.approx([4 / 6, 1 / 3, 1])
    assert summary["folds"][0]["verified"]["accuracy"]["value"] is None
    text = format_summary(summary).splitlines()
    assert text[-1] == "folds not trained yet: 1"
    assert text[-2].startswith("warning: no better than guessing: accuracy 0.667 (0.333 to 1.000)")
    assert text[-2].endswith("the most frequent class has 0.333")
    assert [line.split()[:3] for line in text[2:-2]] == [
        ["held", "out", "all"],
        ["held", "out", "verified"],
        ["fold", "0", "all"],
        ["fold", "2", "all"],
    ]
    assert text[2].split()[3] == "6" and "0.667 (" in text[2]
    assert [each["name"] for each in summary["folds"]] == ["0", "2"]
    monkeypatch.setitem(experiment.metadata, "fold_names", ["1", "2", "speaker B"])
    summary = summarize(experiment, tmp_path, (0, 2))
    assert [each["name"] for each in summary["folds"]] == ["1", "speaker B"]
    assert "names of the folds in the data: 0 is '1', 2 is 'speaker B'" in format_summary(summary).splitlines()
