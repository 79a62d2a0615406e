"""A work directory belongs to one run; its metrics never hold a step twice."""

import json
import re
import struct
import time

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from audiotag_jax.evaluation.metrics import METRICS
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.record import FREE_FIELDS, fold_dir, load_record, read_record
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training import workdir
from audiotag_jax.training.workdir import MetricsWriter, record_config
from configs import default

CLASSES = ["bark", "meow"]
VALID = {  # other values of fields of which only some are valid
    "spectral.channels": ("mel_db",),
    "spectral.window_samples": 1024,
    "model.name": "resnet18",
    "model.dtype": "bfloat16",
    "model.normalization": "imagenet",
    "dataset.input": "stream",
    "dataset.on_the_fly": True,
    "dataset.margin_s": 0.5,
    "train.probe_pooling": "mean_std",
    "dataset.label_separator": ",",
    "train.loss": "focal",
    "train.class_weights": "balanced",
    "train.sampling": "balanced",
}


@pytest.fixture
def config():
    return default.get_config("demo")


def fields(config, prefix=""):
    """Every field's name, as the command line writes it."""
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def change(config, name):
    """Another value of the field's own type."""
    value = config
    for part in name.split("."):
        value = value[part]
    other = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: 0.5 * v + 0.1, str: lambda v: v + "x"}
    new = (3,) if isinstance(value, tuple) else other[type(value)](value)
    config.update_from_flattened_dict({name: VALID.get(name, new)})


# Whose the directory is.


def test_same_run_may_claim_again(tmp_path, config):
    record_config(tmp_path, parse_settings(config), CLASSES, "fingerprint")
    before = (tmp_path / "config.json").read_bytes()
    record_config(tmp_path, parse_settings(default.get_config("demo")), CLASSES, "fingerprint")
    assert (tmp_path / "config.json").read_bytes() == before
    record = read_record(tmp_path)
    assert record.classes == tuple(CLASSES)
    assert record.dataset == "fingerprint"
    assert record.settings.optimizer.beta2 == config.optimizer.beta2


def test_processes_that_differ_say_so_before_either_writes(tmp_path, config, monkeypatch):
    """The later one would else find the earlier one's run, and be alone with its error."""
    asked = []
    monkeypatch.setattr(workdir, "all_processes_equal", lambda text: asked.append(text))
    with pytest.raises(UserError, match="same flags and the same data"):
        record_config(tmp_path, parse_settings(config), CLASSES, "fingerprint")
    assert len(asked) == 1 and "fingerprint" in asked[0] and not (tmp_path / "config.json").exists()


def test_every_field_is_free_or_named(tmp_path, config):
    record_config(tmp_path, parse_settings(config), CLASSES, "fingerprint")
    names = [name for name in fields(config) if not name.startswith("study.")]  # of many runs, not of one
    assert set(FREE_FIELDS) < set(names) < set(fields(config))
    for name in names:
        changed = default.get_config("demo")
        if name in ("dataset.margin_s", "model.pretrained"):  # not valid without another field
            changed.update_from_flattened_dict({"dataset.on_the_fly": True, "model.name": "resnet18"})
        if name == "train.probe":
            changed.update_from_flattened_dict({"model.name": "resnet18", "model.pretrained": "weights.pth"})
        if name == "dataset.label_separator":
            changed.dataset.table = "clips.csv"
        change(changed, name)
        if name in FREE_FIELDS:
            record_config(tmp_path, parse_settings(changed), CLASSES, "fingerprint")
        else:
            with pytest.raises(
                UserError, match=rf"contains another run; different: .*{name} \(there .*\)\.\n.*--workdir"
            ):
                record_config(tmp_path, parse_settings(changed), CLASSES, "fingerprint")


def test_many_changes_are_cut_short(tmp_path, config):
    record_config(tmp_path, parse_settings(config), CLASSES, "fingerprint")
    for name in ("seed", "name", "train.batch_size", "model.width", "model.dropout", "optimizer.beta2"):
        change(config, name)
    with pytest.raises(UserError) as caught:
        record_config(tmp_path, parse_settings(config), CLASSES, "fingerprint")
    message = str(caught.value)
    named = re.findall(r"([\w.]+) \(there", message)
    assert named == ["model.dropout", "model.width", "name", "optimizer.beta2", "seed"]
    assert ", …." in message
    assert len(message.splitlines()) == 2


def test_a_run_with_another_field_is_of_another_version(tmp_path, config):
    record_config(tmp_path, parse_settings(config), CLASSES, "fingerprint")
    record = load_record(tmp_path)
    record["config"]["train"]["speed"] = 1
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"config\.json: .*another version of the code, with the unknown train\.speed"):
        record_config(tmp_path, parse_settings(config), CLASSES, "fingerprint")


def test_a_record_of_the_first_format_is_continued_whatever_its_dataset_was_called(tmp_path, config):
    """Its datasets were named after the text of the code, which nothing can compare any more."""
    record_config(tmp_path, parse_settings(config), CLASSES, "old")
    record = load_record(tmp_path)
    del record["format"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert read_record(tmp_path).dataset is None
    with pytest.raises(UserError, match="other data"):
        record_config(tmp_path, parse_settings(config), CLASSES[::-1], "new")  # its logits are of other classes
    record_config(tmp_path, parse_settings(config), CLASSES, "new")
    assert read_record(tmp_path).dataset == "new"


@pytest.mark.parametrize("name", ["fold_0/checkpoints/5", "fold_0/predictions.npz", "metrics.jsonl"])
def test_training_replaces_the_record_of_a_run_that_trained_nothing(tmp_path, config, name):
    """As after a start without the weights that the settings name."""
    record_config(tmp_path, parse_settings(config), CLASSES, "first", trained_on={})
    (tmp_path / "fold_0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").touch()  # opened, and no step yet
    change(config, "seed")
    with pytest.raises(UserError, match="contains another run"):  # evaluation asks for the recorded run
        record_config(tmp_path, parse_settings(config), CLASSES, "first")
    record_config(tmp_path, parse_settings(config), CLASSES[::-1], "second", trained_on={})
    assert read_record(tmp_path).dataset == "second"
    if name.endswith("5"):
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(UserError, match="other data"):
        record_config(tmp_path, parse_settings(config), CLASSES, "third", trained_on={})
    change(config, "seed")
    with pytest.raises(UserError, match="contains another run"):
        record_config(tmp_path, parse_settings(config), CLASSES[::-1], "second", trained_on={})


def test_changed_data_is_another_run(tmp_path, config):
    record_config(tmp_path, parse_settings(config), CLASSES, "fingerprint")
    with pytest.raises(UserError, match="other data"):
        record_config(tmp_path, parse_settings(config), CLASSES, "other")


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="config.json is missing"):
        read_record(tmp_path)


@pytest.mark.parametrize("text", ['{"config": {', "[1]", '{"config": {}}', "null", "\xff"])
def test_record_of_something_else(tmp_path, config, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    for action in (
        lambda: read_record(tmp_path),
        lambda: record_config(tmp_path, parse_settings(config), CLASSES, "fingerprint"),
    ):
        with pytest.raises(UserError, match=r"config.json .*\n.*--workdir") as caught:
            action()
        assert len(str(caught.value).splitlines()) == 2


def test_fold_dir(tmp_path):
    assert fold_dir(tmp_path, 3) == tmp_path / "fold_3"


# The metrics.


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def write(workdir, fold, first_step, steps, **values):
    with MetricsWriter(workdir, fold, first_step) as writer:
        for step in steps:
            writer.write(step, "train", values or {"loss": float(step)})


def test_metrics_are_scalars_by_fold_step_and_split(tmp_path):
    with MetricsWriter(tmp_path, 2, 0) as writer:
        writer.write(1, "train", {"loss": np.float32(0.5), "accuracy": np.array(0.25)})
        assert len(lines(tmp_path)) == 1  # at once, not when the file is closed
        writer.write(1, "validation", {"loss": 3})
    assert lines(tmp_path) == [
        {"fold": 2, "step": 1, "split": "train", "loss": 0.5, "accuracy": 0.25},
        {"fold": 2, "step": 1, "split": "validation", "loss": 3.0},
    ]


def test_continued_run_overwrites_what_came_after_its_checkpoint(tmp_path):
    write(tmp_path, 0, 0, range(1, 8))
    write(tmp_path, 0, 5, [6, 7, 8], loss=-1.0)
    found = [(line["step"], line["loss"]) for line in lines(tmp_path)]
    assert found == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, -1), (7, -1), (8, -1)]


def test_run_from_the_start_drops_its_own_fold_alone(tmp_path):
    write(tmp_path, 0, 0, [1, 2, 3])
    write(tmp_path, 1, 0, [1, 2, 3])
    write(tmp_path, 0, 0, [1])
    assert [(line["fold"], line["step"]) for line in lines(tmp_path)] == [(1, 1), (1, 2), (1, 3), (0, 1)]


@pytest.mark.parametrize("broken", ['{"fold": 1, "st', '{"fold": 1, "step": 3, "split": "train", "loss": 1.2', "{", ""])
def test_broken_last_line_is_dropped(tmp_path, broken):
    write(tmp_path, 0, 0, [1, 2])
    write(tmp_path, 1, 0, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(broken)  # without an end of line, as a killed process leaves it
    write(tmp_path, 1, 1, [2, 3])
    found = [(line["fold"], line["step"]) for line in lines(tmp_path)]
    assert found == [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]


def test_whole_last_line_without_its_end_is_kept_apart(tmp_path):
    write(tmp_path, 0, 0, [1])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    write(tmp_path, 0, 1, [2])
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_metrics_that_are_not_finite_survive(tmp_path):
    write(tmp_path, 0, 0, [1], loss=np.float32(np.nan), norm=np.inf)
    write(tmp_path, 0, 1, [2])
    assert np.isnan(lines(tmp_path)[0]["loss"])
    assert lines(tmp_path)[0]["norm"] == np.inf


def test_tensorboard_events_lie_beside_them(tmp_path):
    write(tmp_path, 0, 0, [1, 2])
    write(tmp_path, 1, 0, [1])
    for fold in (0, 1):
        events = list((tmp_path / "tensorboard" / f"fold_{fold}").glob("events.out.tfevents.*"))
        assert len(events) == 1
        assert b"train/loss" in events[0].read_bytes()


def events_in(path):
    """The events of a file in TFRecord format: length, its checksum, bytes, their checksum."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
        place += length + 16


def test_tensorboard_has_losses_and_scores_apart_from_diagnostics(tmp_path):
    train = {"loss": 1, "accuracy": 0.5, "learning_rate_head": 0.1, "gradient_norm_late": 2, "clips_per_second": 9}
    with MetricsWriter(tmp_path, 0, 0) as writer:
        writer.write(1, "train", train)
        writer.write(1, "validation", {"loss": 3, **{each.name: 0 for each in METRICS}})
    [path] = (tmp_path / "tensorboard/fold_0").iterdir()
    tags = {value.tag for event in events_in(path) for value in event.summary.value}
    assert tags == {
        *("train/loss", "train/accuracy", "validation/loss"),
        *(f"validation/{name}" for name in ("top3_error", "accuracy", "map_at_3")),
        *(f"watch/{name}" for name in ("learning_rate_head", "gradient_norm_late", "clips_per_second")),
    }


def test_tensorboard_purges_what_came_after_the_checkpoint(tmp_path):
    """TensorBoard forgets earlier events whose step is not below that of a session's start."""
    write(tmp_path, 0, 0, range(1, 8))
    time.sleep(1.1)  # files are named by the second
    write(tmp_path, 0, 5, [6, 7, 8], loss=-1.0)
    files = sorted((tmp_path / "tensorboard" / "fold_0").iterdir())
    assert len(files) == 2
    shown = {}
    for event in (event for file in files for event in events_in(file)):
        if event.session_log.status == event_pb2.SessionLog.START:
            shown = {step: value for step, value in shown.items() if step < event.step}
        for value in event.summary.value:
            assert event.step not in shown
            shown[event.step] = value.simple_value
    assert shown == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: -1, 7: -1, 8: -1}
