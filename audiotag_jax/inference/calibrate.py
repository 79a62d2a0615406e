"""The temperature of a run's probabilities, from its held-out clips, and whether these are reliable."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation.calibration import (
    ENOUGH_CLIPS,
    TEMPERATURES,
    cross_fitted_error,
    describe_fitted,
    expected_calibration_error,
    fit_temperature,
    fitted_clips,
)
from audiotag_jax.evaluation.decision import Decision, cross_fit, fit_decision, left_out_together
from audiotag_jax.evaluation.guessing import guessing_of
from audiotag_jax.evaluation.predictions import VALIDATION, Predictions, concatenate, load_predictions, select
from audiotag_jax.evaluation.task import MULTI_LABEL, Task, is_scored, task_of
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.record import fold_dir

_AT_LIMIT = 1e-3  # relative
_MUCH_WORSE = 1.5  # times the calibration error


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How a run's logits become probabilities, and, where clips have any number of labels, `decision`, tags."""

    temperature: float
    # Expected calibration errors at temperature 1, and of temperatures fitted to other clips; NaN without labels.
    errors: tuple[float, float]
    fitted_to: str  # the clips
    doubt: str  # why the probabilities are not reliable; empty if there is no such reason
    task: Task
    decision: Decision | None = None


def calibrate(workdir: Path, folds: Sequence[int]) -> Calibration:
    """Fits the calibration of the networks of some folds together; raises UserError on damaged predictions.

    Temperature, errors and decision are those of the clips with a label that `fitted_clips` chooses.
    """
    saved = [load_predictions(fold_dir(workdir, fold) / VALIDATION) for fold in folds]
    parts = np.repeat(np.arange(len(saved)), [len(each["labels"]) for each in saved])
    try:
        together = concatenate(saved) | {"parts": parts}
        labelled = select(together, is_scored(together["labels"]))
        fitted = fitted_clips(labelled["labels"], labelled["verified"], labelled["logits"].shape[1])
        recordings = dict(zip(labelled["ids"], labelled["recordings"], strict=True))
        labelled["parts"] = left_out_together(labelled["parts"], labelled["ids"], recordings, fitted)
        several = task_of(labelled["labels"]) is MULTI_LABEL  # of which accuracy is no score
        return _calibration(select(labelled, fitted), describe_fitted(fitted), "" if several else guessing_of(labelled))
    except ValueError as error:
        raise UserError(f"The predictions in {workdir} are damaged: {error}") from error


def _calibration(clips: Predictions, fitted_to: str, guessing: str) -> Calibration:
    logits, labels, parts = (clips[name] for name in ("logits", "labels", "parts"))
    temperature = fit_temperature(logits, labels)
    task = task_of(labels)
    before = expected_calibration_error(task.probabilities(logits), labels)
    decision = None
    if task is MULTI_LABEL and len(labels):
        decision = fit_decision(logits, labels)
        errors = before, expected_calibration_error(cross_fit(logits, labels, parts)[0], labels)
    else:
        errors = before, cross_fitted_error(logits, labels, parts)
    reasons = filter(None, (guessing, _describe_limit(temperature, len(labels)) or _describe_few(errors, len(labels))))
    return Calibration(temperature, errors, fitted_to, "; ".join(reasons), task, decision)


def _describe_few(errors: tuple[float, float], num_clips: int) -> str:
    """Describes a calibration that makes other clips' probabilities much worse, since it is fitted to few."""
    if num_clips >= ENOUGH_CLIPS or not errors[1] > _MUCH_WORSE * errors[0]:
        return ""
    return f"{num_clips} held-out clips are too few to calibrate with; train more folds, or add clips"


def _describe_limit(temperature: float, num_clips: int) -> str:
    """Describes a temperature at a limit of its range: the upper one, or with few clips the lower one.

    The lower one is expected where the answers on many clips are all right.
    """
    low, high = TEMPERATURES
    if low * (1 + _AT_LIMIT) < temperature < high * (1 - _AT_LIMIT) or (temperature < 1 and num_clips >= ENOUGH_CLIPS):
        return ""
    found = f"temperature {temperature:.3f} is at the limit of its range"
    too_few = f": {num_clips} held-out clips, nearly all right, are too few to fit it; train more folds, or add clips"
    return found + too_few if temperature < 1 else found
