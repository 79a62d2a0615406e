"""Reports and comparisons of clips with any number of labels: figures of the summary and of scikit-learn."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score
from test_html import Page

from audiotag_jax.evaluation import multilabel
from audiotag_jax.evaluation.decision import cross_fit
from audiotag_jax.evaluation.predictions import TEST, VALIDATION, concatenate, load_predictions
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_json, write_npz
from audiotag_jax.settings.record import FORMAT, fold_dir
from audiotag_jax.settings.settings import parse_settings, recorded_fields
from audiotag_jax.study import compare, run_report
from audiotag_jax.study.several_page import confused
from audiotag_jax.study.several_run import find_suspects
from configs import log_db

CLASSES = ("bird", "dog", "rain; sea")  # a class may have a separator in its name
NUM_CLIPS, NUM_TEST = 90, 20
RNG = np.random.default_rng(0)
IDS = np.array([f"{n:02d}.wav" for n in range(NUM_CLIPS)])
LABELS = (RNG.random((NUM_CLIPS, 3)) < (0.5, 0.3, 0.4)).astype(np.int8)
RECORDINGS = np.array([f"r{n // 2}" for n in range(NUM_CLIPS)])


def write_run(folder, logits, labels=LABELS):
    """A work directory with predictions of two folds, held out and test; the last test clip has no label."""
    settings = parse_settings(log_db.get_config("folder"))
    record = {"format": FORMAT, "config": recorded_fields(settings), "classes": list(CLASSES), "dataset": "none"}
    folder.mkdir(parents=True)
    write_json(folder / "config.json", record)
    truth = (np.arange(NUM_TEST)[:, None] >> np.arange(3) & 1).astype(np.int8)
    truth[-1] = -1
    lines = []
    for fold in (0, 1):
        chosen = np.flatnonzero(np.arange(NUM_CLIPS) // 2 % 2 == fold)[::-1]
        fields = {"ids": IDS, "labels": labels, "verified": np.arange(NUM_CLIPS) % 4 > 0, "recordings": RECORDINGS}
        fold_dir(folder, fold).mkdir()
        write_npz(
            fold_dir(folder, fold) / VALIDATION, logits=logits[chosen], **{k: v[chosen] for k, v in fields.items()}
        )
        fields = {"ids": np.array([f"t{n:02d}" for n in range(NUM_TEST)]), "labels": truth}
        fields |= {"verified": np.ones(NUM_TEST, bool), "recordings": np.full(NUM_TEST, "")}
        noise = np.random.default_rng(fold).normal(size=truth.shape)
        write_npz(fold_dir(folder, fold) / TEST, logits=(noise + 2.0 * truth).astype(np.float32), **fields)
        lines += [{"fold": fold, "step": n, "split": "validation", "loss": 1 / n, "map": 0.5} for n in (1, 2)]
        lines += [{"fold": fold, "step": n, "split": "train", "loss": 1 / n} for n in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def noisy(seed, strength):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=LABELS.shape) + strength * LABELS - 1).astype(np.float32)


def held_out(workdir):
    return concatenate([load_predictions(fold_dir(workdir, fold) / VALIDATION) for fold in (0, 1)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", noisy(1, 2.5))


@pytest.fixture(scope="module")
def table(finished):
    return multilabel.score_table(held_out(finished), CLASSES)


def test_the_report_of_a_run(finished, table, capsys):
    run_report.run(finished)
    saved = held_out(finished)
    assert table["map"]["value"] == pytest.approx(average_precision_score(saved["labels"], saved["logits"]))
    _, tags = cross_fit(saved["logits"], saved["labels"], np.repeat((0, 1), (46, 44)))
    f1 = f"macro F1 {f1_score(saved['labels'], tags, average='macro'):.3f} ("
    assert f"mAP {table['map']['value']:.3f} (" in (out := capsys.readouterr().out) and f1 in out
    page = Page((finished / "report.html").read_text())
    text = " ".join(page.text.split())
    for each in (table["map"], *(table["classes"][name]["average_precision"] for name in CLASSES)):
        assert f"{each['value']:.3f} [{each['low']:.3f}, {each['high']:.3f}]" in text
    for title in ("held out, all", "held out, verified", "fold 0", "fold 1", "test, mean of the folds"):
        assert title in text
    labels = [each.get("aria-label", "") for tag, each in page.elements if tag == "svg"]
    assert any(each.startswith("mAP over steps") for each in labels)
    assert not any(each.startswith("Confusion matrix") for each in labels)


def test_doubtful_labels_are_those_that_were_changed(tmp_path):
    wrong = LABELS.copy()
    wrong[3] = 1 - wrong[3]
    workdir = write_run(tmp_path / "run", np.where(LABELS == 1, 6.0, -6.0).astype(np.float32), wrong)
    run_report.run(workdir)
    with (workdir / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["03.wav"] * 3
    assert (
        rows[0]["label"] == "; ".join(name for k, name in enumerate(CLASSES) if wrong[3, k]) and rows[0]["fold"] == "1"
    )
    found = {row["tag"]: row["finding"] for row in rows}
    expected = ("label doubtful", "label missing")
    assert found == {name: expected[LABELS[3, k]] for k, name in enumerate(CLASSES)}
    doubts = [float(row["doubt"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)


def test_suspects_by_hand():
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], bool)
    probabilities = np.array([[0.1, 0.6], [0.4, 0.1], [0.2, 0.9], [0.3, 0.4]])
    found = find_suspects(probabilities, truth, np.array(list("abcd")))
    assert [(each.clip, each.number, each.finding) for each in found] == [
        (0, 0, "label doubtful"),  # 0.1 of a share of 0.5
        (0, 1, "label missing"),
    ]
    assert [each.doubt for each in found] == pytest.approx([0.8, 0.6])


def test_guesses_of_a_single_label():
    truth = np.zeros((4, 3), bool)
    assert multilabel.guesses(truth)["map"] == 0.0
    truth[1, 2] = True
    assert multilabel.guesses(truth)["map"] == 0.25


def test_confusions_by_hand():
    truth = np.array([[1, 0, 0]] * 4 + [[0, 0, 1]] * 4, bool)
    tags = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], bool)
    [pair] = confused(tags, truth, ("a", "b", "c"))
    assert (pair.label, pair.tag, pair.num_clips, pair.num_false, pair.missed) == ("a", "b", 4, 3, 2)
    assert pair.rate == 0.5  # of all eight clips, none of which is labelled b


def test_compared_with_predictions_made_elsewhere(finished, table, tmp_path):
    saved = held_out(finished)
    weak = saved["logits"] + 4 * np.random.default_rng(0).normal(size=saved["logits"].shape)
    with (tmp_path / "weak.csv").open("w", newline="") as file:
        rows = zip(saved["ids"], 1 / (1 + np.exp(-weak.astype(np.float64))), strict=True)
        csv.writer(file).writerows([("id", *CLASSES), *((clip, *map(repr, row.tolist())) for clip, row in rows)])
    out = tmp_path / "compared"
    compare.run(out, [f"own={finished}"], [f"weak={tmp_path / 'weak.csv'}"], None, "", ["own+weak"], "lwlrap")
    scores = json.loads((out / "scores.json").read_text())
    assert scores["task"] == "multi_label" and scores["score"] == "lwlrap"
    rows = {row["name"]: row for row in scores["rows"] if (row["part"], row["clips"]) == ("held out", "all")}
    assert rows["own"]["scores"] == {name: table[name] for name in multilabel.METRICS}
    expected = average_precision_score(saved["labels"], weak)
    assert rows["weak"]["scores"]["map"]["value"] == pytest.approx(expected)
    [difference] = [
        each
        for each in scores["differences"]
        if (each["variant"], each["score"], each["clips"]) == ("weak", "map", "all")
    ]
    assert difference["value"] == pytest.approx(expected - table["map"]["value"])
    assert difference["p_bootstrap_holm"] < 0.05 and difference["p_swap_holm"] < 0.05
    page = Page((out / "report.html").read_text())
    assert "Tags confused" in page.text and "Tags by thresholds" in page.text and "Confusion matrix" not in page.text
    text = (out / "report.md").read_text()
    f1 = scores["decisions"][0]["f1_macro"]
    assert "swap test's p" in text and f"| own | {f1['value']:.3f} ({f1['low']:.3f} to {f1['high']:.3f}) |" in text
    mean = np.load(out / "predictions_own+weak.npz")
    both = (1 / (1 + np.exp(-saved["logits"].astype(np.float64))) + 1 / (1 + np.exp(-weak.astype(np.float64)))) / 2
    order = np.argsort(saved["ids"])
    np.testing.assert_allclose(1 / (1 + np.exp(-mean["logits"].astype(np.float64))), both[order], atol=1e-6)
    np.testing.assert_array_equal(mean["labels"], saved["labels"][order])
    again = tmp_path / "again"  # the file alone has all that is needed
    compare.run(again, [], [f"a={out / 'predictions_own+weak.npz'}", f"b={tmp_path / 'weak.csv'}"], None, "", [], "")
    of_file = json.loads((again / "scores.json").read_text())
    found = [row["scores"] for row in of_file["rows"] if (row["name"], row["clips"]) == ("b", "all")]
    assert found == [rows["weak"]["scores"]]


def test_labels_of_a_table_are_lists(finished, tmp_path):
    saved = held_out(finished)
    classes = ("bird", "dog", "rain")
    write_npz(tmp_path / "own.npz", ids=saved["ids"], classes=np.array(classes), logits=saved["logits"])
    names = [";".join(classes[k] for k in np.flatnonzero(row)) for row in saved["labels"]]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "label"), *zip(saved["ids"], names, strict=True)])
    files = [f"a={tmp_path / 'own.npz'}"]
    compare.run(tmp_path / "out", [], files, tmp_path / "labels.csv", "", [], "")
    [row] = json.loads((tmp_path / "out" / "scores.json").read_text())["rows"]
    known = np.array(names) != ""  # an empty cell: no label known
    assert row["num_clips"] == known.sum()
    expected = average_precision_score(saved["labels"][known], saved["logits"][known])
    assert row["scores"]["map"]["value"] == pytest.approx(expected)
    with (tmp_path / "labels.csv").open("a", newline="") as file:
        csv.writer(file).writerow(("x.wav", "bird;wolf"))
    with pytest.raises(UserError, match="Clip 'x.wav' has the label"):
        compare.run(tmp_path / "out", [], files, tmp_path / "labels.csv", "", [], "")
    with pytest.raises(UserError, match="--score: unknown score 'accuracy'; choose from map, lwlrap, micro_ap"):
        compare.run(tmp_path / "other", [str(finished)], [], None, "", [], "accuracy")


def test_a_score_that_no_class_defines_is_left_out(tmp_path):
    """Where every clip has every label, no class has a ROC curve: no NaN, which JSON lacks, and a page without it."""
    run = write_run(tmp_path / "run", noisy(1, 2.5), np.ones_like(LABELS))
    compare.run(tmp_path / "out", [str(run)], [], None, "", [], "map")

    def no_constant(name):
        pytest.fail(f"{name} in scores.json")

    scores = json.loads((tmp_path / "out" / "scores.json").read_text(), parse_constant=no_constant)
    rows = [row for row in scores["rows"] if row["part"] == "held out"]
    assert rows and all(row["by_seed"]["macro_auc"] == [None] for row in rows)
    assert all(row["scores"]["macro_auc"]["value"] is None and row["by_seed"]["map"] == [1.0] for row in rows)
