r"""Measures report, compare and the report of a study on tables of the size of FSD50K: page size, time, peak memory.

    python benchmarks/long_tables.py --out=/tmp/long_tables [--clips=51000] [--classes=200] [--variants=14] \
        [--seeds=3] [--folds=5] [--several] [--kinds=report,compare,study]

The predictions are synthetic: classes are as frequent as 1 / rank, logits are noise to which each network adds the
label's, and that of a class which it is often taken for. With `several`, clips have one to three labels. They are
written as finished runs of the first variants of configs/, once; a folder that has them is used again. Each
measurement runs in a process of its own.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

STRENGTH, CONFUSED = 6.0, 4.5  # of the label's logit, and of the class that it is taken for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=51_000)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--variants", type=int, default=14)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--several", action="store_true", help="one to three labels a clip")
    parser.add_argument("--kinds", default="report,compare,study")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.out)))
        return
    if not options.out.exists():
        write_runs(options)
    size = sum(file.stat().st_size for file in options.out.glob("runs/*/fold_*/predictions.npz"))
    print(f"{options.clips} clips, {options.classes} classes, {options.variants} variants, {options.seeds} seeds, "
          f"{options.folds} folds: {size / 2**30:.2f} GiB of predictions", flush=True)  # fmt: skip
    for kind in options.kinds.split(","):
        command = [sys.executable, __file__, f"--out={options.out}", f"--measure={kind}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{kind}: {', '.join(f'{name} {value}' for name, value in found.items())}", flush=True)


def write_runs(options: argparse.Namespace) -> None:
    """Writes work directories as `--mode=study` lays them out, without checkpoints."""
    from audiotag_jax.settings.record import fold_dir
    from audiotag_jax.settings.settings import parse_settings
    from audiotag_jax.settings.variants import get_config
    from audiotag_jax.training.workdir import record_config

    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, options.classes + 1)
    labels = rng.choice(options.classes, (options.clips, 3), p=shares / shares.sum())
    taken_for = rng.permutation(options.classes)
    folds = np.arange(options.clips) % options.folds
    ids = np.array([f"{n:06d}.wav" for n in range(options.clips)])
    truth = labels[:, 0]
    if options.several:
        truth = np.zeros((options.clips, options.classes), np.int8)
        for place in range(3):
            chosen = np.flatnonzero(rng.integers(1, 4, options.clips) > place)
            truth[chosen, labels[chosen, place]] = 1
    classes = [f"class {k:03d}, of a name" for k in range(options.classes)]
    names = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*_*.py"))
    for name in [each for each in names if each != "__init__"][: options.variants]:
        for seed in range(options.seeds):
            settings = parse_settings(get_config(name, "folder").to_dict())
            workdir = options.out / "runs" / f"{name}-seed_{seed}"
            workdir.mkdir(parents=True)
            record_config(workdir, dataclasses.replace(settings, seed=seed), classes, "synthetic")
            logits = rng.standard_normal((options.clips, options.classes), np.float32)
            rows = np.arange(options.clips)
            if options.several:
                logits += STRENGTH * truth - 4
            else:
                logits[rows, truth] += STRENGTH * rng.random(options.clips)
            logits[rows, taken_for[labels[:, 0]]] += CONFUSED * rng.random(options.clips)
            for fold in range(options.folds):
                own = folds == fold
                arrays = {"ids": ids[own], "labels": truth[own], "verified": rows[own] % 3 == 0, "logits": logits[own]}
                fold_dir(workdir, fold).mkdir(parents=True)
                with (fold_dir(workdir, fold) / "predictions.npz").open("wb") as file:
                    np.savez(file, **arrays, recordings=np.full(own.sum(), ""))


def measure(kind: str, out: Path) -> dict:
    """Makes one kind of report; returns the size of its page (MB), seconds and peak memory (GiB)."""
    start = time.monotonic()
    runs = sorted((out / "runs").iterdir())
    if kind == "report":
        from audiotag_jax.study import run_report

        page = runs[0] / "report.html"
        run_report.run(runs[0])
    elif kind == "compare":
        from audiotag_jax.study import compare

        page = out / "compared" / "report.html"
        compare.run(page.parent, [str(out)], [], None, "", [], "")
    else:
        page = out / "study" / "report.html"
        study_report(runs, page.parent)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "page_mb": round(page.stat().st_size / 1e6, 1),
        "seconds": round(time.monotonic() - start),
        "seconds_of_cpu": round(used.ru_utime + used.ru_stime),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
    }


def study_report(workdirs: list[Path], out: Path) -> None:
    from audiotag_jax.settings.record import read_record
    from audiotag_jax.settings.settings import parse_settings
    from audiotag_jax.settings.variants import get_config
    from audiotag_jax.study import report
    from audiotag_jax.study.results import Run

    out.mkdir(exist_ok=True)
    records = [read_record(path) for path in workdirs]
    runs = []
    for path, record in zip(workdirs, records, strict=True):
        folds = range(len(list(path.glob("fold_*"))))
        runs.append(Run(record.settings.name, record.settings.seed, dict.fromkeys(folds, path)))
    config = get_config(records[0].settings.name, "folder")
    config.study.baseline = records[0].settings.name
    report.write(parse_settings(config.to_dict()), out, runs, records[0].classes, [])


if __name__ == "__main__":
    main()
