"""The section of the study's report on a network of which some folds are trained (`gather_folds.py`) and others not."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation.predictions import load_predictions
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.study import store
from audiotag_jax.study.across import across
from audiotag_jax.study.markdown import interval, table
from audiotag_jax.study.results import Clips, VariantLogits
from benchmarks.study_sections import BASELINE, MARGIN

FOLDER = "unfinished"  # beside the predictions of a family; in it DATASET/VARIANT-seed_S.npz


def unfinished(family: Path, saved: Mapping[str, store.Saved]) -> list[str]:
    """Returns for each unfinished network a table of all variants of `saved` on the clips that it held out so far."""
    lines = []
    for path in sorted((family / FOLDER).glob("*/*-seed_*.npz")):
        variant, _, seed = path.stem.rpartition("-seed_")
        whole = saved[path.parent.name]
        some = with_partial(whole, path, variant, int(seed))
        found = across({path.parent.name: some}, baseline=BASELINE, margin=MARGIN, pooled=[])
        [each] = found["datasets"].values()
        num_folds = [len(np.unique(one.results.held_out.folds)) for one in (some, whole)]
        lines += [
            f"`{variant}` is not finished: {num_folds[0]} of {num_folds[1]} folds of {path.parent.name} are trained, "
            f"{each['num_clips']:,} clips. All variants on these clips; intervals over recordings, no test:",
            "",
        ]
        rows = [[f"`{BASELINE}`", interval(each["variants"][BASELINE]), ""]]
        rows += [
            [f"`{d['variant']}`", interval(each["variants"][d["variant"]]), interval(d, "+")]
            for d in each["differences"]
        ]
        lines += table((path.parent.name, "accuracy", f"difference to `{BASELINE}`"), rows)
    return lines


def with_partial(whole: store.Saved, path: Path, variant: str, seed: int) -> store.Saved:
    """Returns `whole` on the clips of the file at `path` alone, with its `variant`; raises UserError if they differ."""
    partial, clips = load_predictions(path), whole.results.held_out
    place = {clip: row for row, clip in enumerate(clips.ids.tolist())}
    if unknown := [clip for clip in partial["ids"].tolist() if clip not in place]:
        raise UserError(f"{path} has clips that the finished variants lack, such as {unknown[0]}.")
    rows = np.array([place[clip] for clip in partial["ids"].tolist()])
    some = Clips(**{field.name: getattr(clips, field.name)[rows] for field in dataclasses.fields(Clips)})
    if not np.array_equal(some.labels, partial["labels"]):
        raise UserError(f"{path} has other labels than the finished variants.")
    logits = {v.variant: v.of_seed(v.seeds.index(seed), test=False)[rows] for v in whole.results.variants}
    logits[variant] = partial["logits"].astype(np.float32)
    variants = tuple(VariantLogits(name, (seed,), each[None], None) for name, each in logits.items())
    return store.Saved(dataclasses.replace(whole.results, held_out=some, variants=variants), whole.about, None)
