"""Weights that have seen a clip are never scored on it, whatever run, source or ancestor they come from."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiotag_jax.datasets.digests import digests, earlier_digests, has_earlier_digests
from audiotag_jax.datasets.prepare import prepare_run_clips
from audiotag_jax.datasets.reader import read_split
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.record import FILE_NAME, read_record
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.study import run as study
from audiotag_jax.training import train
from audiotag_jax.training.initial_weights import (
    SEEN,
    check_initial_weights,
    check_pretrained,
    clips_seen,
    pretrained_on,
    record_seen,
    resolve_init_from,
)
from audiotag_jax.training.workdir import record_config
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


def test_a_mistyped_folder_is_found_before_anything_is_prepared(config, tmp_path):
    config.model.init_from = f"{tmp_path}/run [1]/fold_{{fold}}"
    config.dataset.prepared_dir = str(tmp_path / "prepared")
    with pytest.raises(UserError, match=r"init_from: there is no folder .*/run \[1\]/fold_\{fold\}"):
        train.run(parse_settings(config), tmp_path / "new")
    with pytest.raises(UserError, match="init_from: there is no folder"):
        study.run(parse_settings(config), tmp_path / "study")
    assert not (tmp_path / "prepared").exists()
    (tmp_path / "run [1]/fold_3").mkdir(parents=True)
    check_pretrained(parse_settings(config).model)
    config.model.init_from = "/"
    check_pretrained(parse_settings(config).model)


def write_noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(400), 4000)


@pytest.fixture
def opened(tmp_path):
    """Examples of the folders `one` and `two`, which share a sound under other names, labels and folders."""
    for name, seed in {"one/dog/a": 0, "one/rain/b": 1, "two/dog/c": 1, "two/rain/b": 2, "two/rain/d": 3}.items():
        write_noise(tmp_path / f"{name}.wav", seed)

    def opened(name):
        config = log_db.get_config("folder")
        config.dataset.num_folds, config.dataset.prepared_dir = 2, str(tmp_path / "prepared")
        config.dataset.sample_rate_hz, config.dataset.duration_s = 4000, 0.1
        config.dataset.path = str(tmp_path / name)
        settings = parse_settings(config)
        return settings.dataset, read_split(prepare_run_clips(settings), "train")

    return opened


def test_a_recording_is_known_by_its_contents(opened):
    (_, one), (_, two) = opened("one"), opened("two")
    first, second = digests(one, np.arange(2)), digests(two, np.arange(3))
    common = first.keys() & second.keys()
    assert [(first[each], second[each]) for each in common] == [("rain/b.wav", "dog/c.wav")]
    assert len(first.keys() | second.keys()) == 4 and not has_earlier_digests(first)
    unknown = dataclasses.replace(one, sounds=np.array([b"", b""]))
    assert digests(unknown, np.arange(1)) == {"dog/a.wav": "dog/a.wav"}


def test_clips_that_a_run_of_an_earlier_release_has_seen_are_found(opened, tmp_path):
    """Its digests are of a file's size, beginning and end, so the recordings are read for them."""
    dataset, examples = opened("one")
    path = tmp_path / "one/rain/b.wav"
    data = path.read_bytes()
    seen = hashlib.sha256(b"%d " % len(data) + data + data[-16384:]).hexdigest()[:16]
    assert has_earlier_digests([seen]) and not has_earlier_digests(["sha256:" + seen, "a.wav"])
    assert earlier_digests(dataset, set(examples.ids.tolist()))[seen] == "rain/b.wav"
    assert seen not in earlier_digests(dataset, {"dog/a.wav"})
    with pytest.raises(UserError, match="earlier release, so the recordings are needed"):
        earlier_digests(dataset, {"rain/moved.wav"})


def test_the_record_and_the_summary_state_what_published_weights_were_trained_on(config, tmp_path):
    """Also those before the run that the weights come from; of a run from random weights there is nothing to state."""
    model = parse_settings(config).model
    assert pretrained_on(model) == ""
    (tmp_path / "run" / FILE_NAME).write_text(json.dumps({"pretrained_on": "AudioSet"}))
    assert pretrained_on(model) == "AudioSet"
    assert pretrained_on(dataclasses.replace(model, init_from=f"{tmp_path}/run/fold_0/checkpoints")) == "AudioSet"
    (tmp_path / "next").mkdir()
    record_config(tmp_path / "next", parse_settings(config), ["a", "b"], "name")
    assert read_record(tmp_path / "next").pretrained_on == "AudioSet"
    (tmp_path / "run" / FILE_NAME).rename(tmp_path / "away.json")  # the record outlives the run that it names
    record_config(tmp_path / "next", parse_settings(config), ["a", "b"], "name")
    assert read_record(tmp_path / "next").pretrained_on == "AudioSet"
    for name, source, words in (
        ("yamnet", "yamnet", "AudioSet: two million"),
        ("yamnet", "weights.h5", "AudioSet: two million"),
        ("efficientnet_lite0", "imagenet", "ImageNet .*: 1.28 million photographs"),
        ("resnet18", "weights.pth", "unknown data .*, maybe on clips that are held out"),
    ):
        published = dataclasses.replace(model, name=name, init_from="", pretrained=source)
        assert re.match(words, pretrained_on(published))


def test_a_run_whose_weights_are_missing_prepares_nothing(tmp_path):
    config = log_db.get_config("folder_finetune")
    config.model.pretrained = "gone.safetensors"
    config.dataset.path = str(tmp_path / "missing_too")
    with pytest.raises(UserError, match=r"pretrained: there is no file gone\.safetensors"):
        train.run(parse_settings(config), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
