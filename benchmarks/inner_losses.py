"""Mean cross-entropies of a study's variants on inner splits, where its penalties and learning rates were chosen.

    python benchmarks/inner_losses.py --study=runs/study-probes/esc50 --out=benchmarks/study/probes/predictions/esc50

Of each fold the trial with the lowest loss counts, as in the study. The inner splits of all folds together contain
every clip: what is chosen by these means is confirmed by other data sets only. The table goes to the terminal, and with
`--out` to that folder's `inner_losses.json`.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.evaluation.predictions import VALIDATION, load_predictions, mean_loss  # noqa: E402
from audiotag_jax.runtime.files import write_json  # noqa: E402
from audiotag_jax.study.markdown import table  # noqa: E402

FILE = "inner_losses.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, type=Path, help="folder of a study on one data set")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    options = parser.parse_args()
    found = inner_losses(options.study)
    if not found:
        sys.exit(f"{options.study} has no finished trials on inner splits")
    ordered = sorted(found.items(), key=lambda item: item[1]["loss"])
    print(*table(("variant", "cross-entropy"), [[name, f"{each['loss']:.4f}"] for name, each in ordered]), sep="\n")
    if options.out:
        write_json(options.out / FILE, dict(ordered))


def inner_losses(study: Path) -> dict[str, dict]:
    """Returns by variant `loss`, the mean over folds of the lowest loss of its trials, and `by_fold`, that of each.

    Variants that lack a fold or a trial of another variant are left out.
    """
    trials: dict[str, dict[str, dict[str, float]]] = {}
    for path in sorted(study.glob(f"search/*-rate_*/fold_*/{VALIDATION}")):
        variant, _, factor = path.parents[1].name.rpartition("-rate_")
        fold = path.parent.name.removeprefix("fold_")
        trials.setdefault(variant, {}).setdefault(fold, {})[factor] = mean_loss(load_predictions(path))
    made = {
        variant: {(fold, factor) for fold, each in folds.items() for factor in each}
        for variant, folds in trials.items()
    }
    wanted = set().union(*made.values())
    found = {}
    for variant in (name for name in trials if made[name] == wanted):
        by_fold = {fold: min(each.values()) for fold, each in trials[variant].items()}
        found[variant] = {"loss": float(np.mean([*by_fold.values()])), "by_fold": by_fold}
    return found


def read(predictions: Path) -> dict[str, float]:
    """Returns the committed losses by variant of a data set's predictions; empty if there are none."""
    return {name: each["loss"] for name, each in _load(predictions).items()}


def read_by_fold(predictions: Path) -> dict[str, dict[str, float]]:
    """Returns the same by variant and fold."""
    return {name: each["by_fold"] for name, each in _load(predictions).items()}


def _load(predictions: Path) -> dict[str, dict]:
    path = predictions / FILE
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    main()
