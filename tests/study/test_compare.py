"""Runs and predictions made elsewhere, compared: figures known beforehand, those of a study, and errors in one line."""

import csv
import json
import os
import shutil
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from audiotag_jax import cli
from audiotag_jax.evaluation.foreign import read_foreign
from audiotag_jax.evaluation.predictions import TEST, VALIDATION, concatenate, load_predictions, select
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_json, write_npz
from audiotag_jax.settings.record import FORMAT, fold_dir
from audiotag_jax.settings.settings import parse_settings, recorded_fields
from audiotag_jax.settings.variants import get_config
from audiotag_jax.study import compare, store
from audiotag_jax.study.alignment import align
from audiotag_jax.study.results import Run, read_results
from audiotag_jax.study.sources import Network
from audiotag_jax.study.statistics import study_scores
from audiotag_jax.study.verdict import is_real
from configs import log_db, mel_db

CLASSES = ("bell", "dog", "rain", "sea", "wind")
NUM_CLIPS, NUM_TEST = 60, 25
RNG = np.random.default_rng(0)
IDS = np.array([f"{n:03d}.wav" for n in range(NUM_CLIPS)])
LABELS = RNG.integers(0, 5, NUM_CLIPS)
RECORDINGS = np.array([f"r{n // 3}" for n in range(NUM_CLIPS)])


def logits_of(seed, labels=LABELS, strength=1.5):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(len(labels), 5)) + strength * np.eye(5)[labels]).astype(np.float32)


def write_run(folder, config, seed):
    """A work directory with predictions of two folds, held out and test."""
    settings = parse_settings(config.get_config("folder"))
    record = {"format": FORMAT, "config": recorded_fields(settings) | {"seed": seed % 10}, "classes": list(CLASSES)}
    folder.mkdir(parents=True)
    write_json(folder / "config.json", record | {"dataset": "none"})
    order = np.random.default_rng(seed).permutation(NUM_CLIPS)  # no order can be relied on
    logits, verified = logits_of(seed), np.arange(NUM_CLIPS) % 4 > 0
    test = np.arange(NUM_TEST) % 5
    lines = []
    for fold in (0, 1):
        chosen = order[order % 2 == fold]
        held = {"ids": IDS[chosen], "labels": LABELS[chosen], "verified": verified[chosen], "logits": logits[chosen]}
        fold_dir(folder, fold).mkdir()
        write_npz(fold_dir(folder, fold) / VALIDATION, **held, recordings=RECORDINGS[chosen])
        ids, flags = np.array([f"t{n:02d}" for n in range(NUM_TEST)]), np.ones(NUM_TEST, bool)
        answers = {"logits": logits_of(100 + seed + fold, test), "recordings": np.full(NUM_TEST, "")}
        write_npz(fold_dir(folder, fold) / TEST, ids=ids, labels=test, verified=flags, **answers)
        lines += [{"fold": fold, "step": step, "split": "train", "loss": 1 / step} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with (folder / "submission.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("fname", "label"), *((clip, "bell dog rain") for clip in ids[::-1])])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        (name, seed): write_run(folder / f"{name}-{seed}", config, seed + 10 * number)
        for number, (name, config) in enumerate({"log_db": log_db, "mel_db": mel_db}.items())
        for seed in (0, 1)
    }


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def run(workdir, runs=(), predictions=(), labels=None, baseline="", averages=(), score=""):
    compare.run(workdir, [str(each) for each in runs], predictions, labels, baseline, averages, score)
    return json.loads((workdir / "scores.json").read_text())


def row_of(scores, name, part="held out", clips="all"):
    [row] = [r for r in scores["rows"] if (r["name"], r["part"], r["clips"]) == (name, part, clips)]
    return row


def difference_of(scores, name, score, part="held out"):
    key = (name, score, part, "all")
    [found] = [d for d in scores["differences"] if (d["variant"], d["score"], d["part"], d["clips"]) == key]
    return found


def test_the_same_runs_have_the_figures_of_a_study(runs, tmp_path):
    named = [f"{name}={path}" for (name, _), path in runs.items()]
    scores = run(tmp_path / "out", named)
    listed = [Run(name, seed, {0: path, 1: path}) for (name, seed), path in runs.items()]
    results = read_results(listed, CLASSES)
    study = study_scores(results, "log_db", recordings=results.recordings)
    kept = [row for row in study["rows"] if row["kind"] != "variants"]  # of which a comparison makes the chosen ones
    assert len(kept) == len(scores["rows"]) > 10 and {row["part"] for row in kept} == {"held out", "test"}
    assert json.loads(json.dumps(kept)) == scores["rows"]
    assert json.loads(json.dumps(study["differences"])) == scores["differences"]
    assert scores["rows"][0]["num_recordings"] == NUM_CLIPS // 3
    page = (tmp_path / "out/report.html").read_text()
    assert "Learning curves" in page and "no images, no audio players" in page


def test_predictions_of_known_figures(tmp_path):
    """A is right on 45 of 60 clips, B on 51: on 12 that A misses and not on 6 that A gets right."""
    right = {"A": np.arange(60) < 45, "B": (np.arange(60) >= 6) & (np.arange(60) < 57)}
    files, expected = [], {}
    for name, each in right.items():
        answers = np.where(each, LABELS, (LABELS + 1) % 5)
        probabilities = np.eye(5)[answers] * 0.6 + 0.08
        expected[name] = probabilities
        files.append(f"{name}={tmp_path / name}.csv")
        order = np.random.default_rng(1).permutation(60)
        write_csv(tmp_path / f"{name}.csv", ["clip", *CLASSES], [(IDS[n], *probabilities[n]) for n in order])
    labels = write_csv(tmp_path / "labels.csv", ["fname", "label"], [(IDS[n], CLASSES[LABELS[n]]) for n in range(60)])
    scores = run(tmp_path / "out", (), files, labels)
    for name, probabilities in expected.items():
        found = row_of(scores, name)["scores"]
        assert found["accuracy"]["value"] == pytest.approx(accuracy_score(LABELS, probabilities.argmax(1)))
        wrong = 1 - top_k_accuracy_score(LABELS, probabilities + 1e-9 * -np.arange(5), k=3)  # of ties the first class
        assert found["top3_error"]["value"] == pytest.approx(wrong)
    difference = difference_of(scores, "B", "accuracy")
    assert difference["value"] == pytest.approx(6 / 60) and difference["discordant"] == [12, 6]
    assert difference["p_mcnemar"] == pytest.approx(scipy.stats.binomtest(6, 18).pvalue)
    assert not is_real(difference)
    assert difference["standard_error"] == pytest.approx(np.std(right["B"] * 1.0 - right["A"]) / 60**0.5, rel=0.03)
    page = (tmp_path / "out/report.html").read_text()
    assert "A and B came from files" in page and "B could not be distinguished from A" in page


def simulated(rng, strength_b):
    """Two files' networks on 60 clips, whose answers have the same chances where the strengths are the same."""
    labels = {clip: CLASSES[label] for clip, label in zip(IDS, LABELS, strict=True)}
    shared = rng.normal(size=(60, 5))  # both find the same clips hard
    sources = {}
    for name, strength in (("A", 1.0), ("B", strength_b)):
        logits = shared + rng.normal(size=(60, 5)) + strength * np.eye(5)[LABELS]
        by_id = dict(zip(IDS, logits, strict=True))
        sources[name] = [Network(name, None, CLASSES, by_id, {}, labels, {}, {}, {})]
    return study_scores(align(sources, "A")[0], "A", averages=False, num_resamples=399)["differences"]


def test_where_there_is_no_difference_one_is_found_in_less_than_one_of_twenty():
    rng = np.random.default_rng(2)
    null = [simulated(rng, 1.0) for _ in range(300)]
    most = scipy.stats.binom.ppf(0.999, 300, 0.05)
    for score in range(3):
        assert sum(is_real(found[score]) for found in null) <= most, score
        assert 3 <= sum(found[score]["p_bootstrap"] < 0.05 for found in null) <= most, score
    assert sum(is_real(simulated(rng, 4.0)[1]) for _ in range(20)) >= 18


def test_a_file_with_logits_in_another_order_of_classes_beside_a_run(runs, tmp_path):
    """A run's own logits, written with permuted classes and clips, cannot be distinguished from it at all."""
    order, rows = [3, 0, 4, 1, 2], np.random.default_rng(0).permutation(NUM_CLIPS)[:40]
    np.savez(
        tmp_path / "same.npz",
        ids=IDS[rows].astype("S"),
        logits=logits_of(0)[rows][:, order],
        classes=np.array(CLASSES)[order],
    )
    scores = run(tmp_path / "out", [runs["log_db", 0]], [f"same={tmp_path / 'same.npz'}"])
    ours, theirs = (row_of(scores, name) for name in ("log_db-0", "same"))
    assert ours["scores"] == theirs["scores"] and ours["num_clips"] == 40
    assert difference_of(scores, "same", "accuracy")["discordant"] == [0, 0]
    assert not any(row["part"] == "test" for row in scores["rows"])  # the file has no test clips


def test_predictions_of_test_clips_alone_are_compared_on_these(runs, tmp_path):
    logits, labels = logits_of(100, np.arange(NUM_TEST) % 5), np.arange(NUM_TEST) % 5
    ids = [f"t{n:02d}" for n in range(NUM_TEST)]
    path = write_csv(tmp_path / "x.csv", ["id", *CLASSES], [(c, *r) for c, r in zip(ids, logits.tolist(), strict=True)])
    scores = run(tmp_path / "out", [runs["log_db", 0]], [f"x={path}"])
    assert {row["part"] for row in scores["rows"]} == {"test"}
    assert row_of(scores, "x", "test")["scores"]["accuracy"]["value"] == np.mean(logits.argmax(1) == labels)


def test_averages_are_predictions_of_their_own(runs, tmp_path, capsys):
    a, b = runs["log_db", 0], runs["mel_db", 0]
    scores = run(tmp_path / "out", [f"a={a}", f"b={b}"], averages=["a+b"])
    mean = np.mean([scipy.special.softmax(logits_of(seed).astype(float), -1) for seed in (0, 10)], axis=0)
    expected = accuracy_score(LABELS, mean.argmax(1))
    assert row_of(scores, "a+b")["scores"]["accuracy"]["value"] == pytest.approx(expected)
    assert difference_of(scores, "a+b", "accuracy")["p_mcnemar"] is not None
    with np.load(tmp_path / "out/predictions_a+b.npz") as saved:
        np.testing.assert_allclose(np.exp(saved["logits"][np.argsort(saved["ids"])]), mean, atol=1e-6)
    lines = (tmp_path / "out/submission.csv").read_text().splitlines()
    assert lines[0] == "fname,label" and [line[:3] for line in lines[1:]] == [f"t{n:02d}" for n in range(24, -1, -1)]
    tests = [logits_of(100 + seed + fold, np.arange(NUM_TEST) % 5) for seed in (0, 10) for fold in (0, 1)]
    best = np.argsort(-scipy.special.softmax(np.float64(tests), -1).mean(0), axis=1)[:, :3]
    assert lines[1:][::-1] == [f"t{n:02d},{' '.join(CLASSES[k] for k in best[n])}" for n in range(NUM_TEST)]
    again = run(tmp_path / "again", [f"a={a}"], [f"mean={tmp_path / 'out/predictions_a+b.npz'}"])
    assert row_of(again, "mean")["scores"] == row_of(scores, "a+b")["scores"]


def test_predictions_of_a_study_as_a_folder_or_file_by_file(runs, tmp_path):
    results = read_results([Run(name, seed, {0: path, 1: path}) for (name, seed), path in runs.items()], CLASSES)
    store.write(tmp_path / "saved", results, [("data", "x")])
    folder = run(tmp_path / "one", (), [str(tmp_path / "saved")])
    names = [f"{name}={tmp_path / f'saved/{name}-seed_{seed}.npz'}" for name, seed in runs]
    files = run(tmp_path / "two", (), names)
    assert folder["rows"] == files["rows"] and folder["differences"] == files["differences"]
    assert row_of(folder, "mel_db")["seeds"] == [0, 1] and row_of(folder, "mel_db")["num_recordings"] == 20
    assert len(row_of(folder, "mel_db")["by_fold"]["accuracy"]) == 2


def test_a_directory_of_a_study_stands_for_its_runs(runs, tmp_path):
    for (name, seed), path in runs.items():
        (tmp_path / f"study/runs/{name}-seed_{seed}-rate_1").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"study/runs/{name}-seed_{seed}-rate_1").symlink_to(path)
    study = run(tmp_path / "one", [tmp_path / "study"])
    named = run(tmp_path / "two", [f"{name}={path}" for (name, _), path in runs.items()])
    assert study["rows"] == named["rows"] and study["differences"] == named["differences"]
    assert {row["name"] for row in run(tmp_path / "three", [f"x={tmp_path / 'study'}"])["rows"]} >= {"x log_db"}


def changed_run(run, folder, **fields):
    """A copy of a run with other fields of its record, named as `section__field`."""
    shutil.copytree(run, folder)
    record = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        section, _, field = name.partition("__")
        record["config"][section][field] = value
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def said_by_comparing(capsys, folder, *sources):
    compare.run(folder, [str(each) for each in sources], [], None, "", [], "map_at_3")
    return capsys.readouterr().out


def test_other_settings_than_the_variant_are_noted(runs, tmp_path, capsys):
    before = log_db.get_config("folder")
    fields = {
        "train__num_epochs": 3,
        "dataset__duration_s": 2.5,
        "dataset__num_threads": 7,
        "dataset__path": "elsewhere",
    }
    other = changed_run(runs["mel_db", 0], tmp_path / "other", **fields)
    said = said_by_comparing(capsys, tmp_path / "out", f"b={runs['log_db', 0]}", f"a={other}")
    seconds, epochs = before.dataset.duration_s, before.train.num_epochs
    differ = f"dataset.duration_s (2.5, there {seconds}), train.num_epochs (3, there {epochs})"
    assert f"note: a differs from b in more than the variant: {differ}\n" in said
    assert "in more than the variant" in (tmp_path / "out" / "report.md").read_text()
    # another seed of the same name, and a variant whose own file sets more than its channels
    seed = changed_run(runs["mel_db", 1], tmp_path / "seed", train__num_epochs=3)
    said = said_by_comparing(capsys, tmp_path / "more", runs["log_db", 0], f"a={runs['mel_db', 0]}", f"a={seed}")
    assert "note: a differs from log_db-0 in more than the variant: train.num_epochs" in said
    own = get_config("waveform", "folder").to_dict()
    waveform = changed_run(runs["mel_db", 0], tmp_path / "waveform")
    record = json.loads((waveform / "config.json").read_text())
    (waveform / "config.json").write_text(json.dumps(record | {"config": recorded_fields(parse_settings(own))}))
    assert "note:" not in said_by_comparing(
        capsys, tmp_path / "same", *(runs[name, 0] for name in ("log_db", "mel_db")), waveform
    )


def test_other_folds_are_noted_whatever_their_numbers_are(runs, tmp_path, capsys):
    numbered = shutil.copytree(runs["mel_db", 0], tmp_path / "numbered")
    (numbered / "fold_0").rename(numbered / "fold_2")
    assert "note:" not in said_by_comparing(capsys, tmp_path / "one", runs["log_db", 0], numbered)
    other = shutil.copytree(runs["mel_db", 0], tmp_path / "other")
    saved = [load_predictions(fold_dir(other, fold) / VALIDATION) for fold in (0, 1)]
    whole = concatenate(saved)
    for fold in (0, 1):
        half = select(whole, np.arange(len(whole["ids"])) % 2 == fold)
        np.savez(fold_dir(other, fold) / VALIDATION, **half)
    said = said_by_comparing(capsys, tmp_path / "two", runs["log_db", 0], other)
    assert "note: the clips of other were held out in other folds than those whose scores are shown by fold" in said


def test_rates_that_a_study_chose_are_not_noted(runs, tmp_path, capsys):
    rate = log_db.get_config("folder").optimizer.learning_rate_high
    for variant, factor in (("log_db", 1), ("mel_db", 2)):
        folder = tmp_path / f"study/runs/{variant}-seed_0-rate_{factor}"
        changed_run(runs[variant, 0], folder, optimizer__learning_rate_high=factor * rate)
    field = "optimizer.learning_rate_high"
    assert field in said_by_comparing(capsys, tmp_path / "plain", tmp_path / "study")
    (tmp_path / "study/choices.json").write_text("{}")
    assert "note:" not in said_by_comparing(capsys, tmp_path / "of_study", tmp_path / "study")
    alone = changed_run(runs["mel_db", 1], tmp_path / "alone", optimizer__learning_rate_high=rate / 30)
    said = said_by_comparing(capsys, tmp_path / "with_another", tmp_path / "study", alone)
    assert f"alone differs from log_db in more than the variant: {field}" in said


def test_folds_in_several_directories_are_one_network(runs, tmp_path):
    whole, parts = runs["log_db", 0], []
    for fold in (0, 1):
        part = tmp_path / f"part{fold}"
        part.mkdir()
        for name in ("config.json", "metrics.jsonl"):
            (part / name).write_bytes((whole / name).read_bytes())
        (part / f"fold_{fold}").symlink_to(whole / f"fold_{fold}")
        parts.append(f"log_db={part}")
    joined = run(tmp_path / "out", [*parts, f"other={runs['mel_db', 0]}"])
    alone = run(tmp_path / "alone", [f"log_db={whole}", f"other={runs['mel_db', 0]}"])
    assert joined["rows"] == alone["rows"]


def npz(path, **changes):
    arrays = {"ids": IDS, "logits": logits_of(5), "classes": np.array(CLASSES)} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_whole_numbers_may_be_floats(tmp_path):
    """As arrays of pandas and MATLAB are."""
    path = npz(tmp_path / "x.npz", folds=np.arange(60.0) % 2, verified=np.ones(60), labels=LABELS.astype(np.float32))
    read = read_foreign(path)
    np.testing.assert_array_equal(read.folds, np.arange(60) % 2)
    assert read.folds.dtype.kind == "i" and np.all(read.verified)
    assert read.labels.tolist() == [CLASSES[label] for label in LABELS]


NAN = np.where(np.arange(5) == 2, np.nan, logits_of(5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ids": np.array([f"{n}.mp3" for n in range(60)])},
            "x and log_db-0 have no clip in common: ids such as '0.mp3'",
        ),
        ({"ids": np.array(["000.wav", *IDS[:-1]])}, "clip '000.wav' is listed twice"),
        ({"classes": np.array([*CLASSES[:-1], "cat"])}, "lacks the class 'wind', which log_db-0 has"),
        ({"classes": np.array([*CLASSES[:-1], "bell"])}, "class 'bell' is listed twice"),
        ({"classes": None}, "has no array classes; give the work directory of a run by --runs"),
        ({"logits": None}, "needs either logits or probabilities; it has neither"),
        ({"logits": NAN}, "60 clips have NaN or infinite scores, such as '000.wav'"),
        ({"logits": logits_of(5)[:, :4]}, "logits is float32 [60, 4]; numbers of [60] ids and 5 classes"),
        ({"logits": None, "probabilities": logits_of(5)}, "probabilities must be 0 to 1"),
        ({"folds": IDS}, "folds are <U7; whole numbers, -1 for none are needed"),
        ({"verified": IDS}, "verified are <U7; 1 and 0 are needed"),
        ({"folds": np.arange(60) + 0.5}, "folds are float64; whole numbers"),
        ({"folds": np.full(60, np.inf)}, "folds are float64; whole numbers"),
        ({"labels": (LABELS + 1) % 5}, "labels clip '000.wav'"),
        ({"labels": LABELS + 3}, "labels must be numbers of its 5 classes"),
        ({"labels": LABELS + 0.5}, "labels must be numbers of its 5 classes"),
        ({"labels": (LABELS + 1.0) % 5}, "labels clip '000.wav'"),  # whole numbers, as in an array of floats
        ({"ids": IDS.astype(object)}, "is not an NPZ file of plain arrays"),
    ],
)
def test_bad_arrays_are_named_in_one_line(changes, message, runs, tmp_path):
    path = npz(tmp_path / "x.npz", **changes)
    with pytest.raises(UserError) as error:
        run(tmp_path / "out", [runs["log_db", 0]], [str(path)])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a header and rows"),
        ("id,bell,dog,rain,sea,wind\n000.wav,1,2,3,4\n", "row 2: 5 cells; the header has 6"),
        ("id,bell,dog,rain,sea,wind\n000.wav,1,2,3,4,x\n", "clip '000.wav', class 'wind': 'x' is no number"),
        ("id,bell,dog,rain,sea,wind\n000.wav,1,2,3,4,nan\n", "1 clips have NaN or infinite scores"),
        ("id,bell,dog,rain,sea\n000.wav,1,2,3,4\n", "lacks the class 'wind'"),
        ("id,bell\n000.wav,1\n", "1 class; two or more"),
        ("\0PNG", "needs a header and rows"),
    ],
)
def test_bad_tables_are_named_in_one_line(text, message, runs, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError) as error:
        run(tmp_path / "out", [runs["log_db", 0]], [str(tmp_path / "x.csv")])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_arguments_are_named_in_one_line(runs, tmp_path):
    ours, other = str(runs["log_db", 0]), str(npz(tmp_path / "x.npz"))
    labels = write_csv(tmp_path / "l.csv", ["id", "label"], [("000.wav", "cat")])
    elsewhere = write_csv(tmp_path / "e.csv", ["id", "label"], [("a/b.wav", CLASSES[0])])
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    cases = [
        ({}, "There is nothing to compare"),
        ({"runs": [tmp_path / "absent"]}, "contains no run: config.json is missing"),
        ({"predictions": [str(tmp_path / "absent.npz")]}, "is not an NPZ file of plain arrays"),
        ({"predictions": [str(tmp_path / "broken.npz")]}, "is not an NPZ file of plain arrays"),
        ({"predictions": [ours]}, "about.json is missing. (Runs go to --runs.)"),
        ({"predictions": [other]}, "No clip has a label"),
        ({"runs": [ours], "baseline": "y"}, "--baseline: there is no 'y' here; choose from log_db-0"),
        ({"runs": [ours], "averages": ["log_db-0+y"]}, "--average=log_db-0+y: there is no 'y' here"),
        ({"runs": [ours], "averages": ["log_db-0"]}, "name two or more different predictions"),
        ({"runs": [ours], "score": "f1"}, "--score: unknown score 'f1'; choose from top3_error"),
        ({"runs": [f"a+b={ours}"]}, "'a+b' cannot be a name here because of '+'"),
        ({"runs": [ours], "labels": labels}, "has the label 'cat', which is none of the classes"),
        ({"runs": [ours], "labels": tmp_path / "absent.csv"}, "is not a CSV file that can be read"),
        ({"predictions": [other], "labels": elsewhere}, "--labels has ids of other clips, such as 'a/b.wav'; a clip"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError) as error:
            run(tmp_path / "out", **arguments)
        assert message in str(error.value).splitlines()[0], arguments
    with pytest.raises(UserError, match="contains a run; name another --workdir"):
        run(runs["log_db", 0], [ours])


def test_labels_of_a_table_replace_those_of_the_runs(runs, tmp_path, capsys):
    labels = write_csv(
        tmp_path / "l.csv",
        ["id", "label", "recording", "fold", "verified"],
        [(clip, CLASSES[0], "one", 3, n % 2) for n, clip in enumerate(IDS[:20])],
    )
    scores = run(tmp_path / "out", [runs["log_db", 0]], labels=labels)
    row = row_of(scores, "log_db-0")
    now = np.where(np.arange(NUM_CLIPS) < 20, 0, LABELS)  # the other clips keep theirs
    assert row["num_clips"] == NUM_CLIPS
    assert row["scores"]["accuracy"]["value"] == pytest.approx(np.mean(logits_of(0).argmax(1) == now))
    assert "--labels changes the label of" in capsys.readouterr().out
    removed = write_csv(tmp_path / "r.csv", ["id", "label"], [(clip, "") for clip in IDS[:20]])
    scores = run(tmp_path / "out", [runs["log_db", 0]], labels=removed)
    assert row_of(scores, "log_db-0")["num_clips"] == NUM_CLIPS - 20


def test_a_study_is_not_overwritten_and_averages_of_before_are_removed(runs, tmp_path):
    (tmp_path / "study/runs").mkdir(parents=True)
    with pytest.raises(UserError, match="contains a study; name another --workdir"):
        run(tmp_path / "study", [runs["log_db", 0]])
    both = [f"a={runs['log_db', 0]}", f"b={runs['mel_db', 0]}"]
    run(tmp_path / "out", both, averages=["a+b"])
    assert (tmp_path / "out/predictions_a+b.npz").exists()
    run(tmp_path / "out", both)
    assert not list((tmp_path / "out").glob("predictions_*"))


def test_the_command_needs_no_config_and_prints_few_lines(runs, tmp_path, monkeypatch, capsys):
    both = ",".join(f"{name}={path}" for (name, _), path in runs.items())
    line = ["main.py", "--mode=compare", f"--workdir={tmp_path / 'out'}", f"--runs={both}", "--score=accuracy"]
    monkeypatch.setattr(sys, "argv", line)
    monkeypatch.setattr(os, "_exit", sys.exit)
    cli.main(cli.parse_flags(sys.argv))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[0].startswith("Accuracy, test clips, all 25: log_db 0.")
    assert "could" in said[1] and "true difference of" in said[2] and said[3].endswith("report.md and scores.json")
