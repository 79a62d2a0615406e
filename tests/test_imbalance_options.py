"""The benchmark of options for rare classes and noisy labels: what it changes, and the scores that it shows."""

import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(ROOT / "benchmarks/imbalance.py"))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return [
        {"path": f"{n}.wav", "label": "abcd"[n % 4], "fold": str(1 + n // 100 % 5), "recording": f"r{n // 10}"}
        for n in range(1000)
    ]


def test_only_training_clips_are_changed(script, rows):
    left_out, scored = script["outer_fold"](rows, 4)
    assert (left_out, scored) == ("5", "1")
    of_fold = Counter((row["fold"], row["label"]) for row in rows)
    for change in ("rare", "noisy"):
        found, rare = script["changed"](rows, change, 4)
        assert [row for row in found if row["fold"] in "51"] == [
            row | {"verified": "1"} for row in rows if row["fold"] in "51"
        ]
        training = [row for row in found if row["fold"] not in "51"]
        counts = Counter(row["label"] for row in training)
        if change == "rare":
            assert len(rare) == 2
            assert {name: counts[name] for name in "abcd"} == {name: 30 if name in rare else 150 for name in "abcd"}
        else:
            assert len(training) == 600 and not rare
            labels = {row["path"]: row["label"] for row in rows}
            wrong = [row for row in training if row["label"] != labels[row["path"]]]
            unverified = [row for row in training if row["verified"] == "0"]
            assert all(row["verified"] == "0" for row in wrong)
            assert len(unverified) == pytest.approx(420, abs=40) and len(wrong) == pytest.approx(168, abs=35)
    assert of_fold == Counter((row["fold"], row["label"]) for row in rows)  # the rows given stay as they are


def test_the_table_has_scikit_learn_s_scores(script, rows, tmp_path):
    rng, named = np.random.default_rng(0), list(script["OPTIONS"]["rare"])
    scores = np.zeros((2, len(named), 3))
    for seed in (0, 1):
        rare = script["changed"](rows, "rare", seed)[1]
        own = [row for row in rows if row["fold"] == str(seed + 2)]
        labels = np.array(["abcd".index(row["label"]) for row in own])
        for number in range(len(named)):
            logits = rng.normal(size=(len(own), 4)) + (1 + number) * np.eye(4)[labels]
            folder = script["workdir"](tmp_path, "rare", seed, number) / f"fold_{seed}"
            folder.mkdir(parents=True)
            np.savez(
                folder / "predictions.npz",
                ids=np.array([row["path"] for row in own]),
                labels=labels,
                verified=np.ones(len(own), bool),
                recordings=np.array([row["recording"] for row in own]),
                logits=logits,
            )
            chosen = logits.argmax(1)
            of_rare = recall_score(labels, chosen, labels=["abcd".index(name) for name in rare], average="macro")
            scores[seed, number] = (chosen == labels).mean(), of_rare, balanced_accuracy_score(labels, chosen)
    lines = script["show"](rows, "rare", (0, 1, 2), tmp_path).splitlines()
    assert lines[0].startswith("rare: 2 seeds, 400 scored clips, 40 recordings")
    cells = [[cell.split(" ")[0] for cell in line.strip("| ").split(" | ")[1:4]] for line in lines[4:]]
    mean = scores.mean(0)
    assert cells[0] == [f"{value:.3f}" for value in mean[0]]
    assert cells[1:] == [[f"{value:+.3f}" for value in row - mean[0]] for row in mean[1:]]
    assert script["show"](rows, "noisy", (0, 1), tmp_path) == "noisy: no seed is finished"
