"""Whole runs on a few tiny sounds: what a work directory holds, and that an interruption leaves no trace."""

import csv
import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import soundfile
from ml_collections import ConfigDict

from audiotag_jax.runtime.errors import Stopped, UserError
from audiotag_jax.runtime.files import locked
from audiotag_jax.settings.settings import parse_settings, recorded_fields
from audiotag_jax.spectral.front_end import crop
from audiotag_jax.training import checkpoints, evaluate, loop, train
from audiotag_jax.training.input_pipeline import device_batch
from audiotag_jax.training.steps import replicate
from configs import log_db

RATE_HZ = 4000
CLASSES = ("bell", "bird", "dog", "rain", "sea")
NUM_TRAIN, NUM_TEST = 50, 6
NUM_STEPS, CHECKPOINT_STEPS = 8, 4  # 25 clips in batches of 16, 2 + 2 epochs


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict]:
    """The table of the sounds beside it: noises and tones, the last two test clips unlabelled."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    rows = []
    for n in range(NUM_TRAIN + NUM_TEST):
        name, label, split = f"{n:02d}.wav", CLASSES[n % 5], "train" if n < NUM_TRAIN else "test"
        tone = np.sin(2 * np.pi * 100 * 2 ** (n % 5) * np.arange(1600) / RATE_HZ)
        soundfile.write(folder / name, 0.2 * tone + 0.1 * rng.standard_normal(1600), RATE_HZ)
        label = "" if n >= NUM_TRAIN + NUM_TEST - 2 else label
        rows.append({"path": name, "label": label, "split": split, "verified": int(n % 3 > 0), "folder": folder})
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("path", "label", "split", "verified"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return rows


@pytest.fixture(scope="module")
def base_config(rows, tmp_path_factory) -> ConfigDict:
    config = log_db.get_config("folder")
    config.dataset.path = str(rows[0]["folder"])
    config.dataset.table = "clips.csv"
    config.dataset.prepared_dir = str(tmp_path_factory.mktemp("prepared"))
    config.dataset.sample_rate_hz = RATE_HZ
    config.dataset.duration_s = 0.3
    config.dataset.num_folds = 2
    config.spectral.num_frames = config.spectral.num_bins = 32
    config.spectral.window_samples = config.spectral.fft_samples = 256
    config.model.width = 4
    config.train.batch_size = 16
    config.train.frozen_epochs = config.train.num_epochs = 2
    config.train.log_every_steps = config.train.checkpoint_every_epochs = 2
    config.train.evaluate_every_epochs = 2
    return config


@pytest.fixture
def config(base_config) -> ConfigDict:
    return base_config.copy_and_resolve_references()


@pytest.fixture(scope="module")
def finished(base_config, tmp_path_factory) -> Path:
    """The work directory of a run that nothing disturbed. To read, not to write."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    train.run(parse_settings(base_config), workdir)
    return workdir


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as saved:
        return dict(saved)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def last_state(workdir: Path, fold: int) -> dict:
    """The latest checkpoint of a fold as numpy arrays."""
    checkpoints = workdir / f"fold_{fold}" / "checkpoints"
    step = max(int(path.name) for path in checkpoints.iterdir())
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.map(np.asarray, checkpointer.restore(checkpoints.absolute() / str(step) / "state"))


def assert_same_run(workdir: Path, other: Path) -> None:
    """Bit for bit: parameters and all other state, logits, summary, submission, and every line of the metrics."""
    for fold in (0, 1):
        jax.tree.map(np.testing.assert_array_equal, last_state(workdir, fold), last_state(other, fold))
        for name in ("predictions.npz", "test_predictions.npz"):
            one, two = (load(each / f"fold_{fold}" / name) for each in (workdir, other))
            assert one.keys() == two.keys()
            for field in one:
                np.testing.assert_array_equal(one[field], two[field])
    for name in ("summary.json", "submission.csv", "config.json"):
        assert (workdir / name).read_text() == (other / name).read_text()
    assert metrics(workdir) == metrics(other)


def metrics(workdir: Path) -> list[dict]:
    """The lines of the metrics without the one number that is never the same."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "clips_per_second"} for line in lines]


def watched(monkeypatch, interrupt_at: int | None = None, after: Callable = lambda steps, result: result) -> list[int]:
    """Counts the training steps of the runs to come, and interrupts before one of them; returns the counter.

    `after(steps, result)` may change what a step returns.
    """
    steps, opened = [], train.open_experiment

    def open_experiment(config, recorded=None):
        made = opened(config, recorded)

        def step(*arguments):
            if len(steps) == interrupt_at:
                raise KeyboardInterrupt
            steps.append(len(steps))
            return after(len(steps), made.programs.train_step(*arguments))

        return dataclasses.replace(made, programs=made.programs._replace(train_step=step))

    monkeypatch.setattr(train, "open_experiment", open_experiment)
    return steps


def test_files(finished):
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*")}
    expected = {"config.json", "metrics.jsonl", "summary.json", "submission.csv"}
    expected |= {f"fold_{fold}/{name}" for fold in (0, 1) for name in ("predictions.npz", "test_predictions.npz")}
    expected |= {f"fold_{fold}/checkpoints/{NUM_STEPS}" for fold in (0, 1)}
    assert expected <= names
    for fold in (0, 1):
        assert [path.stat().st_size > 100 for path in finished.glob(f"tensorboard/fold_{fold}/events*")] == [True]
    assert not [name for name in names if "tmp" in name]


def test_config_is_recorded(finished, base_config):
    record = read_json(finished / "config.json")
    assert record["classes"] == list(CLASSES)
    assert record["config"] == recorded_fields(parse_settings(base_config))
    assert (Path(base_config.dataset.prepared_dir) / "audiotag_spectrograms" / record["dataset"]).is_dir()


def test_metrics(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    trained = [(line["fold"], line["step"]) for line in lines if line["split"] == "train"]
    assert trained == [(fold, step) for fold in (0, 1) for step in (2, 4, 6, 8)]
    validated = [(line["fold"], line["step"]) for line in lines if line["split"] == "validation"]
    assert validated == [(fold, step) for fold in (0, 1) for step in (4, 8)]
    for line in lines:
        assert np.isfinite([value for value in line.values() if not isinstance(value, str)]).all()
        if line["split"] == "train":
            frozen = line["step"] <= NUM_STEPS // 2
            assert (line["learning_rate_early"] == 0) == frozen
            assert line["learning_rate_head"] > 0
            assert line["clips_per_second"] > 0
            for kind in ("gradient", "update"):
                assert all(line[f"{kind}_norm_{group}"] > 0 for group in ("early", "late", "head"))


def test_what_is_logged(finished, copied, config, capsys, monkeypatch):
    """By default scores of the last epoch alone; the fold's last line has them, and they are those of the summary.

    The held-out clips are evaluated once for all of these.
    """
    evaluated = []
    for module in (loop, train):
        monkeypatch.setattr(
            module, "predict_logits", lambda *args: evaluated.append(len(args[3])) or evaluate.predict_logits(*args)
        )
    for name in ("fold_0", "fold_1", "metrics.jsonl", "summary.json"):
        shutil.rmtree(copied / name) if name.startswith("fold") else (copied / name).unlink()
    config.train.evaluate_every_epochs, config.train.folds = 0, (0,)
    train.run(parse_settings(config), copied)
    assert sorted(evaluated) == [NUM_TEST, 25]
    logits = [np.load(each / "fold_0/predictions.npz")["logits"] for each in (copied, finished)]
    np.testing.assert_array_equal(*logits)
    [line] = [line for line in metrics(copied) if line["split"] == "validation"]
    assert line in metrics(finished)
    assert (line.pop("fold"), line.pop("step"), line.pop("split")) == (0, NUM_STEPS, "validation")
    printed = capsys.readouterr().out.splitlines()
    assert f"fold 0: {NUM_STEPS} steps on 25 clips, 25 held out, 8 CPU; the first step compiles" in printed
    [last] = [each for each in printed if each.startswith("fold 0: finished in ")]
    assert last.endswith(f"held out: {loop.listed(line)}")
    table = read_json(copied / "summary.json")["folds"][0]["all"]
    assert f"accuracy {table['accuracy']['value']:.3f}" in last
    assert not [each for each in printed if "one fold alone" in each or "epoch" in each]


def test_several_folds_are_announced(copied, config, capsys, monkeypatch):
    for fold in (0, 1):
        (copied / f"fold_{fold}/predictions.npz").unlink()
    train.run(parse_settings(config), copied)
    printed = capsys.readouterr().out
    assert 'training 2 folds, one after the other; one fold alone: --config.train.folds="(0,)"\n' in printed
    assert "\nfold 1 (2 of 2): " in printed


def test_every_clip_is_held_out_once(finished, rows):
    """With its own label and verification, and never seen by the network that judges it."""
    saved = [load(finished / f"fold_{fold}" / "predictions.npz") for fold in (0, 1)]
    expected = {row["path"]: row for row in rows if row["split"] == "train"}
    held_out = np.concatenate([each["ids"] for each in saved])
    assert len(held_out) == NUM_TRAIN
    assert set(held_out.tolist()) == set(expected)
    for each in saved:
        assert each.keys() == {"ids", "labels", "verified", "recordings", "logits"}
        assert each["logits"].shape == (len(each["ids"]), len(CLASSES))
        assert each["logits"].dtype == np.float32
        for clip, label, verified in zip(each["ids"], each["labels"], each["verified"], strict=True):
            assert (CLASSES[label], int(verified)) == (expected[clip]["label"], expected[clip]["verified"])


def scores(logits, labels) -> dict:
    """Straight from the definitions, a clip at a time."""
    pairs = zip(logits, labels, strict=True)
    places = [sorted(range(len(CLASSES)), key=lambda k, row=row: -row[k]).index(y) for row, y in pairs]
    return {
        "num_clips": len(places),
        "top3_error": sum(place > 2 for place in places) / len(places),
        "accuracy": sum(place == 0 for place in places) / len(places),
        "map_at_3": sum(1 / (place + 1) for place in places if place < 3) / len(places),
    }


def assert_scores(table: dict, logits, labels) -> None:
    expected = scores(np.asarray(logits).tolist(), np.asarray(labels).tolist())
    assert table["num_clips"] == expected.pop("num_clips")
    for name, value in expected.items():
        assert table[name]["value"] == pytest.approx(value, abs=1e-12)
        assert table[name]["low"] <= value <= table[name]["high"]


def test_summary_is_what_the_predictions_say(finished):
    summary = read_json(finished / "summary.json")
    saved = [load(finished / f"fold_{fold}" / "predictions.npz") for fold in (0, 1)]
    together = {name: np.concatenate([each[name] for each in saved]) for name in ("logits", "labels", "verified")}
    assert [entry["fold"] for entry in summary["folds"]] == [0, 1]
    for table, each in zip([summary["validation"], *summary["folds"]], [together, *saved], strict=True):
        assert_scores(table["all"], each["logits"], each["labels"])
        chosen = each["verified"]
        assert_scores(table["verified"], each["logits"][chosen], each["labels"][chosen])
    assert 0 < summary["validation"]["verified"]["num_clips"] < NUM_TRAIN
    assert (summary["name"], summary["num_classes"], summary["steps"]) == ("log_db", len(CLASSES), NUM_STEPS)


def test_test_clips(finished, rows):
    """All are in the submission; those without a label are in no score."""
    saved = [load(finished / f"fold_{fold}" / "test_predictions.npz") for fold in (0, 1)]
    test_ids = [row["path"] for row in rows if row["split"] == "test"]
    assert saved[0]["ids"].tolist() == saved[1]["ids"].tolist() == test_ids
    assert (saved[0]["labels"] >= 0).tolist() == [True] * 4 + [False] * 2
    exponentials = [np.exp(each["logits"].astype(float)) for each in saved]
    chances = [each / each.sum(axis=1, keepdims=True) for each in exponentials]
    submission = list(csv.DictReader((finished / "submission.csv").open()))
    assert [row["fname"] for row in submission] == test_ids
    mean_chances = sum(chances) / 2
    for row, mean in zip(submission, mean_chances, strict=True):
        assert row["label"].split() == [CLASSES[k] for k in sorted(range(5), key=lambda k, mean=mean: -mean[k])[:3]]
    assert_scores(read_json(finished / "summary.json")["test"]["all"], mean_chances[:4], saved[0]["labels"][:4])


def test_frozen_phase_leaves_the_body_alone(config, tmp_path, monkeypatch):
    """At its end the kernels have not moved; batch norms and head have."""
    watched(monkeypatch, interrupt_at=NUM_STEPS // 2)
    with pytest.raises(KeyboardInterrupt):
        train.run(parse_settings(config), tmp_path / "run")
    end = last_state(tmp_path / "run", 0)["params"]
    start = train.open_experiment(parse_settings(config)).initial_state(0).params
    np.testing.assert_array_equal(end["body"]["conv1"]["kernel"], start["body"]["conv1"]["kernel"])
    assert not np.array_equal(end["body"]["bn1"]["scale"], start["body"]["bn1"]["scale"])
    assert not np.array_equal(end["head"]["linear2"]["kernel"], start["head"]["linear2"]["kernel"])


def test_a_finished_run_trains_nothing_again(copied, finished, config, monkeypatch):
    monkeypatch.setattr(train, "train_fold", None)
    train.run(parse_settings(config), copied)
    assert_same_run(copied, finished)


@pytest.mark.parametrize("interruptions", [(1, 4), (7, 2), (8, 3)], ids=str)
def test_an_interrupted_run_ends_as_if_it_had_not_been(finished, config, tmp_path, monkeypatch, interruptions):
    """Before the first checkpoint and with it; within an epoch and between two; between folds and in the last."""
    workdir, done = tmp_path / "run", 0
    for number in interruptions:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            watched(patched, interrupt_at=number)
            train.run(parse_settings(config), workdir)
        done = (done + number) // CHECKPOINT_STEPS * CHECKPOINT_STEPS  # what checkpoints keep
    assert not (workdir / "summary.json").exists()
    steps = watched(monkeypatch)
    train.run(parse_settings(config), workdir)
    assert len(steps) == 2 * NUM_STEPS - done
    assert_same_run(workdir, finished)


@pytest.mark.parametrize("place", ["device", "stream"])
def test_told_to_end_it_saves_and_continues(config, tmp_path, monkeypatch, place):
    """SIGTERM in the middle of an epoch of four steps, with inputs gathered on the devices and read from disk."""
    config.train.batch_size, config.augment.mixup_alpha = 8, 0.0
    config.train.folds = (0,)
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    train.run(parse_settings(config), whole)
    config.dataset.input = place

    def tell(steps, result):
        if steps == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched, pytest.raises(Stopped, match="fold 0 is saved at step 7"):
        watched(patched, after=tell)
        train.run(parse_settings(config), workdir)
    assert signal.getsignal(signal.SIGTERM) is before
    assert (workdir / "fold_0" / "checkpoints" / "7").is_dir()  # told after 5, known to the step that follows
    steps = watched(monkeypatch)
    train.run(parse_settings(config), workdir)
    assert len(steps) == 16 - 7
    jax.tree.map(np.testing.assert_array_equal, last_state(workdir, 0), last_state(whole, 0))
    assert metrics(workdir) == metrics(whole)
    np.testing.assert_array_equal(
        load(workdir / "fold_0/predictions.npz")["logits"], load(whole / "fold_0/predictions.npz")["logits"]
    )


def test_told_to_end_in_the_last_step_it_ends_with_the_fold(config, tmp_path, monkeypatch):
    def tell(steps, result):
        if steps == NUM_STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    steps = watched(monkeypatch, after=tell)
    with pytest.raises(Stopped, match="fold 0 is finished"):
        train.run(parse_settings(config), tmp_path / "run")
    assert len(steps) == NUM_STEPS
    assert (tmp_path / "run/fold_0/predictions.npz").exists()


def test_numbers_that_are_not_finite_stop_the_run(config, tmp_path, monkeypatch):
    """Poisoned after step 5: step 6 is named, and the last checkpoint before it, which stays the latest."""

    def poison(steps, result):
        state, scalars = result
        if steps == 5:
            state = state.replace(params=jax.tree.map(lambda values: values * np.float32("nan"), state.params))
        return state, scalars

    watched(monkeypatch, after=poison)
    with pytest.raises(UserError, match=r"at step 6: .*loss.*; last good checkpoint: .*/4\.\nSuspected: .*rate"):
        train.run(parse_settings(config), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run/fold_0/checkpoints").iterdir()) == ["4"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last_state(tmp_path / "run", 0)))


def test_a_profile_changes_nothing(finished, config, tmp_path, monkeypatch):
    """Of two steps after the first of each process; cut short by an interruption it is written all the same."""
    assert loop._PROFILE_AFTER == 10  # as the field says; this run is shorter
    monkeypatch.setattr(loop, "_PROFILE_AFTER", 1)
    calls, begin, end = [], jax.profiler.start_trace, jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: [calls.append((path, len(steps))), begin(path)])
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: [calls.append(("end", len(steps))), end()])
    config.train.folds, config.train.profile_steps = (0,), 2
    workdir, traces = tmp_path / "run", tmp_path / "run/profile/fold_0"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        steps = watched(patched, interrupt_at=2)
        train.run(parse_settings(config), workdir)
    assert calls == [(str(traces), 1), ("end", 2)]
    assert [path.stat().st_size > 1000 for path in traces.rglob("*.xplane.pb")] == [True]
    shutil.rmtree(traces)  # the next one may be of the same second, by which they are named
    steps = watched(monkeypatch)
    train.run(parse_settings(config), workdir)
    assert calls[2:] == [(str(traces), 1), ("end", 3)]
    assert [path.stat().st_size > 1000 for path in traces.rglob("*.xplane.pb")] == [True]
    jax.tree.map(np.testing.assert_array_equal, last_state(workdir, 0), last_state(finished, 0))
    assert metrics(workdir) == [line for line in metrics(finished) if line["fold"] == 0]
    one, two = (load(each / "fold_0/predictions.npz")["logits"] for each in (workdir, finished))
    np.testing.assert_array_equal(one, two)


def test_starting_from_another_run(finished, config, tmp_path):
    """Body and head of a run with the same classes."""
    config.model.init_from = f"{finished}/fold_{{fold}}"
    state, _ = starting_state(config, tmp_path, fold=1)
    end = last_state(finished, 1)
    for part, other in ((state.params, end["params"]), (state.batch_stats, end["batch_stats"])):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(part), other)
    assert int(state.step) == 0


def test_starting_from_another_network(finished, config, tmp_path):
    config.model.init_from = str(finished / "fold_0")
    config.model.width = 6
    with pytest.raises(UserError, match=r"config\.model\.init_from: the body in .* is another network's"):
        starting_state(config, tmp_path, fold=0)


def starting_state(config, tmp_path, fold):
    with checkpoints.open_checkpoints(tmp_path / "new") as manager:
        return train.open_experiment(parse_settings(config)).starting_state(fold, manager)


def test_spectrograms_on_the_fly(finished, config, tmp_path):
    """Without a margin the network sees what the stored images hold but for their rounding to half precision."""
    config.dataset.on_the_fly = True
    config.train.folds = (0,)
    train.run(parse_settings(config), tmp_path / "run")
    first, other = metrics(tmp_path / "run")[0], metrics(finished)[0]
    assert first["loss"] == pytest.approx(other["loss"], rel=1e-2)
    assert first["loss"] != other["loss"]


def test_a_margin_is_cut_off_in_the_step(config, tmp_path):
    config.dataset.on_the_fly, config.dataset.margin_s = True, 0.1
    opened = train.open_experiment(parse_settings(config))
    assert opened.examples.inputs.shape[1:] == (1600,)
    assert opened.image_shape == (32, 32, 1)
    batch = device_batch(opened.examples, np.arange(16), 16) | {"stop": np.zeros(8, np.float32)}
    state, scalars = opened.programs.train_step(replicate(opened.initial_state(0)), batch, {}, jax.random.key(0))
    assert int(state.step) == 1 and np.isfinite(scalars["loss"])


def test_a_margin_does_not_move_what_is_evaluated(config, tmp_path):
    config.dataset.on_the_fly, config.dataset.margin_s = True, 0.1
    wide = train.open_experiment(parse_settings(config)).examples.in_memory().inputs
    config.dataset.margin_s = 0.0
    np.testing.assert_array_equal(
        crop(wide, 1200), train.open_experiment(parse_settings(config)).examples.in_memory().inputs
    )


def test_starting_from_a_run_that_saw_the_held_out_clips(finished, config, tmp_path):
    config.model.init_from = str(finished / "fold_0")
    with pytest.raises(UserError, match="was trained on 25 clips that fold 1 holds out"):
        starting_state(config, tmp_path, fold=1)
    with pytest.raises(UserError, match="was trained on 25 clips that fold 1 holds out"):
        train.run(parse_settings(config), tmp_path / "run")  # before fold 0 is trained
    assert not (tmp_path / "run/fold_0").exists()
    config.model.init_from, config.dataset.fold_seed = f"{finished}/fold_{{fold}}", 1
    with pytest.raises(UserError, match=r"was trained on \d+ clips that fold 1 holds out"):
        starting_state(config, tmp_path, fold=1)


def test_a_run_that_stopped_before_its_predictions(copied, finished, config, monkeypatch):
    for name in ("fold_1/predictions.npz", "summary.json", "submission.csv"):
        (copied / name).unlink()
    steps = watched(monkeypatch)
    train.run(parse_settings(config), copied)
    assert steps == []
    assert_same_run(copied, finished)


def test_a_fold_whose_checkpoint_cannot_be_read_back_is_not_finished(config, tmp_path, monkeypatch):
    state = SimpleNamespace(step=3, arrays=lambda: {"w": np.ones(2)})
    monkeypatch.setattr(train, "train_fold", lambda *_: (state, None))  # as if the file system had lost what it wrote
    with pytest.raises(UserError, match=r"fold_0/checkpoints/3 cannot be read back, .*: 0 of 1 arrays"):
        train.run(parse_settings(config), tmp_path / "run")
    assert not list((tmp_path / "run").glob("fold_*/*predictions.npz"))


def test_a_line_cut_in_half_is_taken_out(copied, finished, config):
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"fold": 1, "step": 9, "spl')
    (copied / "fold_1" / "predictions.npz").unlink()
    train.run(parse_settings(config), copied)
    assert_same_run(copied, finished)


def test_evaluate_reproduces_the_predictions(copied, finished, config):
    for name in ("summary.json", "submission.csv", "fold_0/predictions.npz", "fold_1/test_predictions.npz"):
        (copied / name).unlink()
    evaluate.run(parse_settings(config), copied)
    assert_same_run(copied, finished)


def test_evaluate_needs_a_finished_run(copied, config, tmp_path):
    with pytest.raises(UserError, match=r"nothing contains no run"):
        evaluate.run(parse_settings(config), tmp_path / "nothing")
    shutil.rmtree(copied / "fold_1" / "checkpoints" / str(NUM_STEPS))
    with pytest.raises(UserError, match=rf"Fold 1 is at step {CHECKPOINT_STEPS} of {NUM_STEPS}"):
        evaluate.run(parse_settings(config), copied)
    shutil.rmtree(copied / "fold_1" / "checkpoints")
    (copied / "fold_0" / "predictions.npz").unlink()
    with pytest.raises(UserError, match=r"no checkpoint of fold 1: train it first .* by --config\.train\.folds"):
        evaluate.run(parse_settings(config), copied)
    assert not (copied / "fold_0" / "predictions.npz").exists()  # nothing was computed before


@pytest.mark.parametrize(
    ("field", "value"), [("seed", 1), ("train.num_epochs", 3), ("optimizer.beta2", 0.5), ("dataset.fold_seed", 1)]
)
def test_another_configuration_needs_another_directory(copied, config, field, value):
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"contains another run; different: .*{field}.*\n.*--workdir"):
        train.run(parse_settings(config), copied)


def test_other_data_needs_another_directory(copied, config, rows, tmp_path):
    """The same table, and one recording that has changed."""
    config.dataset.path = str(shutil.copytree(rows[0]["folder"], tmp_path / "sounds"))
    (tmp_path / "sounds" / "00.wav").unlink()
    with pytest.raises(UserError, match=r"contains a run on other data"):
        train.run(parse_settings(config), copied)


def test_one_fold_first_then_all(copied, finished, config, monkeypatch):
    """The folds to hold out may change from one command to the next; each is trained once."""
    shutil.rmtree(copied / "fold_0")
    steps = watched(monkeypatch)
    config.train.folds = (1,)
    train.run(parse_settings(config), copied)
    summary = read_json(copied / "summary.json")
    assert [entry["fold"] for entry in summary["folds"]] == [1]
    assert summary["validation"] == {name: summary["folds"][0][name] for name in ("all", "verified")}
    assert steps == []
    config.train.folds = ()
    train.run(parse_settings(config), copied)
    assert len(steps) == NUM_STEPS
    for name in ("summary.json", "submission.csv"):
        assert (copied / name).read_text() == (finished / name).read_text()


def test_unknown_fold(config, tmp_path):
    config.train.folds = (0, 2)
    with pytest.raises(UserError, match=r"config\.train\.folds .*0, 2.* folds 0, 1"):
        train.run(parse_settings(config), tmp_path / "run")


def test_two_runs_do_not_share_a_directory(copied, config):
    with locked(copied, "using"), pytest.raises(UserError, match=r"Another process is using .*\n"):
        train.run(parse_settings(config), copied)


def test_a_diverged_run_says_so(finished, config):
    nan = np.full((1, 16, len(CLASSES)), np.nan, np.float32)
    opened = train.open_experiment(parse_settings(config))
    broken = dataclasses.replace(opened, programs=opened.programs._replace(eval_step=lambda *_: nan))
    with pytest.raises(UserError, match=r"diverged.*\n.*learning_rate_high"):
        evaluate.predict_logits(broken, None, broken.examples, np.arange(3), "evaluating")
