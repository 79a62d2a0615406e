"""Compares the strides of high-resolution variants by saved predictions: differences, and whether they are equivalent.

    for s in 1 8 32 64; do python main.py --config=configs/log_db.py:esc50_probe --mode=study \\
        --config.study.datasets=benchmarks/study/datasets.toml:drums --config.study.baseline=hires_q2 \\
        --config.study.variants="('hires_q8',)" --config.spectral.stride=$s --workdir=runs/stride-$s; done
    python benchmarks/compare_strides.py --dataset=drums runs/stride-1 runs/stride-8 runs/stride-32 runs/stride-64

The first folder is the baseline; p values are corrected over all comparisons of all variants.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.evaluation.intervals import LEVEL, correct  # noqa: E402
from audiotag_jax.runtime.errors import UserError  # noqa: E402
from audiotag_jax.study import store  # noqa: E402
from audiotag_jax.study.across import across  # noqa: E402
from audiotag_jax.study.datasets import PREDICTIONS  # noqa: E402
from audiotag_jax.study.markdown import interval, table  # noqa: E402
from audiotag_jax.study.naming import p_text  # noqa: E402
from audiotag_jax.study.results import Results  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", type=Path, help="of the studies, that of the baseline first")
    parser.add_argument("--dataset", required=True, help="a name in the list of data sets")
    parser.add_argument("--margin", type=float, default=0.01)
    options = parser.parse_args()
    print(*rows_table(compare(options.workdirs, options.dataset, options.margin), options.margin), sep="\n")


def rows_table(rows: list[dict], margin: float) -> list[str]:
    """Returns the differences of `compare` as lines of a Markdown table."""
    cells = []
    for row in rows:
        p, p_equivalent = (p_text(row[f"{key}_holm"]) for key in ("p_bootstrap", "p_equivalence"))
        equivalent = f"{'yes' if row['p_equivalence_holm'] < LEVEL else 'no'} ({p_equivalent})"
        cells.append([f"`{row['variant']}`", row["run"], interval(row, "+"), p, equivalent])
    return table(("variant", "run", "difference in accuracy", "p", f"equivalent within {margin:g} (p)"), cells)


def compare(workdirs: list[Path], dataset: str, margin: float, **options: int) -> list[dict]:
    """Returns the differences of each variant between the runs and the first of them, corrected over all.

    Raises UserError if the runs are of other clips, or two folders have the same name.
    """
    if len({path.name for path in workdirs}) < len(workdirs):
        raise UserError("Two of the folders have the same name; rename one of them.")
    saved = {path.name: store.read(path / PREDICTIONS / dataset) for path in workdirs}
    first = next(iter(saved))
    shared = saved[first].results
    for name, each in saved.items():
        store.check_same_clips(shared, each.results, name)
    rows = []
    for variant in shared.variants:
        runs = tuple(dataclasses.replace(each.results[variant.variant], variant=name) for name, each in saved.items())
        results = Results(shared.classes, shared.held_out, None, runs, shared.recordings)
        one = {dataset: store.Saved(results, [], None)}
        found = across(one, baseline=first, margin=margin, pooled=[], **options)["datasets"][dataset]["differences"]
        rows += [each | {"variant": variant.variant, "run": each["variant"]} for each in found]
    for name in ("p_bootstrap", "p_equivalence"):
        correct(rows, name)
    return rows


if __name__ == "__main__":
    main()
