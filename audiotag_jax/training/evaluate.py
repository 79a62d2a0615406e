"""Logits of every clip once, and the summary of a run from its saved logits alone."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from audiotag_jax.datasets.index import test_order
from audiotag_jax.datasets.prepare import report_problems
from audiotag_jax.datasets.reader import Examples
from audiotag_jax.evaluation import metrics, multilabel
from audiotag_jax.evaluation.decision import F1, decision_table, left_out_together
from audiotag_jax.evaluation.guessing import describe_guessing, majority_share
from audiotag_jax.evaluation.intervals import score_table
from audiotag_jax.evaluation.predictions import (
    TEST,
    VALIDATION,
    Predictions,
    average_predictions,
    concatenate,
    load_predictions,
    select,
)
from audiotag_jax.evaluation.submission import check_submission, format_submission
from audiotag_jax.evaluation.task import MULTI_LABEL, is_scored, task_of
from audiotag_jax.runtime.errors import Diverged, UserError
from audiotag_jax.runtime.files import write_atomic, write_json, write_npz
from audiotag_jax.runtime.processes import is_main_process
from audiotag_jax.runtime.progress import log, progress
from audiotag_jax.settings.record import check_same_settings, fold_dir, load_record, read_record, recorded_dataset
from audiotag_jax.settings.settings import Settings
from audiotag_jax.training import checkpoints
from audiotag_jax.training.experiment import Experiment, check_devices, open_experiment
from audiotag_jax.training.input_pipeline import Batches, close, evaluation_order, read_ahead
from audiotag_jax.training.probe import Predict, Probes
from audiotag_jax.training.state import TrainState
from audiotag_jax.training.steps import replicate
from audiotag_jax.training.workdir import lock_workdir, log_differences, record_config


def run(settings: Settings, workdir: Path) -> None:
    """Runs mode `evaluate`: computes logits and summary again from the last checkpoints of a trained run."""
    check_devices(settings, trains=False)
    load_record(workdir)
    with lock_workdir(workdir):
        check_same_settings(workdir, settings)
        experiment = open_experiment(settings, recorded_dataset(workdir), trains=False)
        record_config(workdir, settings, experiment.classes, experiment.fingerprint)
        probes = Probes(experiment)
        log_differences(workdir, experiment.metadata.get("provenance", {}))
        for fold in experiment.folds:  # before anything is computed
            if not (fold_dir(workdir, fold) / "checkpoints").is_dir():
                raise UserError(
                    f"{workdir} contains no checkpoint of fold {fold}: train it first with --mode=train, or name the "
                    "folds that are trained by --config.train.folds."
                )
        for fold in experiment.folds:
            save_predictions(experiment, workdir, fold, _trained(experiment, probes, workdir, fold))
        conclude(experiment, workdir)


def _trained(experiment: Experiment, probes: Probes, workdir: Path, fold: int) -> Predict:
    if experiment.settings.training.probe:
        return probes.load(workdir, fold)
    with checkpoints.open_checkpoints(fold_dir(workdir, fold)) as manager:
        state, _ = checkpoints.restore(manager, experiment.initial_state(fold))
    if int(state.step) != experiment.num_steps:
        raise UserError(f"Fold {fold} is at step {int(state.step)} of {experiment.num_steps}: train it first.")
    return functools.partial(predict_logits, experiment, replicate(state))


def is_finished(experiment: Experiment, workdir: Path, fold: int) -> bool:
    """Returns whether all of the fold's predictions are saved."""
    names = (VALIDATION,) if experiment.test_examples is None else (VALIDATION, TEST)
    return all((fold_dir(workdir, fold) / name).exists() for name in names)


def save_predictions(
    experiment: Experiment, workdir: Path, fold: int, predict: Predict, held_out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Writes the fold's test and validation logits; the latter last, as the mark of a finished fold.

    Returns the logits `[n, K]` and labels `[n]` of the held-out clips.
    `predict` returns logits of clips, as `predict_logits` does for a network in training; where `held_out` is given,
    those of the held-out clips, it is not called for them.
    """
    examples, test = experiment.examples, experiment.test_examples
    if test is not None:
        everything = np.arange(len(test))
        logits = predict(test, everything, f"testing fold {fold}")
        _save(fold_dir(workdir, fold) / TEST, experiment, test, everything, logits)
    clips = experiment.validation_clips(fold)
    logits = predict(examples, clips, f"evaluating fold {fold}") if held_out is None else held_out
    _save(fold_dir(workdir, fold) / VALIDATION, experiment, examples, clips, logits)
    return logits, examples.labels[clips]


def _save(path: Path, experiment: Experiment, examples: Examples, clips: np.ndarray, logits: np.ndarray) -> None:
    fields = {name: getattr(examples, name)[clips] for name in ("ids", "labels", "verified")}
    recordings = np.array([experiment.recordings.get(clip, "") for clip in fields["ids"].tolist()], str)
    if is_main_process():
        write_npz(path, logits=logits, recordings=recordings, **fields)


def predict_logits(
    experiment: Experiment, state: TrainState, examples: Examples, clips: np.ndarray, description: str
) -> np.ndarray:
    """Returns logits `[n, K]` float32 of the clips at the n given indices, in their order; padding is dropped.

    Raises Diverged if one is NaN or infinite.
    """
    batch_size = experiment.settings.training.batch_size
    order = evaluation_order(clips, batch_size)
    resident = experiment.resident and examples is experiment.examples
    batches = read_ahead(Batches(examples, order, batch_size, resident))
    rows = []
    for indices, batch in zip(order, progress(batches, len(order), description, "batches"), strict=True):
        logits = np.asarray(experiment.programs.eval_step(state, batch, experiment.data if resident else {}))
        rows.append(logits.reshape(-1, logits.shape[-1])[: len(indices)])
    close(batches)
    logits = np.concatenate(rows)
    if not np.isfinite(logits).all():
        raise Diverged(
            "The training diverged: the network's answers are NaN or infinite.\n"
            "Train with a lower config.optimizer.learning_rate_high, in another --workdir."
        )
    return logits


def conclude(experiment: Experiment, workdir: Path) -> None:
    """Writes and prints the summary of all finished folds, and a submission where the data has a test split."""
    if not is_main_process():
        return
    folds = [fold for fold in experiment.all_folds if is_finished(experiment, workdir, fold)]
    summary = summarize(experiment, workdir, folds, read_record(workdir).pretrained_on)
    write_json(workdir / "summary.json", summary)
    written = ["summary.json"]
    if experiment.test_examples is not None:
        test_files = [fold_dir(workdir, fold) / TEST for fold in folds]
        order = test_order(experiment.dataset_dir)
        write_submission(workdir / "submission.csv", average_predictions(test_files), experiment.classes, order)
        written.append("submission.csv")
    report_problems(experiment.metadata["problems"], experiment.dataset_dir)
    log(format_summary(summary))
    log(f"written to {workdir}: {', '.join(written)}")


def write_submission(path: Path, predictions: Predictions, classes: Sequence[str], order: Sequence[str]) -> None:
    """Writes the submission of test `predictions`, a row for each id of `order`, checked before it is put in place.

    Raises UserError if ids do not match or `check_submission` would, and then leaves `path` as it was.
    """
    text = format_submission(predictions, classes, order)

    def write(file: BinaryIO) -> None:
        file.write(text.encode())
        file.flush()
        several = task_of(predictions["labels"]) is MULTI_LABEL
        check_submission(Path(file.name), classes, order, has_several_labels=several)

    write_atomic(path, write)


def summarize(experiment: Experiment, workdir: Path, folds: Sequence[int], pretrained_on: str = "") -> dict:
    """Returns scores of held-out clips over the given folds and by fold; of labelled test clips by the folds' mean.

    `pretrained_on`: what the first weights were trained on, by the run's record.
    """
    by_fold = {fold: _with_recordings(experiment, fold_dir(workdir, fold) / VALIDATION) for fold in folds}
    problems = [problem["outcome"] for problem in experiment.metadata["problems"]]
    names = dict(enumerate(experiment.metadata.get("fold_names") or map(str, range(1 + max(experiment.all_folds)))))
    held_out = concatenate(list(by_fold.values()))
    several = task_of(held_out["labels"]) is MULTI_LABEL
    validation = _scores(held_out, experiment.classes)
    by_class = validation["all"].pop("classes", {})
    summary = {
        "name": experiment.settings.name,
        "num_classes": len(experiment.classes),
        "steps": experiment.num_steps,
        **({"probe": True} if experiment.settings.training.probe else {}),
        **({"pretrained_on": pretrained_on} if pretrained_on else {}),
        "missing_folds": [fold for fold in experiment.all_folds if fold not in folds],
        "problems": {outcome: problems.count(outcome) for outcome in sorted(set(problems))},
        **({} if several else {"majority_share": majority_share(held_out["labels"])}),
        "validation": validation,
        "folds": [{"fold": fold, "name": names[fold], **_scores(saved)} for fold, saved in by_fold.items()],
    }
    if experiment.test_examples is not None:
        ensemble = average_predictions([fold_dir(workdir, fold) / TEST for fold in folds])
        scored = is_scored(ensemble["labels"])
        if scored.any():
            summary["test"] = _scores(select(ensemble, scored))
    if several:
        summary["task"] = MULTI_LABEL.name
        summary["classes"] = by_class
        parts = np.repeat(np.arange(len(by_fold)), [len(saved["ids"]) for saved in by_fold.values()])
        if is_scored(held_out["labels"]).any():
            recordings = dict(zip(held_out["ids"], held_out["recordings"], strict=True))
            summary["tags"] = decision_table(held_out, left_out_together(parts, held_out["ids"], recordings))
    return summary


def format_summary(summary: dict) -> str:
    """Returns the summary as a table for a terminal."""
    held_out = summary["validation"]
    rows = [("held out", "all", held_out["all"])]
    if held_out["verified"]["num_clips"] != held_out["all"]["num_clips"]:
        rows.append(("held out", "verified", held_out["verified"]))
    rows += [(f"fold {entry['fold']}", "all", entry["all"]) for entry in summary["folds"]]
    if "test" in summary:
        rows.append(("test", "all", summary["test"]["all"]))
    budget = "linear probe" if summary.get("probe") else f"{summary['steps']} steps a fold"
    lines = [f"{summary['name']}, {summary['num_classes']} classes, {budget}"]
    names = metric_names(summary.get("task", ""))
    lines.append(f"{'':10}{'':10}{'clips':>6}  " + "".join(f"{name + ' (95 % interval)':<30}" for name in names))
    for title, kind, table in rows:
        cells = "".join(f"{_cell(table[name]):<30}" for name in names)
        lines.append(f"{title:10}{kind:10}{table['num_clips']:>6}  {cells}")
    if "tags" in summary:
        values = ", ".join(f"{label} {_cell(summary['tags'][name])}" for name, label in F1.items())
        lines.append(f"tags by thresholds of other clips: {values}")
    named = [f"{entry['fold']} is {entry['name']!r}" for entry in summary["folds"] if _is_named(entry)]
    if named:
        lines.append(f"names of the folds in the data: {', '.join(named)}")
    if "pretrained_on" in summary:
        lines.append(f"first weights were trained on {summary['pretrained_on']}")
    if "majority_share" in summary and (text := describe_guessing(rows[0][2]["accuracy"], summary["majority_share"])):
        lines.append(f"warning: {text}")
    if (auc := rows[0][2].get("macro_auc")) and auc["low"] is not None and auc["low"] <= 0.5:
        lines.append(f"warning: no better than guessing: macro ROC AUC {_cell(auc)} on held-out clips")
    if summary["missing_folds"]:
        lines.append(f"folds not trained yet: {', '.join(map(str, summary['missing_folds']))}")
    return "\n".join(line.rstrip() for line in lines)


def metric_names(task: str) -> list[str]:
    """Returns the names of the scores of a task in a summary."""
    return list(multilabel.METRICS) if task == MULTI_LABEL.name else [each.name for each in metrics.METRICS]


def _is_named(entry: dict) -> bool:
    return entry.get("name", str(entry["fold"])) != str(entry["fold"])


def _cell(score: dict) -> str:
    return "–" if score["value"] is None else f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def _with_recordings(experiment: Experiment, path: Path) -> Predictions:
    """Loads predictions; those of an earlier release, without names of recordings, get them from the dataset."""
    saved = load_predictions(path)
    if not (saved["recordings"] != "").any():
        saved["recordings"] = np.array([experiment.recordings.get(clip, "") for clip in saved["ids"].tolist()], str)
    return saved


def _scores(saved: Predictions, classes: Sequence[str] = ()) -> dict:
    """Returns scores of all clips and of verified ones; with `classes`, of several labels, "all" has "classes" too."""
    several = task_of(saved["labels"]) is MULTI_LABEL
    table = multilabel.score_table if several else score_table
    every = multilabel.score_table(saved, classes) if several else score_table(saved)
    if saved["verified"].all():
        return {"all": every, "verified": {name: value for name, value in every.items() if name != "classes"}}
    return {"all": every, "verified": table(select(saved, saved["verified"]))}
