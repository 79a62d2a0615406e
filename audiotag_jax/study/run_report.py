"""Mode `report`: the page of one run, from its saved predictions alone, and the clips whose label it doubts."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation import metrics, multilabel
from audiotag_jax.evaluation.by_class import calibrated, doubts
from audiotag_jax.evaluation.calibration import fitted_clips
from audiotag_jax.evaluation.decision import left_out_together
from audiotag_jax.evaluation.guessing import describe_guessing, majority_share
from audiotag_jax.evaluation.intervals import score_table
from audiotag_jax.evaluation.predictions import TEST, Predictions, average_predictions, select
from audiotag_jax.evaluation.task import MULTI_LABEL, Task, is_scored
from audiotag_jax.inference.tables import inert
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_atomic
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.record import RunRecord, fold_dir, read_record
from audiotag_jax.study.mistakes import ScoredPredictions, scored_predictions
from audiotag_jax.study.report import describe_machine, describe_network, mean_curve, write_text
from audiotag_jax.study.results import Clips, Results, Run, read_results
from audiotag_jax.study.run_page import Content, run_page, several_page
from audiotag_jax.study.several_run import COLUMNS, closer_look, suspect_rows
from audiotag_jax.study.shown import Shown, open_media
from audiotag_jax.study.sources import finished_folds

SUSPECTS = "suspects.csv"
_COLUMNS = ("id", "label", "doubt", "tag", "tag_probability", "label_probability", "verified", "fold", "recording")


def run(workdir: Path) -> None:
    """Writes `report.html` and `suspects.csv` into the run's directory; needs neither its data nor its checkpoints.

    Raises UserError where no fold of a run is finished.
    """
    record, folds = read_record(workdir), finished_folds(workdir)
    of_run = Run(record.settings.name, record.settings.seed, dict.fromkeys(folds, workdir))
    results = read_results([of_run], record.classes)
    given = scored_predictions(results, test=False)
    if not len(given.clips):
        raise UserError(f"{workdir}: none of the held-out clips has a label, so there is nothing to report.")
    [logits] = results[of_run.variant].held_out
    logits = logits[results.held_out.scored]
    rows = score_rows(results, logits, given.clips, [fold_dir(workdir, fold) / TEST for fold in folds])
    curves = {split: _curves(of_run, split, results.task) for split in ("train", "validation")}
    shown = open_media({of_run.variant: Shown(record.settings, record.dataset)})
    about = [("run", str(workdir)), *_describe(record, folds, results), *describe_machine()]
    title = f"Run {workdir.resolve().name}"
    if results.task is MULTI_LABEL:
        parts = left_out_together(given.clips.folds, given.clips.ids, results.recordings)
        look = closer_look(given, logits, parts, dict(rows)["held out, all"], results.recordings)
        content = Content(rows, look.sentences, curves, results.recordings, shown, about, title)
        text = several_page(given, content, look.context)
        table = [COLUMNS, *suspect_rows(look.suspects, given, results.recordings)]
    else:
        fitted = fitted_clips(given.clips.labels, given.clips.verified, len(given.classes))
        parts = left_out_together(given.clips.folds, given.clips.ids, results.recordings, fitted)
        probabilities = calibrated(logits, given.clips.labels, parts, fitted)
        suspects = doubts(probabilities, given.clips.labels, given.clips.ids)
        sentences = [*_sentences(rows, given), _about_suspects(suspects, given.clips)]
        content = Content(rows, sentences, curves, results.recordings, shown, about, title)
        text = run_page(given, content, probabilities, fitted, suspects)
        table = [_COLUMNS, *_suspect_rows(suspects, probabilities, given, results.recordings)]
    write_text(workdir / "report.html", text)
    kept = _write_csv(workdir / SUSPECTS, table)
    for sentence in content.sentences:
        log(sentence)
    log(f"written: {workdir / 'report.html'} and {SUSPECTS}")
    if kept:
        log(f"the existing {SUSPECTS} differed and was renamed to {kept}")


def score_rows(
    results: Results, logits: np.ndarray, clips: Clips, test_files: Sequence[Path]
) -> list[tuple[str, dict]]:
    """Returns by title the `score_table` of all held-out clips, of verified ones, of each fold, and of test clips.

    Of several labels, that of all held-out clips has the scores by class, too.
    """
    recordings = np.array([results.recordings.get(clip, "") for clip in clips.ids.tolist()], str)
    arrays = {"ids": clips.ids, "labels": clips.labels, "verified": clips.verified}
    saved: Predictions = {**arrays, "logits": logits, "recordings": recordings}
    several = results.task is MULTI_LABEL
    table = multilabel.score_table if several else score_table
    rows = [("held out, all", multilabel.score_table(saved, results.classes) if several else score_table(saved))]
    if not clips.verified.all():
        rows.append(("held out, verified", table(select(saved, clips.verified))))
    folds = np.unique(clips.folds)
    rows += [(f"fold {fold}", table(select(saved, clips.folds == fold))) for fold in folds if len(folds) > 1]
    if results.test is not None and results.test.scored.any():
        tested = average_predictions(test_files)
        rows.append(("test, mean of the folds", table(select(tested, is_scored(tested["labels"])))))
    return rows


def _suspect_rows(
    suspects: np.ndarray, probabilities: np.ndarray, given: ScoredPredictions, recordings: Mapping[str, str]
) -> list[list[str | int]]:
    """Returns a row of cells for each clip of `suspects`, in order; doubt is the tag's probability less the label's."""
    clips, rows = given.clips, []
    for index in suspects.tolist():
        label, tag = int(clips.labels[index]), int(probabilities[index].argmax())
        own, best = probabilities[index, label], probabilities[index, tag]
        clip, verified = str(clips.ids[index]), int(clips.verified[index])
        cells: list[str | int] = [
            clip,
            given.classes[label],
            f"{best - own:.4f}",
            given.classes[tag],
            f"{best:.4f}",
            f"{own:.4f}",
        ]
        rows.append([*cells, verified, int(clips.folds[index]), recordings.get(clip, "")])
    return rows


def _write_csv(path: Path, rows: Sequence[Sequence[str | int]]) -> str:
    """Writes the table; an earlier one that differs, as after notes in it, gets a name by its time, which is returned.

    Needs no lock: the report only reads what a training writes, and each of its own files appears as a whole.
    """
    text, kept = io.StringIO(), ""
    csv.writer(text, lineterminator="\n").writerows(map(inert, row) for row in rows)
    content = text.getvalue().encode("utf-8", "surrogateescape")
    if path.is_file() and path.read_bytes() != content:
        kept = f"{path.stem}_{time.strftime('%Y-%m-%d_%H%M%S', time.localtime(path.stat().st_mtime))}{path.suffix}"
        path.replace(path.with_name(kept))
    write_atomic(path, lambda file: file.write(content))
    return kept


def _sentences(rows: Sequence[tuple[str, dict]], given: ScoredPredictions) -> list[str]:
    """Describes the scores of all held-out clips, and whether they are no better than the most frequent class."""
    table = dict(rows)["held out, all"]
    values = []
    for each in metrics.METRICS:
        low, value, high = (table[each.name][key] for key in ("low", "value", "high"))
        values.append(f"{each.label_in_text} {value:.3f} ({low:.3f} to {high:.3f})")
    text = f"On {table['num_clips']:,} held-out clips: {', '.join(values)}."
    hits = next((table[each.name] for each in metrics.METRICS if each.name == "accuracy"), None)
    guessing = describe_guessing(hits, majority_share(given.clips.labels)) if hits is not None else ""
    return [text, f"{guessing[0].upper()}{guessing[1:]}."] if guessing else [text]


def _about_suspects(suspects: np.ndarray, clips: Clips) -> str:
    if not len(suspects):
        return f"The first tag is the label for every clip: {SUSPECTS} has no rows."
    unverified = int((~clips.verified[suspects]).sum())
    of_these = f", {unverified:,} of them not verified" if 0 < unverified < len(suspects) else ""
    counted, them = ("1 clip", "it") if len(suspects) == 1 else (f"{len(suspects):,} clips", "them")
    return f"The first tag is not the label for {counted}{of_these}: {SUSPECTS} lists {them}."


def _curves(of_run: Run, split: str, task: Task) -> dict[str, np.ndarray]:
    names = ["loss", *(each.name for each in metrics.metrics_of(task))] if split == "validation" else ["loss"]
    return {name: mean_curve([of_run], split, name) for name in names}


def _describe(record: RunRecord, folds: Sequence[int], results: Results) -> list[tuple[str, str]]:
    settings = record.settings
    counts = f"{len(results.held_out)} clips held out in {len(folds)} folds"
    if results.test is not None:
        counts += f", {len(results.test)} test clips"
    data = f"{counts}; {len(record.classes)} classes, {settings.dataset.duration_s:g} s at"
    rows = [("variant", settings.name), ("preset", settings.preset)]
    rows += [("data", f"{data} {settings.dataset.sample_rate_hz} Hz"), *describe_network(settings.model)]
    return rows
