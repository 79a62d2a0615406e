"""What a study trains: the configuration and the work directory of each of its runs."""

import dataclasses
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.special
from flax import traverse_util
from ml_collections import ConfigDict

from audiotag_jax.training.config_check import check_config
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.training.evaluate import TEST, VALIDATION
from audiotag_jax.study.results import Run
from audiotag_jax.evaluation.submission import load_predictions
from audiotag_jax.training.workdir import check_same_data, check_same_settings, fold_dir, read_record, recorded_fields

CONFIGS = Path(__file__).parents[2] / "configs"
_PEAKS = ("frozen_learning_rate", "learning_rate_low", "learning_rate_high")


@dataclasses.dataclass(frozen=True)
class Training:
    """Some folds of one configuration, trained in one work directory, as mode train does it."""

    variant: str
    title: str  # what a person calls it
    config: ConfigDict
    workdir: Path
    folds: tuple[int, ...]

    def files(self, fold: int, has_test: bool) -> list[Path]:
        """Of the fold's logits; all of them are there when it is finished."""
        names = (VALIDATION, TEST) if has_test and not self.config.train.inner_split else (VALIDATION,)
        return [fold_dir(self.workdir, fold) / name for name in names]

    def has_logits(self, fold: int, has_test: bool) -> bool:
        """Whether the fold was trained to its end."""
        return all(path.exists() for path in self.files(fold, has_test))

    def unfinished(self, has_test: bool) -> tuple[int, ...]:
        """The folds that are still to be trained; a trial that diverged is not tried again."""
        folds = (fold for fold in self.folds if not self.diverged(fold).exists())
        return tuple(fold for fold in folds if not self.has_logits(fold, has_test))

    def diverged(self, fold: int) -> Path:
        """The file that says why the fold of a trial has no logits."""
        return fold_dir(self.workdir, fold) / "diverged.json"

    def check(self, dataset: str | None) -> str | None:
        """The fingerprint of the data that the training began on; `dataset` before it began.

        Raises UserError if its folder holds a run of other settings, or of other data than `dataset`, if that is given.
        """
        check_same_settings(self.workdir, self.config)
        if not (self.workdir / "config.json").exists():
            return dataset
        if dataset is not None:
            check_same_data(self.workdir, dataset)
        return read_record(self.workdir)["dataset"]


def variant_names(config: ConfigDict) -> tuple[str, ...]:
    """The variants of a study, the baseline first; raises UserError, listing the choices, on an unknown one."""
    choices = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("default", "__init__"))
    names = tuple(dict.fromkeys(config.study.variants)) or tuple(choices)
    for name in (config.study.baseline, *names):
        if name not in choices:
            raise UserError(
                f"config.study: unknown variant {name!r}; choose from {', '.join(choices)}.\n"
                "Several are given as \"('log_db', 'mel_db')\"."
            )
    return (config.study.baseline, *(name for name in names if name != config.study.baseline))


def check_study(config: ConfigDict) -> None:
    """Raises UserError on a bad value among the fields of a study."""
    study = config.study
    if not study.seeds or any(type(seed) is not int for seed in study.seeds):
        raise UserError(f"config.study.seeds is {study.seeds}; give whole numbers, such as (0,) or (0, 1, 2).")
    factors = study.rate_factors
    if not factors or len(set(factors)) < len(factors) or not all(0 < float(factor) < 1e3 for factor in factors):
        raise UserError(f"config.study.rate_factors is {factors}; give numbers above 0, each once, such as (0.5, 1.0).")
    if len(factors) > 1 and study.search_epochs < 1:
        raise UserError(f"config.study.search_epochs is {study.search_epochs}; it must be at least 1.")
    if config.train.inner_split or config.train.folds:
        raise UserError("A study chooses its folds itself: leave config.train.folds and config.train.inner_split.")


def variant_config(base: ConfigDict, variant: str) -> ConfigDict:
    """The configuration of another variant under the same preset, with all that `base` changes on the command line.

    What a variant's own file sets apart from the base's file, such as its channels, stays as that file has it.
    """
    own, plain = _load(variant, base.preset), _load(base.name, base.preset)
    if not own.keys() >= plain.keys():
        raise UserError(f"{CONFIGS / variant}.py lacks fields of {base.name}: {sorted(plain.keys() - own.keys())}.")
    given = _flatten(base)
    for name, value in given.items():
        if value != plain[name] and own[name] == plain[name]:
            own[name] = value
    config = base.copy_and_resolve_references()
    with config.unlocked():
        config.update(traverse_util.unflatten_dict(own, sep="."))
    check_config(config)
    return config


def search(base: ConfigDict, workdir: Path, variant: str, folds: Sequence[int]) -> dict[float, Training]:
    """The trials of a variant's learning rates, by factor: short, and scored on inner splits alone."""
    trials = {}
    for factor in base.study.rate_factors:
        config = _at_rate(variant_config(base, variant), factor)
        config.seed = base.study.seeds[0]
        config.train.inner_split = True
        config.train.num_epochs = base.study.search_epochs
        config.train.evaluate_every_epochs = 0
        name = f"{variant}-rate_{factor:g}"
        title = f"{variant}, learning rates x {factor:g} on inner splits"
        trials[factor] = Training(variant, title, config, workdir / "search" / name, tuple(folds))
    return trials


def choose_factor(trials: dict[float, Training], fold: int) -> float:
    """The factor with the lowest mean cross-entropy on the fold's inner split; of equal ones the nearest to 1.

    A trial that diverged is worse than any other.
    """

    def loss(factor: float) -> float:
        if trials[factor].diverged(fold).exists():
            return np.inf
        saved = load_predictions(fold_dir(trials[factor].workdir, fold) / VALIDATION)
        log_probabilities = scipy.special.log_softmax(saved["logits"].astype(np.float64), axis=1)
        return -float(log_probabilities[np.arange(len(saved["labels"])), saved["labels"]].mean())

    return float(min(trials, key=lambda factor: (loss(factor), abs(np.log(factor)))))


def final(base: ConfigDict, workdir: Path, variant: str, seed: int, factors: Mapping[int, float]) -> list[Training]:
    """The trainings of a variant and a seed, one for each learning rate, with the folds for which it was chosen."""
    trainings = []
    for factor in sorted(set(factors.values())):
        config = _at_rate(variant_config(base, variant), factor)
        config.seed = seed
        config.train.folds = folds = tuple(fold for fold in sorted(factors) if factors[fold] == factor)
        name = f"{variant}-seed_{seed}-rate_{factor:g}"
        trainings.append(Training(variant, f"{variant}, seed {seed}", config, workdir / "runs" / name, folds))
    return trainings


def finished_run(trainings: Sequence[Training], seed: int, has_test: bool) -> Run | None:
    """The run that a variant's trainings of one seed make together, if all are finished."""
    if any(training.unfinished(has_test) for training in trainings):
        return None
    workdirs = {fold: training.workdir for training in trainings for fold in training.folds}
    return Run(trainings[0].variant, seed, workdirs)


def _at_rate(config: ConfigDict, factor: float) -> ConfigDict:
    for name in _PEAKS:
        config.optimizer[name] *= factor
    return config


def _load(variant: str, preset: str) -> dict:
    path = CONFIGS / f"{variant}.py"
    if not path.is_file():
        raise UserError(f"There is no {path}; a study needs a configuration from that folder.")
    return _flatten(runpy.run_path(str(path))["get_config"](preset))


def _flatten(config: ConfigDict) -> dict:
    flat = traverse_util.flatten_dict(recorded_fields(config), sep=".")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in flat.items()}
