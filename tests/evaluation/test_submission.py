"""Submissions: the sample's rows in its order, three known labels each, from the mean of all folds."""

import csv
import zlib

import numpy as np
import pytest

from audiotag_jax.datasets.fsdkaggle2018 import open_fsdkaggle2018, submission_order
from audiotag_jax.evaluation.predictions import average_predictions
from audiotag_jax.evaluation.submission import check_submission
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.training.evaluate import write_submission

CLASSES = ("Bark", "Bass drum", "Cello", "Cough", "Flute")
IDS = ("0a.wav", "1b.wav", "2c.wav", "3d.wav")
SAMPLE = ("2c.wav", "0a.wav", "3d.wav", "1b.wav")


def save(path, logits, ids=IDS):
    unlabelled = {"labels": np.full(len(ids), -1), "verified": np.zeros(len(ids), bool)}
    np.savez(path, ids=np.array(ids), logits=np.asarray(logits, np.float32), **unlabelled)
    return path


@pytest.fixture
def kaggle(tmp_path):
    """A data folder with a sample submission that is not in order."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = "".join(f"{name},Laughter Hi-Hat Flute\n" for name in SAMPLE)
    (folder / "sample_submission.csv").write_text("fname,label\n" + rows)
    return folder


def submit(path, files, order, classes=CLASSES):
    write_submission(path, average_predictions(files), classes, order)


def read(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["fname", "label"]
    return [(clip, label.split(" ")) for clip, label in rows]


def expected_labels(all_logits):
    """The three likeliest classes of each clip by the mean of the runs' probabilities, plainly."""
    exps = [np.exp(np.asarray(logits, np.float64)) for logits in all_logits]
    mean = sum(exp / exp.sum(1, keepdims=True) for exp in exps) / len(exps)
    names = [name.replace(" ", "_") for name in CLASSES]
    return [[names[k] for k in sorted(range(len(CLASSES)), key=lambda k: -row[k])[:3]] for row in mean]


def test_rows_follow_the_sample_submission(tmp_path, kaggle):
    logits = np.random.default_rng(0).normal(size=(4, 5))
    path = tmp_path / "submission.csv"
    submit(path, [save(tmp_path / "a.npz", logits)], submission_order(kaggle))
    rows = read(path)
    assert [clip for clip, _ in rows] == list(SAMPLE)
    assert dict(rows) == dict(zip(IDS, expected_labels([logits]), strict=True))
    assert path.read_bytes().count(b"\n") == 5
    assert b"\r" not in path.read_bytes()


def test_labels_are_three_distinct_known_ones_without_blanks(tmp_path, kaggle):
    path = tmp_path / "submission.csv"
    submit(path, [save(tmp_path / "a.npz", np.zeros((4, 5)))], submission_order(kaggle))
    for _, labels in read(path):
        assert labels == ["Bark", "Bass_drum", "Cello"]  # of equal ones the first classes, as in the metrics


def test_folds_are_averaged(tmp_path, kaggle):
    rng = np.random.default_rng(1)
    runs = [rng.normal(0, 3, (4, 5)) + rng.normal(0, 500, (4, 1)) for _ in range(3)]  # a shift of logits means nothing
    files = [save(tmp_path / f"{i}.npz", run) for i, run in enumerate(runs)]
    path = tmp_path / "submission.csv"
    submit(path, files, submission_order(kaggle))
    centred = [run - run.max(1, keepdims=True) for run in runs]
    assert dict(read(path)) == dict(zip(IDS, expected_labels(centred), strict=True))
    assert dict(read(path)) != dict(zip(IDS, expected_labels(centred[:1]), strict=True))


def test_one_sure_fold_does_not_overrule_two(tmp_path, kaggle):
    """Probabilities are averaged, not logits: two folds that are fairly sure outvote one that is very sure."""
    sure, fair = np.zeros((4, 5)), np.zeros((4, 5))
    sure[:, 0], fair[:, 3] = 30, 4
    files = [save(tmp_path / f"{i}.npz", run) for i, run in enumerate((sure, fair, fair))]
    submit(tmp_path / "submission.csv", files, submission_order(kaggle))
    assert all(labels[0] == "Cough" for _, labels in read(tmp_path / "submission.csv"))


def test_rows_follow_any_order(tmp_path):
    order = ("z.wav", "a.wav", "m.wav")
    file = save(tmp_path / "a.npz", np.eye(3, 5), order)
    submit(tmp_path / "submission.csv", [file], order)
    rows = read(tmp_path / "submission.csv")
    assert [clip for clip, _ in rows] == list(order)
    assert {clip: labels[0] for clip, labels in rows} == {"z.wav": "Bark", "a.wav": "Bass_drum", "m.wav": "Cello"}


def test_two_classes_give_two_labels(tmp_path):
    file = save(tmp_path / "a.npz", [[0, 1]], ["a.wav"])
    submit(tmp_path / "submission.csv", [file], ["a.wav"], ("no", "yes"))
    assert read(tmp_path / "submission.csv") == [("a.wav", ["yes", "no"])]


@pytest.mark.parametrize("ids", [IDS[:3], (*IDS[:3], "9x.wav"), (*IDS, "9x.wav")])
def test_clips_that_are_not_the_samples_raise(tmp_path, kaggle, ids):
    file = save(tmp_path / "a.npz", np.zeros((len(ids), 5)), ids)
    with pytest.raises(UserError, match="sample submission"):
        submit(tmp_path / "submission.csv", [file], submission_order(kaggle))
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize("ids", [IDS[:3], IDS[::-1]])
def test_folds_of_different_clips_raise(tmp_path, kaggle, ids):
    files = [save(tmp_path / "a.npz", np.zeros((4, 5))), save(tmp_path / "b.npz", np.zeros((len(ids), 5)), ids)]
    with pytest.raises(UserError, match=r"b.npz and .*a.npz contain different clips"):
        submit(tmp_path / "submission.csv", files, submission_order(kaggle))


def test_whole_challenge(tmp_path, shared_data):
    """All 9,400 rows of the real sample submission, in its order."""
    folder = shared_data / "fsdkaggle2018"
    with (folder / "sample_submission.csv").open(newline="") as file:
        sample = [row["fname"] for row in csv.DictReader(file)]
    rng = np.random.default_rng(0)
    file = save(tmp_path / "a.npz", rng.normal(size=(len(sample), 5)), sorted(sample))
    submit(tmp_path / "submission.csv", [file], submission_order(folder))
    rows = read(tmp_path / "submission.csv")
    assert [clip for clip, _ in rows] == sample
    assert len(rows) == 9400
    known = {name.replace(" ", "_") for name in CLASSES}
    assert all(len(set(labels)) == 3 and set(labels) <= known for _, labels in rows)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_damaged_file_raises(tmp_path, kaggle, monkeypatch):
    whole = save(tmp_path / "a.npz", np.zeros((4, 5))).read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="a.npz is damaged"):
        submit(tmp_path / "submission.csv", [tmp_path / "a.npz"], submission_order(kaggle))
    content = bytearray(whole)
    content[whole.index(b"PK\x01\x02") + 10] = 99  # the method of compression, in the directory
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match="a.npz is damaged"):
        submit(tmp_path / "submission.csv", [tmp_path / "a.npz"], submission_order(kaggle))
    monkeypatch.setattr(np, "load", raising(zlib.error("Error -3")))  # damage within what is compressed
    with pytest.raises(UserError, match="a.npz is damaged"):
        submit(tmp_path / "submission.csv", [tmp_path / "a.npz"], submission_order(kaggle))


GOOD = "fname,label\n2c.wav,Bark Bass_drum Cello\n0a.wav,Flute Cough Bark\n"


def check(path, text, classes=CLASSES, order=SAMPLE[:2]):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    check_submission(path, classes, order)


@pytest.mark.parametrize(
    "text",
    [GOOD, GOOD.replace("\n", "\r\n"), GOOD.removesuffix("\n"), GOOD.replace("2c.wav", '"2c.wav"')],
)
def test_a_good_submission_passes(tmp_path, text):
    check(tmp_path / "s.csv", text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fname,label", "fname,labels", "begins with 'fname,labels'; a submission begins with 'fname,label'"),
        ("fname,label\n", "", "begins with '2c.wav,Bark"),
        ("fname,label", "\ufefffname,label", "begins with"),
        ("2c.wav,Bark Bass_drum Cello\n", "", "has 1 rows below the header; the sample submission has 2"),
        ("0a.wav", "2c.wav,Bark Bass_drum Cello\n0a.wav", "has 3 rows"),
        ("0a.wav", "2c.wav", "row 3: '2c.wav,Flute .*of clip '0a.wav'"),  # one twice, one absent
        ("2c.wav", "2C.wav", "row 2: '2C.wav,.*of clip '2c.wav'"),
        ("2c.wav", " 2c.wav", "row 2: ' 2c.wav,.*of clip '2c.wav'"),
        ("Flute Cough Bark", "Flute Cough Bark,1", "row 3: .*its labels belongs here"),
        (",Flute Cough Bark", "", "row 3: '0a.wav'; .*its labels belongs here"),
        ("Flute Cough Bark", "Flute Cough", "row 3: 'Flute Cough'; 3 different labels"),
        ("Flute Cough Bark", "Flute Cough Bark Cello", "row 3: .*; 3 different labels"),
        ("Flute Cough Bark", "Flute Cough Flute", "row 3: .*; 3 different labels"),
        ("Flute Cough Bark", "Flute  Cough", "row 3: unknown label ''"),
        ("Flute Cough Bark", "Flute Cough bark", "row 3: unknown label 'bark'"),
        ("Flute Cough Bark", "Flute,Cough,Bark", "row 3: .*its labels belongs here"),
        ("Bark Bass_drum", "Bark Bass drum", "row 2: unknown label 'Bass'"),
        ("Flute Cough Bark", '"Flute Cough Bark', "is not a submission"),
    ],
)
def test_a_fault_in_a_submission_raises(tmp_path, old, new, message):
    assert GOOD.count(old) == 1
    with pytest.raises(UserError, match=message) as caught:
        check(tmp_path / "s.csv", GOOD.replace(old, new))
    assert len(str(caught.value).splitlines()) == 1


def test_other_faults_in_a_submission_raise(tmp_path):
    header, first, second = GOOD.splitlines(keepends=True)
    with pytest.raises(UserError, match="row 2: '0a.wav.*of clip '2c.wav'"):
        check(tmp_path / "s.csv", header + second + first)
    with pytest.raises(UserError, match="begins with ''"):
        check(tmp_path / "s.csv", "")
    with pytest.raises(UserError, match="is not a submission"):
        check(tmp_path / "s.csv", GOOD.replace("Bark", "B\xe4rk").encode("latin-1"))
    with pytest.raises(UserError, match="is not a submission"):
        check_submission(tmp_path / "absent.csv", CLASSES, SAMPLE)


def test_what_does_not_pass_is_not_put_in_place(tmp_path, kaggle):
    """Two classes that submissions spell alike: a row could name one label twice."""
    path = tmp_path / "submission.csv"
    path.write_text("of an earlier run")
    file = save(tmp_path / "a.npz", np.tile([0, 3, 0, 0, 2], (4, 1)))
    with pytest.raises(UserError, match="row 2: 'Bass_drum Bass_drum Bark'; 3 different labels"):
        submit(path, [file], submission_order(kaggle), (*CLASSES[:4], "Bass_drum"))
    assert path.read_text() == "of an earlier run"
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.npz", "data", "submission.csv"}


def test_the_challenges_own_sample(tmp_path, shared_data):
    """It is right in all but one label, which it spells unlike the training table."""
    root = shared_data / "fsdkaggle2018"
    classes, order = open_fsdkaggle2018(root).classes, submission_order(root)
    assert (len(classes), len(order)) == (41, 9400)
    sample = root / "sample_submission.csv"
    with pytest.raises(UserError, match="row 2: unknown label 'Hi-Hat'"):
        check_submission(sample, classes, order)
    text = sample.read_text().replace("Hi-Hat", "Hi-hat")
    check(tmp_path / "s.csv", text, classes, order)
    lines = text.splitlines(keepends=True)
    with pytest.raises(UserError, match="has 1600 rows below the header; the sample submission has 9400"):
        check(tmp_path / "s.csv", "".join(lines[:1601]), classes, order)  # without the padding clips
    lines[9399], lines[9400] = lines[9400], lines[9399]
    with pytest.raises(UserError, match="row 9400: "):
        check(tmp_path / "s.csv", "".join(lines), classes, order)


def test_clips_with_several_labels_have_a_probability_for_each_class(tmp_path):
    logits, files = np.random.default_rng(0).normal(size=(2, 4, 5)), []
    for number, each in enumerate(logits):
        files.append(tmp_path / f"{number}.npz")
        unlabelled = {"labels": np.full((4, 5), -1, np.int8), "verified": np.zeros(4, bool)}
        np.savez(files[-1], ids=np.array(IDS), logits=each.astype(np.float32), **unlabelled)
    path = tmp_path / "submission.csv"
    submit(path, files, SAMPLE)
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["fname", *CLASSES] and [row[0] for row in rows] == list(SAMPLE)
    mean = dict(zip(IDS, (1 / (1 + np.exp(-logits))).mean(0), strict=True))
    np.testing.assert_allclose([[float(x) for x in row[1:]] for row in rows], [mean[i] for i in SAMPLE], rtol=1e-4)
    check_submission(path, CLASSES, SAMPLE, has_several_labels=True)
    text = path.read_text()
    for old, new, message in [
        ("fname,Bark", "fname,Dog", "begins with"),
        (SAMPLE[1], "other.wav", "row 3: a row of clip '0a.wav'"),
        (rows[0][2], "1.5", "row 2: 1.5; numbers from 0 to 1"),
        (rows[0][2], "nan", "row 2: nan; numbers from 0 to 1"),
        (rows[0][2], "high", "row 2: could not convert"),
    ]:
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match=message):
            check_submission(path, CLASSES, SAMPLE, has_several_labels=True)
