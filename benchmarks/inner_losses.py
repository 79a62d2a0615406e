"""Mean cross-entropies of a study's variants on inner splits, where its penalties and learning rates were chosen.

    python benchmarks/inner_losses.py --study=runs/study-probes/esc50 --out=benchmarks/study/probes/predictions/esc50

No reported clip enters them, so they may choose between variants. Of each fold the trial with the lowest loss counts,
as in the study. The table goes to the terminal, and with `--out` to that folder's `inner_losses.json`.
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
    """Returns, by variant, `loss`: the mean over folds of the lowest loss of its trials; `by_fold`: that of each."""
    trials: dict[str, dict[str, list[float]]] = {}
    for path in sorted(study.glob(f"search/*-rate_*/fold_*/{VALIDATION}")):
        variant, _, _ = path.parents[1].name.rpartition("-rate_")
        loss = mean_loss(load_predictions(path))
        trials.setdefault(variant, {}).setdefault(path.parent.name.removeprefix("fold_"), []).append(loss)
    by_fold = {variant: {fold: min(each) for fold, each in folds.items()} for variant, folds in trials.items()}
    most = max(map(len, by_fold.values()), default=0)
    finished = {variant: folds for variant, folds in by_fold.items() if len(folds) == most}
    return {variant: {"loss": float(np.mean([*f.values()])), "by_fold": f} for variant, f in finished.items()}


def read(predictions: Path) -> dict[str, float]:
    """Returns the committed losses by variant of a data set's predictions; empty if there are none."""
    path = predictions / FILE
    return {name: each["loss"] for name, each in json.loads(path.read_text()).items()} if path.exists() else {}


if __name__ == "__main__":
    main()
