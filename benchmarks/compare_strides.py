"""Compares the strides of high-resolution variants by saved predictions: differences, and whether they are equivalent.

    for s in 1 8 32 64; do python main.py --config=configs/log_db.py:esc50_probe --mode=study \\
        --config.study.datasets=benchmarks/study/datasets.toml:drums --config.study.baseline=hires_q2 \\
        --config.study.variants="('hires_q8',)" --config.spectral.stride=$s --workdir=runs/stride-$s; done
    python benchmarks/compare_strides.py --dataset=drums runs/stride-1 runs/stride-8 runs/stride-32 runs/stride-64

The first folder is the baseline; p values are corrected over all comparisons of all variants.
"""

import argparse
import dataclasses
from pathlib import Path

from audiotag_jax.evaluation.intervals import correct
from audiotag_jax.study import store
from audiotag_jax.study.across import across
from audiotag_jax.study.datasets import PREDICTIONS
from audiotag_jax.study.results import Results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", type=Path, help="of the studies, that of the baseline first")
    parser.add_argument("--dataset", required=True, help="a name in the list of data sets")
    parser.add_argument("--margin", type=float, default=0.01)
    options = parser.parse_args()
    rows = compare(options.workdirs, options.dataset, options.margin)
    print("| variant | run | difference in accuracy | p | equivalent (p) |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        equivalent = "yes" if row["p_equivalence_holm"] < 0.05 else "no"
        difference = f"{row['value']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
        p = f"{row['p_bootstrap_holm']:.3f} | {equivalent} ({row['p_equivalence_holm']:.3f})"
        print(f"| {row['variant']} | {row['run']} | {difference} | {p} |")


def compare(workdirs: list[Path], dataset: str, margin: float, **options: int) -> list[dict]:
    """Returns the differences of each variant between the runs and the first of them, p values corrected over all."""
    saved = {path.name: store.read(path / PREDICTIONS / dataset) for path in workdirs}
    first = next(iter(saved))
    rows = []
    for variant in saved[first].results.variants:
        runs = tuple(dataclasses.replace(each.results[variant.variant], variant=name) for name, each in saved.items())
        shared = saved[first].results
        results = Results(shared.classes, shared.held_out, None, runs, shared.recordings)
        one = {dataset: store.Saved(results, [], None)}
        found = across(one, baseline=first, margin=margin, pooled=[], **options)["datasets"][dataset]["differences"]
        rows += [each | {"variant": variant.variant, "run": each["variant"]} for each in found]
    for name in ("p_bootstrap", "p_equivalence"):
        correct(rows, name)
    return rows


if __name__ == "__main__":
    main()
