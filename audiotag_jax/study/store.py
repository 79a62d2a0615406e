"""Saved predictions of a study on one data set: a small file for each variant and seed, enough to repeat the report."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from audiotag_jax.datasets.prepare import prepare_run_clips, stored_datasets
from audiotag_jax.datasets.reader import read_split
from audiotag_jax.evaluation.descriptors import Descriptors, describe
from audiotag_jax.evaluation.predictions import load_predictions
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.errors import NPZ_ERRORS, UserError
from audiotag_jax.runtime.files import write_json, write_npz
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.settings import Settings
from audiotag_jax.study.results import Clips, Results, VariantLogits

ABOUT, _DESCRIPTORS = "about.json", "descriptors.npz"
_LOWEST = -60000.0  # float16 ends at -65504


@dataclasses.dataclass(frozen=True)
class Saved:
    """A data set's results, `about` as pairs of what and how, and by name the descriptors [n] of its clips, or None."""

    results: Results
    about: list[tuple[str, str]]
    descriptors: Mapping[str, np.ndarray] | None


def exists(folder: Path) -> bool:
    """Returns whether predictions were saved in `folder`."""
    return (folder / ABOUT).exists()


def write(folder: Path, results: Results, about: Sequence[tuple[str, str]]) -> None:
    """Saves held-out predictions: `VARIANT-seed_S.npz`, each as a fold's predictions are, with `folds` and `classes`.

    The logits are log-probabilities in float16, of two bytes a class, which are finest where a class is likely; where
    clips have any number of labels, the logits themselves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips = results.held_out
    shared = {field.name: getattr(clips, field.name) for field in dataclasses.fields(Clips)}
    shared |= {"recordings": np.array([results.recordings.get(clip, "") for clip in clips.ids.tolist()], str)}
    shared |= {"classes": np.array(results.classes, str)}
    files: list[dict[str, Any]] = []
    for variant in results.variants:
        for place, seed in enumerate(variant.seeds):
            logits = variant.of_seed(place, test=False)
            saved = _in_float16(np.minimum(logits, -_LOWEST)) if results.task is MULTI_LABEL else compact(logits)
            files.append({"variant": variant.variant, "seed": int(seed), "file": f"{variant.variant}-seed_{seed}.npz"})
            write_npz(folder / files[-1]["file"], **shared, logits=saved)
    write_json(folder / ABOUT, {"about": [list(pair) for pair in about], "files": files})


def compact(logits: np.ndarray) -> np.ndarray:
    """Returns log-probabilities in float16 of logits `[n, K]`, as a study saves them where a clip has one label."""
    return _in_float16(scipy.special.log_softmax(logits.astype(np.float64), axis=-1))


def _in_float16(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, _LOWEST).astype(np.float16)


def read(folder: Path) -> Saved:
    """Reads what `write` and `write_descriptors` saved; raises UserError on a missing, damaged or inconsistent file."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        files, pairs = about["files"], [(what, how) for what, how in about["about"]]
        seeds: dict[str, list[tuple[int, Path]]] = {}
        for each in files:
            seeds.setdefault(each["variant"], []).append((int(each["seed"]), folder / each["file"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / ABOUT} is damaged ({error}).") from error
    first, recordings, classes = _clips(folder / files[0]["file"])
    variants = []
    for name, of_seeds in seeds.items():
        for _, path in sorted(of_seeds):
            clips, *others = _clips(path)
            if not _same(clips, first) or others != [recordings, classes]:
                raise UserError(f"{path} and {folder / files[0]['file']} are of different clips, labels or folds.")
        logits = [functools.partial(_logits, path) for _, path in sorted(of_seeds)]
        variants.append(VariantLogits(name, tuple(seed for seed, _ in sorted(of_seeds)), logits, None))
    results = Results(classes, first, None, tuple(variants), recordings)
    return Saved(results, pairs, _read_descriptors(folder, first))


def check_same_clips(first: Results, second: Results, where: str) -> None:
    """Raises UserError, which names `where`, unless both have the same clips, labels, folds, recordings and classes."""
    same = first.classes == second.classes and first.recordings == second.recordings
    if not (same and _same(first.held_out, second.held_out)):
        raise UserError(f"{where} differs in clips, labels, folds, recordings or classes, or in their order.")


def write_descriptors(folder: Path, settings: Settings, *, prepare: bool) -> None:
    """Describes the clips of a data set, once: `descriptors.npz` with ids and one array [n] for each descriptor.

    Without `prepare`, nothing is written where the clips are not prepared. Raises UserError as `prepare_run_clips`.
    """
    if (folder / _DESCRIPTORS).exists():
        return
    clips_dir = prepare_run_clips(settings) if prepare else stored_datasets(settings)[0]
    if clips_dir is None:
        log(f"the clips of {folder.name} are not prepared: no comparison by kind of sound")
    examples = None if clips_dir is None else read_split(clips_dir, "train")
    if examples is None:
        return
    log(f"describing {len(examples.ids)} sounds")
    rate_hz = settings.dataset.sample_rate_hz
    rows = [describe(examples.inputs[np.array([k])][0], rate_hz) for k in range(len(examples.ids))]
    columns = dict(zip(Descriptors._fields, np.array(rows, np.float32).T, strict=True))
    write_npz(folder / _DESCRIPTORS, ids=examples.ids, **columns)


def _read_descriptors(folder: Path, clips: Clips) -> dict[str, np.ndarray] | None:
    path = folder / _DESCRIPTORS
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            saved = {name: file[name] for name in ("ids", *Descriptors._fields)}
    except NPZ_ERRORS as error:
        raise UserError(f"{path} is damaged ({error}); remove it and run the same command again.") from error
    order = np.argsort(saved["ids"], kind="stable")
    places = order[np.searchsorted(saved["ids"][order], clips.ids).clip(max=len(order) - 1)]
    if not np.array_equal(saved["ids"][places], clips.ids):
        raise UserError(f"{path} lacks some of the clips that were tagged; remove it and run the same command again.")
    return {name: saved[name][places].astype(np.float64) for name in Descriptors._fields}


def _clips(path: Path) -> tuple[Clips, dict[str, str], tuple[str, ...]]:
    """Reads the clips of a file, the recordings that it names by id, and its classes."""
    saved = load_predictions(path, logits=False)
    try:
        with np.load(path) as more:
            if not {"folds", "classes"} <= set(more.files):
                raise UserError(f"{path} lacks folds or classes.")
            folds, classes = more["folds"], tuple(more["classes"].tolist())
    except NPZ_ERRORS as error:
        raise UserError(f"{path} is damaged ({error}).") from error
    named = saved["recordings"] != ""
    recordings = dict(zip(saved["ids"][named].tolist(), saved["recordings"][named].tolist(), strict=True))
    return Clips(saved["ids"], saved["labels"], saved["verified"], folds), recordings, classes


def _logits(path: Path) -> np.ndarray:
    return load_predictions(path)["logits"].astype(np.float32)


def _same(first: Clips, second: Clips) -> bool:
    return all(
        np.array_equal(getattr(first, each.name), getattr(second, each.name)) for each in dataclasses.fields(Clips)
    )
