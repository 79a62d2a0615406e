"""A study: trains what is missing of every variant, fold and seed, then writes the report."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from audiotag_jax.datasets.prepare import dataset_name
from audiotag_jax.runtime.errors import Diverged, UserError
from audiotag_jax.runtime.files import write_json
from audiotag_jax.runtime.paths import check_checkpoint_path
from audiotag_jax.runtime.processes import is_main_process
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.settings import Settings
from audiotag_jax.study import report
from audiotag_jax.study.plan import (
    Training,
    check_study,
    choose_factor,
    final,
    finished_run,
    read_trained,
    search,
    searched,
    variant_names,
    variant_settings,
    without_networks,
    without_repetitions,
)
from audiotag_jax.study.results import Run
from audiotag_jax.study.verdict import duration
from audiotag_jax.training import train
from audiotag_jax.training.experiment import Experiment, check_devices, open_experiment
from audiotag_jax.training.initial_weights import check_pretrained
from audiotag_jax.training.input_pipeline import Batches, TrainingOrder
from audiotag_jax.training.steps import replicate
from audiotag_jax.training.workdir import lock_workdir

_TIMED_STEPS = 5
_PROBE_BUDGET = "a linear classifier of frozen features, solved to its optimum; no seed changes it"


def run(settings: Settings, workdir: Path) -> tuple[list[Run], tuple[str, ...], list[tuple[str, str]]]:
    """Runs a study: never a finished training again, an interrupted one continues; the report comes last.

    Returns the finished runs, the classes, and what every variant was given.
    """
    check_study(settings)
    if settings.comparison.train:
        check_checkpoint_path(str(workdir.absolute()))  # before any dataset is prepared
    settings = without_repetitions(settings)
    variants = without_networks(settings, variant_names(settings.comparison))
    check_devices(settings, trains=settings.comparison.train)
    with lock_workdir(workdir):
        study = open_study(settings, workdir, variants)
        log(study.describe())
        if settings.comparison.train:
            study.train()
        runs = [run for run in study.finished_runs() if run]
        baseline = settings.comparison.baseline
        if baseline not in (run.variant for run in runs):
            raise UserError(f"{workdir} has no finished run of the baseline {baseline} to report on.")
        write_json(workdir / "choices.json", {name: study.factors(name) for name in variants})
        budget = study.budget(len(runs))
        report.write(settings, workdir, runs, study.classes, budget)
        return runs, study.classes, budget


@dataclasses.dataclass(frozen=True)
class Study:
    """The trainings of a study, and how long they take."""

    settings: Settings
    workdir: Path
    variants: tuple[str, ...]
    folds: tuple[int, ...]
    classes: tuple[str, ...]
    has_test: bool
    steps: dict[bool, int]  # of one fold; True: of a trial on an inner split
    seconds_per_step: float

    def trials(self, variant: str) -> dict[float, Training]:
        """Returns the trials of the learning rates, by factor; none where there is nothing to choose."""
        one = len(self.settings.comparison.rate_factors) == 1
        return {} if one else search(self.settings, self.workdir, variant, self.folds)

    def factors(self, variant: str) -> dict[int, float] | None:
        """Returns the factor of the learning rates chosen for each fold, None before all trials are finished."""
        trials = self.trials(variant)
        if not trials:
            return dict.fromkeys(self.folds, float(self.settings.comparison.rate_factors[0]))
        if any(trial.unfinished(self.has_test) for trial in trials.values()):
            return None
        return {fold: choose_factor(trials, fold) for fold in self.folds}

    def trainings(self) -> Iterator[Training]:
        """Yields all trainings in order; raises UserError at those after a search that is not finished."""
        for seed in self.settings.comparison.seeds:
            for variant in self.variants:
                yield from self.trials(variant).values()
                factors = self.factors(variant)
                if factors is None:
                    raise UserError(
                        f"The trials of {variant} are not finished; its {searched(self.settings)} cannot be chosen."
                    )
                yield from final(self.settings, self.workdir, variant, seed, factors)

    def check(self) -> None:
        """Raises UserError if what was trained before has other settings than this study, or saw other data."""
        for variant in self.variants:
            # A report alone may come from another machine: there, what was trained must only agree with itself.
            dataset = dataset_name(variant_settings(self.settings, variant)) if self.settings.comparison.train else None
            for trial in self.trials(variant).values():
                dataset = trial.check(dataset)
            factors = self.factors(variant)
            for seed in self.settings.comparison.seeds if factors else ():
                for training in final(self.settings, self.workdir, variant, seed, factors or {}):
                    dataset = training.check(dataset)

    def finished_runs(self) -> Iterator:
        """Yields the runs variant by variant, None for one that is not finished."""
        for variant in self.variants:
            factors = self.factors(variant)
            for seed in self.settings.comparison.seeds if factors else ():
                trainings = final(self.settings, self.workdir, variant, seed, factors or {})
                yield finished_run(trainings, seed, self.has_test)

    def train(self) -> None:
        """Runs what is not finished."""
        left = self.steps_left()
        paces: list[float] = []  # seconds a step, of each training: few have to compile, or to prepare
        for training in self.trainings():
            folds = training.unfinished(self.has_test)
            if folds:
                pace = np.median(paces) if paces else self.seconds_per_step
                about = f"; about {duration(pace * left)} left" if pace else ""
                log(f"study: {training.title}, folds {_listed(folds)}{about}")
            elif training.settings.training.inner_split or (training.workdir / "summary.json").exists():
                continue
            start = time.monotonic()
            self.run_training(training, folds or training.folds)
            if steps := len(folds) * self.steps[training.settings.training.inner_split]:
                paces.append((time.monotonic() - start) / steps)
                left -= steps

    def run_training(self, training: Training, folds: tuple[int, ...]) -> None:
        """Runs mode `train` on the folds; of a trial, one that diverges is recorded, and the others are trained."""
        while folds:
            now = dataclasses.replace(training.settings.training, folds=folds)
            try:
                train.run(dataclasses.replace(training.settings, training=now), training.workdir)
                return
            except Diverged as error:
                if not now.inner_split:
                    raise
                fold, *others = (fold for fold in folds if not training.has_logits(fold, self.has_test))
                log(f"{error}\nThis trial counts as worse than any other.")
                if is_main_process():
                    write_json(training.diverged(fold), {"reason": str(error)})
                folds = tuple(others)

    def steps_left(self) -> int:
        """Counts the steps of all unfinished folds; where a choice is not made yet, its folds count at factor 1."""
        return sum(count * self.steps[inner] for inner, (count, _) in self.count_folds().items())

    def count_folds(self) -> dict[bool, tuple[int, int]]:
        """Counts the folds that are left and all folds, of the trials (True) and of the rest (False)."""
        counts = {True: [0, 0], False: [0, 0]}
        for variant in self.variants:
            for trial in self.trials(variant).values():
                counts[True][0] += len(trial.unfinished(self.has_test))
                counts[True][1] += len(self.folds)
            factors = self.factors(variant) or dict.fromkeys(self.folds, 1.0)
            for seed in self.settings.comparison.seeds:
                trainings = final(self.settings, self.workdir, variant, seed, factors)
                counts[False][0] += sum(len(training.unfinished(self.has_test)) for training in trainings)
                counts[False][1] += len(self.folds)
        return {inner: (left, total) for inner, (left, total) in counts.items()}

    def describe(self) -> str:
        """Describes the plan in a few lines of text."""
        study, counts = self.settings.comparison, self.count_folds()
        factors = ", ".join(f"{factor:g}" for factor in study.rate_factors)
        probe = self.settings.training.probe
        of_steps = {inner: "" if probe or not num else f" of {num} steps" for inner, num in self.steps.items()}
        lines = [
            f"study of {len(self.variants)} variants, {len(self.folds)} folds, seeds {_listed(study.seeds)}; "
            f"baseline {study.baseline}",
            f"{'probes' if probe else 'trainings'}: {counts[False][1]}{of_steps[False]}, {counts[False][0]} of them "
            "to do",
        ]
        if counts[True][1]:
            lines.append(
                f"{searched(self.settings)} x {factors} tried on inner splits: {counts[True][1]} trainings"
                f"{of_steps[True]}, {counts[True][0]} of them to do"
            )
        left = self.steps_left()
        if not study.train and any(unfinished for unfinished, _ in counts.values()):
            lines.append("nothing is trained now: the report is on what is finished")
        elif left and self.seconds_per_step:
            lines.append(
                f"about {duration(left * self.seconds_per_step)} to go, at {1e3 * self.seconds_per_step:.0f} ms "
                f"for a step of {study.baseline}; plus compilation and the preparation of missing datasets"
            )
        return "\n".join(lines)

    def budget(self, num_runs: int) -> list[tuple[str, str]]:
        """Describes what every variant is given, for the report, and how many runs are missing beside `num_runs`."""
        study, train_fields = self.settings.comparison, self.settings.training
        factors = ", ".join(f"{factor:g}" for factor in study.rate_factors)
        epochs = train_fields.frozen_epochs + train_fields.num_epochs
        probe, of_trial = train_fields.probe, f", {train_fields.frozen_epochs + study.search_epochs} epochs, one seed"
        chosen = f"× {factors}, chosen for each fold on an inner split{'' if probe else of_trial}"
        budget = f"{self.steps[False]} steps ({epochs} epochs)" if self.steps[False] else f"{epochs} epochs"
        steps = f"{budget} in batches of {train_fields.batch_size}"
        wanted = len(self.variants) * len(study.seeds)
        lacking = f"{wanted - num_runs} of {wanted} runs (a variant with a seed), which are left out"
        return [
            ("folds", str(len(self.folds))),
            ("seeds", _listed(study.seeds)),
            ("budget", _PROBE_BUDGET if probe else steps),
            (searched(self.settings), chosen if len(study.rate_factors) > 1 else f"× {factors}, not searched"),
            *([("not finished", lacking)] if num_runs < wanted else []),
        ]


def open_study(settings: Settings, workdir: Path, variants: tuple[str, ...]) -> Study:
    """Returns the study of these settings; prepares the baseline's dataset, and times a few steps if any are left."""
    for variant in variants:
        variant_settings(settings, variant)  # bad values are found before any training
    if not settings.comparison.train:  # a report needs no data, and computes none
        found = read_trained(workdir, settings.comparison.baseline)
        steps = {False: found.num_steps, True: 0}
        facts = (found.folds, found.classes, found.has_test, steps)
        study = Study(settings, workdir, variants, *facts, seconds_per_step=0.0)
        study.check()
        return study
    if not (workdir / "runs").exists():
        check_pretrained(settings.model)  # before anything is prepared
    experiment = open_experiment(variant_settings(settings, settings.comparison.baseline))
    folds, steps = experiment.all_folds, {False: experiment.num_steps, True: 0}
    if len(settings.comparison.rate_factors) > 1 and len(folds) < 3:
        raise UserError(
            f"The search of the {searched(settings)} needs three folds, but there are {len(folds)}; use more "
            "(config.dataset.num_folds), or skip the search with --config.study.rate_factors='(1.0,)'."
        )
    if len(settings.comparison.rate_factors) > 1:
        trial = search(settings, workdir, settings.comparison.baseline, folds)[settings.comparison.rate_factors[0]]
        steps[True] = open_experiment(trial.settings).num_steps
    study = Study(
        settings=settings,
        workdir=workdir,
        variants=variants,
        folds=folds,
        classes=tuple(experiment.classes),
        has_test=experiment.test_examples is not None,
        steps=steps,
        seconds_per_step=0.0,
    )
    study.check()
    if not study.steps_left() or settings.training.probe:
        return study
    log("timing a few steps; the first compiles")
    return dataclasses.replace(study, seconds_per_step=_time_step(experiment))


def _time_step(experiment: Experiment) -> float:
    """Returns the seconds of a training step, the median of a few, on a state that is discarded."""
    fold = experiment.all_folds[0]
    state, clips = replicate(experiment.initial_state(fold)), experiment.training_clips(fold)
    order = TrainingOrder(clips, experiment.steps_per_epoch, experiment.num_steps, experiment.settings.seed, fold)
    batches = Batches(experiment.examples, order, experiment.settings.training.batch_size, experiment.resident)
    stop = {"stop": np.zeros(jax.local_device_count(), np.float32)}
    times = []
    for step in range(1 + _TIMED_STEPS):
        start = time.monotonic()
        batch = batches[step % len(batches)] | stop
        state, metrics = experiment.programs.train_step(state, batch, experiment.data, experiment.key(fold))
        jax.block_until_ready(metrics)
        times.append(time.monotonic() - start)
    return float(np.median(times[1:]))


def _listed(values) -> str:
    return ", ".join(map(str, values))
