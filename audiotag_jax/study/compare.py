"""Mode `compare`: runs and predictions made elsewhere, scored on the clips they have in common as a study is."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotag_jax.datasets import fsdkaggle2018
from audiotag_jax.evaluation.foreign import read_labels
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked, write_npz
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.record import FILE_NAME, recorded_dataset
from audiotag_jax.study.alignment import align, average
from audiotag_jax.study.report import describe_machine, describe_network, mean_curve, write_report
from audiotag_jax.study.results import Clips, Results, VariantLogits
from audiotag_jax.study.shown import Shown, open_media
from audiotag_jax.study.sources import Network, Sources, paths_of, read_sources
from audiotag_jax.study.statistics import study_scores
from audiotag_jax.study.unequal import notes_on_folds, notes_on_settings
from audiotag_jax.study.verdict import check_score
from audiotag_jax.training.evaluate import write_submission

_LISTED = 3  # paths of one row


def run(
    workdir: Path,
    runs: Sequence[str],
    predictions: Sequence[str],
    labels: Path | None,
    baseline: str,
    averages: Sequence[str],
    score: str,
) -> None:
    """Writes the report of the comparison, and the averages, into `workdir`.

    `runs` and `predictions` are `[NAME=]PATH`, `averages` `NAME+NAME`. Raises UserError on whatever cannot be compared.
    """
    check_score(score, "--score")
    if (workdir / FILE_NAME).exists():
        raise UserError(f"{workdir} contains a run; name another --workdir for the comparison.")
    if (workdir / "runs").exists() or (workdir / "choices.json").exists():
        raise UserError(f"{workdir} contains a study; name another --workdir for the comparison.")
    sources = read_sources(runs, predictions)
    baseline = baseline or next(iter(sources))
    _check_known("--baseline", baseline, sources)
    members = {each: each.split("+") for each in dict.fromkeys(averages)}
    for name, chosen in members.items():
        for member in chosen:
            _check_known(f"--average={name}", member, sources)
        if len(set(chosen)) < 2:
            raise UserError(f"--average={name}: name two or more different predictions, as A+B.")
    results, notes = align(sources, baseline, read_labels(labels) if labels else None)
    notes += notes_on_folds(sources, results.held_out) + notes_on_settings(sources, baseline)
    check_score(score, "--score", results.task)
    made = [average(results, name, chosen, results[baseline].seeds[0]) for name, chosen in members.items()]
    results = dataclasses.replace(results, variants=(*results.variants, *made))
    with locked(workdir, "using"):
        _remove_averages(workdir)
        for note in notes:
            log(f"note: {note}")
        for variant in made:
            _write_average(workdir, results, variant)
            _write_submission(workdir, results, variant, [sources[name] for name in members[variant.variant]], made)
        scores = study_scores(results, baseline, _usage(sources), results.recordings, averages=False)
        scores |= {"score": score, "averages": list(members), **_origins(sources)}
        networks = {name: each[0] for name, each in sources.items()}
        shown = {
            name: Shown(each.settings, recorded_dataset(each.path)) for name, each in networks.items() if each.settings
        }
        shown |= {name: shown[chosen[0]] for name, chosen in members.items() if chosen[0] in shown}
        curves = {
            name: mean_curve([each.run for each in of_name if each.run])
            for name, of_name in sources.items()
            if any(each.run for each in of_name)
        }
        about = [*_describe(sources, results), *((f"note {n}", note) for n, note in enumerate(notes, 1))]
        about += describe_machine()
        write_report(workdir, results, scores, about, curves, open_media(shown), title="Predictions compared")


def _remove_averages(workdir: Path) -> None:
    """Removes the averages that an earlier comparison wrote here, which this one may not have."""
    try:
        earlier = json.loads((workdir / "scores.json").read_text(encoding="utf-8")).get("averages", [])
    except (OSError, ValueError):
        return
    for name in earlier:
        for file in (f"predictions_{name}.npz", f"test_predictions_{name}.npz", f"submission_{name}.csv"):
            (workdir / file).unlink(missing_ok=True)
    if len(earlier) == 1:
        (workdir / "submission.csv").unlink(missing_ok=True)


def _check_known(option: str, name: str, sources: Sources) -> None:
    if name not in sources:
        raise UserError(f"{option}: there is no {name!r} here; choose from {', '.join(sources)}.")


def _usage(sources: Sources) -> dict[str, str]:
    """Returns "Public" or "Private" by test clip where a run is on the challenge's data and its table exists."""
    for network in (network for each in sources.values() for network in each):
        dataset = network.settings.dataset if network.settings is not None else None
        if dataset is not None and dataset.source == "fsdkaggle2018" and Path(dataset.path).is_dir():
            return fsdkaggle2018.test_usage(dataset.path)
    return {}


def _origins(sources: Sources) -> dict:
    """Returns whether all networks are `probes`, and the sources with predictions from files (`elsewhere`)."""
    networks = [network for each in sources.values() for network in each]
    probes = all(network.settings is not None and network.settings.training.probe for network in networks)
    elsewhere = [name for name, each in sources.items() if any(network.path.is_file() for network in each)]
    return {"probes": probes, "elsewhere": elsewhere}


def _describe(sources: Sources, results: Results) -> list[tuple[str, str]]:
    counts = f"{len(results.held_out)} clips held out"
    if results.test is not None:
        counts += f", {len(results.test)} test clips"
    rows = [("clips in common", f"{counts}; {len(results.classes)} classes")]
    for name, networks in sources.items():
        paths = [str(path) for network in networks for path in paths_of(network)]
        more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
        rows.append((name, f"{', '.join(paths[:_LISTED])}{more}"))
        if networks[0].settings is not None:
            rows += describe_network(networks[0].settings.model, f" of {name}")
    return rows


def _write_average(workdir: Path, results: Results, variant: VariantLogits) -> None:
    """Saves an average as predictions that this mode reads again; those of test clips in a file beside them."""
    for test, clips in ((False, results.held_out), (True, results.test)):
        if clips is None or not len(clips):
            continue
        path = workdir / f"{'test_' * test}predictions_{variant.variant}.npz"
        shared = {field.name: getattr(clips, field.name) for field in dataclasses.fields(Clips)}
        recordings = np.array([results.recordings.get(clip, "") for clip in clips.ids.tolist()], str)
        classes, logits = np.array(results.classes, str), variant.by_fold(test)[0, 0]
        write_npz(path, **shared, recordings=recordings, classes=classes, logits=logits)
        log(f"written: {path}")


def _write_submission(
    workdir: Path,
    results: Results,
    variant: VariantLogits,
    members: Sequence[Sequence[Network]],
    made: Sequence[VariantLogits],
) -> None:
    """Writes the submission of an average, with the rows of one that a member wrote; nothing where there is none."""
    written = [network.path / "submission.csv" for each in members for network in each if network.settings]
    sample = next((path for path in written if path.is_file()), None)
    if sample is None or results.test is None or not variant.has_test:
        return
    with sample.open(newline="", encoding="utf-8") as file:
        order = [row[0] for row in csv.reader(file)][1:]
    if set(order) != set(results.test.ids.tolist()):
        log(f"note: no submission of {variant.variant}, since not all predictions have all of its {len(order)} clips")
        return
    path = workdir / ("submission.csv" if len(made) == 1 else f"submission_{variant.variant}.csv")
    predictions = {"ids": results.test.ids, "labels": results.test.labels, "logits": variant.by_fold(True)[0, 0]}
    write_submission(path, predictions, results.classes, order)
    log(f"written: {path}")
