"""What a study trains: the configuration and the work directory of each of its runs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from audiotag_jax.evaluation.predictions import TEST, VALIDATION, load_predictions, mean_loss
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.record import FILE_NAME, check_same_data, check_same_settings, fold_dir, read_record
from audiotag_jax.settings.sections import OptimizerSettings, StudySettings
from audiotag_jax.settings.settings import Settings, flatten, parse_settings, recorded_fields
from audiotag_jax.settings.variants import NETWORKS, get_config, list_variants
from audiotag_jax.study.results import Run
from audiotag_jax.study.verdict import check_score

_PEAKS = ("frozen_learning_rate", "learning_rate_low", "learning_rate_high")
_PENALTY = ("probe_penalty",)


@dataclasses.dataclass(frozen=True)
class Training:
    """Some folds of one configuration, trained in one work directory, as mode train does it."""

    variant: str
    title: str  # what a person calls it
    settings: Settings
    workdir: Path
    folds: tuple[int, ...]

    def files(self, fold: int, has_test: bool) -> list[Path]:
        """Returns the files of the fold's logits; all of them are there when it is finished."""
        names = (VALIDATION, TEST) if has_test and not self.settings.training.inner_split else (VALIDATION,)
        return [fold_dir(self.workdir, fold) / name for name in names]

    def has_logits(self, fold: int, has_test: bool) -> bool:
        """Returns whether the fold was trained to its end."""
        return all(path.exists() for path in self.files(fold, has_test))

    def unfinished(self, has_test: bool) -> tuple[int, ...]:
        """Returns the folds that are still to be trained; a trial that diverged is not tried again."""
        folds = (fold for fold in self.folds if not self.diverged(fold).exists())
        return tuple(fold for fold in folds if not self.has_logits(fold, has_test))

    def diverged(self, fold: int) -> Path:
        """Returns the path of the file with the reason why the fold of a trial has no logits."""
        return fold_dir(self.workdir, fold) / "diverged.json"

    def check(self, dataset: str | None) -> str | None:
        """Returns the fingerprint of the data that the training began on; `dataset` before it began.

        Raises UserError if its folder contains a run of other settings, or of other data than a given `dataset`.
        """
        check_same_settings(self.workdir, self.settings)
        if not (self.workdir / "config.json").exists():
            return dataset
        if dataset is not None:
            check_same_data(self.workdir, dataset)
        return read_record(self.workdir).dataset


def variant_names(study: StudySettings) -> tuple[str, ...]:
    """Returns the variants of a study, the baseline first; raises UserError, listing the choices, on an unknown one."""
    choices = list_variants()
    names = tuple(dict.fromkeys(study.variants)) or tuple(name for name in choices if name not in NETWORKS)
    for name in (study.baseline, *names):
        if name not in choices:
            raise UserError(
                f"config.study: unknown variant {name!r}; choose from {', '.join(choices)}.\n"
                "Several are given as \"('log_db', 'mel_db')\"."
            )
    return (study.baseline, *(name for name in names if name != study.baseline))


def check_study(settings: Settings) -> None:
    """Raises UserError on fields of a single run that a study chooses itself, and on an unknown score."""
    if settings.training.inner_split or settings.training.folds:
        raise UserError(
            "A study chooses its folds itself: set --config.train.folds='()' and --config.train.inner_split=False."
        )
    check_score(settings.comparison.score, "config.study.score")


def variant_settings(base: Settings, variant: str) -> Settings:
    """Returns the settings of another variant under the same preset, with all that `base` changes on the command line.

    What a variant's own file sets apart from the base's file, such as its channels, stays as that file has it, but for
    the number of epochs, which is that of `base`.
    """
    own, plain = _load(variant, base.preset), _load(base.name, base.preset)
    if not own.keys() >= plain.keys():
        raise UserError(f"The variant {variant} lacks fields of {base.name}: {sorted(plain.keys() - own.keys())}.")
    given = flatten(recorded_fields(base))
    for name, value in given.items():
        if value != plain[name] and own[name] == plain[name]:
            own[name] = value
    settings = parse_settings(traverse_util.unflatten_dict(own, sep="."))
    return _with_epochs(dataclasses.replace(settings, study=base.study), base, base.training.num_epochs)


def _with_epochs(settings: Settings, base: Settings, num_epochs: int) -> Settings:
    """Returns `settings` with as many epochs in all as `base` has with `num_epochs`: waveform has no frozen ones."""
    epochs = base.training.frozen_epochs + num_epochs - settings.training.frozen_epochs
    return dataclasses.replace(settings, training=dataclasses.replace(settings.training, num_epochs=epochs))


def search(base: Settings, workdir: Path, variant: str, folds: Sequence[int]) -> dict[float, Training]:
    """Returns the trials of a variant's learning rates, by factor: short, and scored on inner splits alone."""
    trials = {}
    for factor in base.comparison.rate_factors:
        settings = _with_epochs(variant_settings(base, variant), base, base.comparison.search_epochs)
        settings = dataclasses.replace(
            settings,
            seed=base.comparison.seeds[0],
            training=dataclasses.replace(settings.training, inner_split=True, evaluate_every_epochs=0),
            optimizer=_at_rate(settings, factor),
        )
        name = f"{variant}-rate_{factor:g}"
        title = f"{variant}, {searched(base)} x {factor:g} on inner splits"
        trials[factor] = Training(variant, title, settings, workdir / "search" / name, tuple(folds))
    return trials


def choose_factor(trials: dict[float, Training], fold: int) -> float:
    """Returns the factor with the lowest mean cross-entropy on the fold's inner split; of equal ones the nearest to 1.

    A trial that diverged is worse than any other.
    """

    def loss(factor: float) -> float:
        if trials[factor].diverged(fold).exists():
            return np.inf
        saved = load_predictions(fold_dir(trials[factor].workdir, fold) / VALIDATION)
        return mean_loss(saved)

    return float(min(trials, key=lambda factor: (loss(factor), abs(np.log(factor)))))


def final(base: Settings, workdir: Path, variant: str, seed: int, factors: Mapping[int, float]) -> list[Training]:
    """Returns the trainings of a variant and a seed, one a learning rate, with the folds for which it was chosen."""
    trainings = []
    for factor in sorted(set(factors.values())):
        folds = tuple(fold for fold in sorted(factors) if factors[fold] == factor)
        settings = variant_settings(base, variant)
        settings = dataclasses.replace(
            settings,
            seed=seed,
            training=dataclasses.replace(settings.training, folds=folds),
            optimizer=_at_rate(settings, factor),
        )
        name = f"{variant}-seed_{seed}-rate_{factor:g}"
        trainings.append(Training(variant, f"{variant}, seed {seed}", settings, workdir / "runs" / name, folds))
    return trainings


def finished_run(trainings: Sequence[Training], seed: int, has_test: bool) -> Run | None:
    """Returns the run that a variant's trainings of one seed make together; None unless all are finished."""
    if any(training.unfinished(has_test) for training in trainings):
        return None
    workdirs = {fold: training.workdir for training in trainings for fold in training.folds}
    return Run(trainings[0].variant, seed, workdirs)


class Trained(NamedTuple):
    """What runs of a variant record of their data and their budget; no steps before the first has its summary."""

    folds: tuple[int, ...]
    classes: tuple[str, ...]
    has_test: bool
    num_steps: int


def read_trained(workdir: Path, variant: str) -> Trained:
    """Reads what the runs of a variant in a study's directory record; needs no data. Raises UserError without any."""
    runs = [path.parent for path in sorted(workdir.glob(f"runs/{variant}-seed_*/{FILE_NAME}"))]
    files = [path for run in runs for path in run.glob(f"fold_*/{VALIDATION}")]
    if not files:
        raise UserError(f"{workdir} has no finished run of the baseline {variant} to report on.")
    summaries = [json.loads(path.read_text()) for run in runs if (path := run / "summary.json").exists()]
    lacking = [fold for summary in summaries for fold in summary.get("missing_folds", ())]
    tried = [path for path in workdir.glob(f"search/{variant}-rate_*/fold_*") if path.is_dir()]
    folds = {int(path.name.removeprefix("fold_")) for path in [*(path.parent for path in files), *tried]} | set(lacking)
    folds |= {fold for run in runs for fold in read_record(run).settings.training.folds}  # begun and not finished
    steps = max((summary.get("steps", 0) for summary in summaries), default=0)
    has_test = any(path.with_name(TEST).exists() for path in files)
    return Trained(tuple(sorted(folds)), read_record(runs[0]).classes, has_test, steps)


def searched(settings: Settings) -> str:
    """Returns what the factors of a search multiply: "penalty" or "learning rates"."""
    return "penalty" if settings.training.probe else "learning rates"


def without_repetitions(settings: Settings) -> Settings:
    """Returns the settings with one seed where it changes nothing: a probe draws nothing at random."""
    seeds = settings.comparison.seeds
    if not settings.training.probe or len(seeds) == 1:
        return settings
    log(f"config.study.seeds: a probe draws nothing at random, so every seed gives the same; seed {seeds[0]} alone")
    return dataclasses.replace(settings, study=dataclasses.replace(settings.comparison, seeds=seeds[:1]))


def without_networks(settings: Settings, variants: Sequence[str]) -> tuple[str, ...]:
    """Returns the variants; of a study of probes, without those that train their own network, such as `waveform`."""
    if not settings.training.probe:
        return tuple(variants)
    kept = tuple(name for name in variants if variant_settings(settings, name).training.probe)
    if left_out := [name for name in variants if name not in kept]:
        log(f"left out of a study of probes, since they train a network of their own: {', '.join(left_out)}")
    return kept


def searched_fields(settings: Settings) -> tuple[str, ...]:
    """Returns the fields of the optimizer that a study chooses for each variant and fold."""
    return _PENALTY if settings.training.probe else _PEAKS


def _at_rate(settings: Settings, factor: float) -> OptimizerSettings:
    optimizer, names = settings.optimizer, searched_fields(settings)
    return dataclasses.replace(optimizer, **{name: factor * getattr(optimizer, name) for name in names})


def _load(variant: str, preset: str) -> dict:
    return flatten(recorded_fields(parse_settings(get_config(variant, preset))))
