"""Weights that have seen a clip are never scored on it, whatever run, source or ancestor they come from."""

import json

import pytest

from audiotag_jax.datasets.prepare import clip_digests
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training.initial_weights import (
    SEEN,
    check_initial_weights,
    clips_seen,
    record_seen,
    resolve_init_from,
)
from configs import log_db


@pytest.fixture
def config(tmp_path):
    """Starts from a run that was trained on a and b."""
    config = log_db.get_config("demo")
    config.model.init_from = f"{tmp_path}/run/fold_{{fold}}"
    (tmp_path / "run/fold_0/checkpoints").mkdir(parents=True)
    (tmp_path / "run/fold_0" / SEEN).write_text(json.dumps(["a", "b"]))
    return config


def test_clips_it_was_trained_on_are_not_scored(config):
    check_initial_weights(parse_settings(config).model, 0, {"c": "c.wav", "d": "d.wav"})
    with pytest.raises(UserError, match=r"was trained on 1 clips that fold 0 holds out or tests, such as 2\.wav\.\n"):
        check_initial_weights(parse_settings(config).model, 0, {"b": "2.wav", "c": "3.wav"})


def test_what_came_before_counts_too(config, tmp_path):
    record_seen(tmp_path, parse_settings(config).model, 0, ["c", "b"])
    assert json.loads((tmp_path / SEEN).read_text()) == ["a", "b", "c"]
    (tmp_path / "checkpoints").mkdir()
    config.model.init_from = str(tmp_path)
    with pytest.raises(UserError, match="such as a"):
        check_initial_weights(parse_settings(config).model, 3, {"a": "a.wav"})


def test_checkpoints_may_be_named_themselves(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "run/fold_0")
    config.model.init_from = "checkpoints"
    assert clips_seen(parse_settings(config).model, 5) == {"a", "b"}


def test_without_a_record_nothing_is_believed(config, tmp_path):
    (tmp_path / "run/fold_0" / SEEN).unlink()
    with pytest.raises(UserError, match=r"clips_seen\.json does not list the clips"):
        check_initial_weights(parse_settings(config).model, 0, {"z": "z.wav"})
    with pytest.raises(UserError, match=r"there is no folder .*run/fold_4"):
        check_initial_weights(parse_settings(config).model, 4, {})


def test_random_weights_have_seen_nothing(tmp_path):
    config = log_db.get_config("demo")
    record_seen(tmp_path, parse_settings(config).model, 0, ["x"])
    assert json.loads((tmp_path / SEEN).read_text()) == ["x"]


def test_a_file_of_weights_must_be_there(config, tmp_path, monkeypatch):
    config.model.name, config.model.init_from, config.model.pretrained = "resnet18", "", "~/weights.safetensors"
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"pretrained: there is no file ~/weights\.safetensors"):
        check_initial_weights(parse_settings(config).model, 0, {"a": "a.wav"})
    (tmp_path / "weights.safetensors").touch()
    check_initial_weights(parse_settings(config).model, 0, {"a": "a.wav"})
    assert resolve_init_from("~/run/fold_{fold}", 0) == tmp_path / "run/fold_0/checkpoints"


def test_a_recording_is_known_by_its_contents(tmp_path):
    """Under another name, in another folder, in another fold: what lies in it decides."""
    sounds = {"one/dog/a.wav": b"x" * 40000, "one/rain/b.wav": b"y" * 40000, "two/dog/c.wav": b"x" * 40000}
    sounds |= {"two/rain/b.wav": b"y" * 39999 + b"z", "two/rain/d.wav": b"y" * 30000}
    for name, contents in sounds.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    config = log_db.get_config("folder")
    config.dataset.num_folds = 2
    config.dataset.path = str(tmp_path / "one")
    one = clip_digests(parse_settings(config).dataset)
    config.dataset.path = str(tmp_path / "two")
    two = clip_digests(parse_settings(config).dataset)
    assert one["dog/a.wav"] == two["dog/c.wav"]
    assert len({*one.values(), *two.values()}) == 4
