"""Gathers the finished folds of runs, trained apart, in one file of predictions, and keeps those already in it.

    python benchmarks/gather_folds.py runs/f0 runs/f1 --out=gathered/mix_q1_q4_q8-seed_0.npz

The folds of one network may be trained on several machines, one after another (`--config.train.folds`). The file is one
of a study's saved predictions, VARIANT-seed_S.npz: log-probabilities in float16, in the order of ids; mode `compare`
takes it by `--predictions`. Beside those of a study (`about.json`) it is listed there once it has all clips.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.evaluation.predictions import VALIDATION, load_predictions  # noqa: E402
from audiotag_jax.runtime.errors import NPZ_ERRORS, UserError  # noqa: E402
from audiotag_jax.runtime.files import write_json, write_npz  # noqa: E402
from audiotag_jax.settings.record import read_record  # noqa: E402
from audiotag_jax.study.store import ABOUT, compact  # noqa: E402

_OF_CLIPS = ("ids", "labels", "verified", "recordings")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="work directories of mode train, of the same settings")
    parser.add_argument("--out", required=True, type=Path, help="the file, .npz")
    options = parser.parse_args()
    try:
        folds = gather(options.runs, options.out)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"{options.out}: folds {', '.join(map(str, folds))}")


def gather(runs: Iterable[Path], out: Path) -> list[int]:
    """Adds the folds of `runs` to the file `out`, and returns all that it then has. Raises UserError."""
    variant, _, seed = out.stem.rpartition("-seed_")
    if not variant or not seed.isdecimal() or out.suffix != ".npz":
        raise UserError(f"{out} is not named as a study's predictions are: VARIANT-seed_S.npz")
    parts = [_stored(out)] if out.exists() else []
    for run in runs:
        record = read_record(run)
        if (of_run := f"{record.settings.name}-seed_{record.settings.seed}") != out.stem:
            raise UserError(f"{run} is of {of_run}, not of {out.stem}")
        classes = record.classes
        for path in sorted(run.glob(f"fold_*/{VALIDATION}")):
            parts.append(_of_fold(path, classes))
    if not parts:
        raise UserError("none of the runs has a finished fold")
    if any(not np.array_equal(part["classes"], parts[0]["classes"]) for part in parts):
        raise UserError("the runs have different classes")
    names = [name for name in parts[0] if name != "classes"]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    ids, order, counts = np.unique(joined["ids"], return_index=True, return_counts=True)
    if counts.max() > 1:
        raise UserError(f"{np.sum(counts > 1)} clips are held out twice, such as {ids[counts > 1][0]}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_npz(out, **{name: values[order] for name, values in joined.items()}, classes=parts[0]["classes"])
    if (out.parent / ABOUT).exists():
        _list_in(out.parent / ABOUT, {"variant": variant, "seed": int(seed), "file": out.name}, ids)
    return np.unique(joined["folds"]).tolist()


def _list_in(about: Path, entry: dict[str, Any], ids: np.ndarray) -> None:
    """Lists a file in a study's record of its files and seeds, unless it is there or lacks clips of the others."""
    saved = json.loads(about.read_text(encoding="utf-8"))
    files = saved["files"]
    if entry in files or (files and not np.array_equal(_stored(about.parent / files[0]["file"])["ids"], ids)):
        return
    files.append(entry)
    by_variant: dict[str, set[int]] = {}
    for each in files:
        by_variant.setdefault(each["variant"], set()).add(each["seed"])
    seeds = ", ".join(map(str, sorted(set.intersection(*by_variant.values()))))
    saved["about"] = [[what, seeds if what == "seeds" else how] for what, how in saved["about"]]
    write_json(about, saved)


def _stored(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as saved:
            return {
                name: saved[name] for name in ("ids", "labels", "verified", "recordings", "folds", "logits", "classes")
            }
    except NPZ_ERRORS as error:
        raise UserError(f"{path} is damaged ({error})") from error


def _of_fold(path: Path, classes: Sequence[str]) -> dict[str, np.ndarray]:
    saved = load_predictions(path)
    found = {name: saved[name] for name in _OF_CLIPS}
    found["folds"] = np.full(len(saved["ids"]), int(path.parent.name.removeprefix("fold_")))
    return found | {"logits": compact(saved["logits"]), "classes": np.array(classes, str)}


if __name__ == "__main__":
    main()
