"""Paired tests of scores with several labels: how often they reject where there is nothing, and how long they take.

    python benchmarks/multilabel_tests.py null --number=500
    python benchmarks/multilabel_tests.py speed --clips=2500 --classes=50

`null` draws pairs of equally good networks on 100 recordings of three clips each, with six classes; one has logits 1.7
times as large. `speed` compares the time of a bootstrap resample with that of scikit-learn's scores of it.
"""

import argparse
import time

import numpy as np

from audiotag_jax.evaluation.multilabel import CLASS_METRICS, METRICS, resamples, scores
from audiotag_jax.evaluation.paired import bootstrap_difference, swap_test

LEVEL, SWAPS = 0.05, 300
NUM_RECORDINGS, CLIPS_A_RECORDING, NUM_CLASSES = 100, 3, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("null").add_argument("--number", type=int, default=500, help="of pairs of networks")
    speed = actions.add_parser("speed")
    speed.add_argument("--clips", type=int, default=2500)
    speed.add_argument("--classes", type=int, default=50)
    options = parser.parse_args()
    print(null_rates(options.number) if options.action == "null" else speed_of(options.clips, options.classes))


def null_rates(number: int) -> str:
    """Returns a table of the share of pairs that each test rejects; of scores by class that of all classes."""
    names = (*METRICS, *CLASS_METRICS)
    rejected: dict[str, list] = {name: [] for name in names}
    for seed in range(number):
        first, second, truth, groups = equally_good(np.random.default_rng(seed))
        swaps = swap_test(first, second, truth, groups, num_swaps=SWAPS)
        drawn = resamples(groups, truth.size, number=SWAPS)
        one = np.ones((1, len(truth)))
        values = [(scores(each, truth, one), scores(each, truth, drawn)) for each in (first, second)]
        for name in names:
            (a, resampled_a), (b, resampled_b) = ((seen[name], resampled[name]) for seen, resampled in values)
            bootstrap = bootstrap_difference(resampled_a, resampled_b, a[0] - b[0]).p
            both = np.maximum(bootstrap, swaps[name])
            rejected[name].append([np.mean(np.asarray(p) < LEVEL) for p in (bootstrap, swaps[name], both)])
    lines = ["| score | bootstrap | swaps | both |", "| --- | --- | --- | --- |"]
    for name, shares in rejected.items():
        lines.append(f"| {name} | {' | '.join(f'{share:.3f}' for share in np.mean(shares, axis=0))} |")
    return "\n".join(lines)


def equally_good(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws logits [n, K] of two networks with errors in common and of their own, the truth, and recordings [n]."""
    size = (NUM_RECORDINGS, NUM_CLASSES)

    def of_clips(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, CLIPS_A_RECORDING, axis=0)

    truth = of_clips(rng.random(size) < np.linspace(0.1, 0.4, NUM_CLASSES))
    common = 1.2 * truth + 0.7 * of_clips(rng.normal(size=size))
    first, second = (
        common + 0.5 * of_clips(rng.normal(size=size)) + 0.5 * rng.normal(size=truth.shape) for _ in range(2)
    )
    return first, 1.7 * second, truth, of_clips(np.arange(NUM_RECORDINGS))


def speed_of(num_clips: int, num_classes: int) -> str:
    """Reports seconds of all resamples and the ratio to scikit-learn's average precisions and ROC AUC, in one line."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    truth = rng.random((num_clips, num_classes)) < 0.04
    logits = (rng.normal(size=truth.shape) + 2 * truth).astype(np.float32)
    drawn = resamples(np.arange(num_clips), truth.size)
    start = time.perf_counter()
    found = scores(logits, truth, drawn)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    own = {"sample_weight": drawn[0]}
    expected = average_precision_score(truth, logits, **own)
    micro = average_precision_score(truth, logits, average="micro", **own)
    auc = roc_auc_score(truth, logits, **own)
    theirs = time.perf_counter() - start
    largest = max(abs(found[name][0] - value) for name, value in zip(METRICS, (expected, None, micro, auc), strict=True)
                  if value is not None)  # fmt: skip
    return (
        f"{num_clips} clips, {num_classes} classes, {len(drawn)} resamples: {ours:.2f} s; scikit-learn {theirs:.3f} s "
        f"a resample, ratio {theirs * len(drawn) / ours:.0f}; largest difference {largest:.1g}"
    )


if __name__ == "__main__":
    main()
