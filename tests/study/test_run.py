"""A whole study of tiny sounds, interrupted and continued, with every training run once."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from audiotag_jax.datasets.prepare import dataset_name
from audiotag_jax.runtime.errors import Diverged, UserError
from audiotag_jax.runtime.files import write_json, write_npz
from audiotag_jax.settings.record import FORMAT
from audiotag_jax.settings.settings import parse_settings, recorded_fields
from audiotag_jax.study import report, run
from audiotag_jax.study.plan import Training, final, search
from audiotag_jax.study.results import read_results
from audiotag_jax.training import train
from configs import log_db

VARIANTS, SEEDS, FOLDS = ("log_db", "mel_db"), (0, 1), (0, 1, 2)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for n in range(36):
        path = folder / ("bell", "dog", "rain")[n % 3] / f"{n}.wav"
        path.parent.mkdir(exist_ok=True)
        tone = np.sin(2 * np.pi * 200 * 3 ** (n % 3) * np.arange(1200) / 4000)
        soundfile.write(path, 0.2 * tone + 0.1 * rng.standard_normal(1200), 4000)
    return folder


@pytest.fixture(scope="module")
def config(sounds, tmp_path_factory):
    config = log_db.get_config("folder")
    config.dataset.path = str(sounds)
    config.dataset.prepared_dir = str(tmp_path_factory.mktemp("prepared"))
    config.dataset.sample_rate_hz, config.dataset.duration_s, config.dataset.num_folds = 4000, 0.3, 3
    config.spectral.num_frames = config.spectral.num_bins = 32
    config.spectral.window_samples = config.spectral.fft_samples = 256
    config.model.width, config.train.batch_size, config.train.num_epochs = 4, 16, 2
    config.study.variants, config.study.seeds = VARIANTS, SEEDS
    config.study.rate_factors, config.study.search_epochs = (1.0, 3.0), 1
    return config


@pytest.fixture
def written(monkeypatch):
    """What the report is given, instead of its writing."""
    calls = []
    monkeypatch.setattr(report, "write", lambda *arguments: calls.append(arguments))
    return calls


def lay(training, folds=None, dataset="data"):
    """What is left of a finished training, as far as a study looks at it."""
    record = {"format": FORMAT, "config": recorded_fields(training.settings), "classes": ["a", "b"], "dataset": dataset}
    for fold in training.folds if folds is None else folds:
        [path] = training.files(fold, has_test=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(path, ids=["a"], labels=np.array([0]), verified=[True], logits=np.array([[1.0, 0.0]]))
    write_json(training.workdir / "config.json", record)


def test_interrupted_and_continued_a_study_trains_everything_once(config, tmp_path, written, monkeypatch, capsys):
    trained, real = [], train.run

    def counted(settings, workdir):
        if len(trained) == 5:
            trained.append(None)
            raise KeyboardInterrupt
        real(settings, workdir)
        trained.append((workdir.name, settings.training.folds))

    monkeypatch.setattr(train, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        run.run(parse_settings(config), tmp_path / "study")
    said = capsys.readouterr().out
    assert "study of 2 variants, 3 folds, seeds 0, 1; baseline log_db" in said
    assert "trainings: 12 of 4 steps, 12 of them to do" in said
    assert "inner splits: 12 trainings of 1 steps, 12 of them to do" in said
    assert "log_db, learning rates x 3 on inner splits, folds 0, 1, 2; about" in said
    assert not written
    run.run(parse_settings(config), tmp_path / "study")
    done = [each for each in trained if each]
    assert sum(len(folds) for _, folds in done) == 12 + 12
    assert len(set(done)) == len(done)
    monkeypatch.setattr(train, "run", None)  # nothing is left to train
    run.run(parse_settings(config), tmp_path / "study")
    assert "of them to do" in capsys.readouterr().out
    (_, _, runs, classes, budget), again = written
    assert [(each.variant, each.seed) for each in runs] == [(v, s) for v in VARIANTS for s in SEEDS]
    results = read_results(runs, classes)
    assert results["mel_db"].held_out.shape == (2, 36, 3)
    assert dict(budget)["budget"] == "4 steps (2 epochs) in batches of 16"
    again = read_results(again[2], classes)
    np.testing.assert_array_equal(again["mel_db"].held_out, results["mel_db"].held_out)
    assert (tmp_path / "study" / "choices.json").exists()


def test_what_is_left_is_told_at_the_pace_of_most_trainings(config, tmp_path, monkeypatch, capsys):
    """The first takes ten minutes more than the others, to compile."""
    config = config.copy_and_resolve_references()
    config.study.rate_factors = (1.0,)
    clock = iter((0, 900, 1000, 1300, 2000, 2300, 3000, 3300))
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(train, "run", lambda *_: None)
    run.Study(
        parse_settings(config), tmp_path, VARIANTS, FOLDS, (), False, {False: 100, True: 0}, seconds_per_step=1.0
    ).train()
    told = [line.rpartition("about ")[2] for line in capsys.readouterr().out.splitlines()]
    assert told == ["20 min left", "45 min left", "20 min left", "5 min left"]


def test_without_a_search_a_run_is_that_of_mode_train(config, tmp_path, written):
    config = config.copy_and_resolve_references()
    config.study.rate_factors, config.study.seeds, config.study.variants = (1.0,), (0,), ("log_db",)
    run.run(parse_settings(config), tmp_path / "study")
    train.run(parse_settings(config), tmp_path / "alone")
    with (
        np.load(tmp_path / "study/runs/log_db-seed_0-rate_1/fold_1/predictions.npz") as one,
        np.load(tmp_path / "alone/fold_1/predictions.npz") as other,
    ):
        np.testing.assert_array_equal(one["logits"], other["logits"])
    train.run(parse_settings(config), tmp_path / "study/runs/log_db-seed_0-rate_1")  # mode train accepts it as its own


def test_the_report_is_written_from_the_runs(config, sounds, tmp_path, capsys):
    config = config.copy_and_resolve_references()
    config.study.rate_factors, config.study.seeds, config.train.num_epochs = (1.0,), (0,), 1
    config.study.variants = ("mel_db", "waveform")
    run.run(parse_settings(config), tmp_path / "study")
    scores = json.loads((tmp_path / "study/scores.json").read_text())
    names = [row["name"] for row in scores["rows"] if row["kind"] == "single"]
    assert names == ["log_db", "mel_db", "waveform"]
    said, text = capsys.readouterr().out, (tmp_path / "study/report.md").read_text()
    assert text not in said and "written: " in said and "Scores" in text
    assert "36 clips of 0.3 s, 3 classes" in text and "× 1, not searched" in text
    page = (tmp_path / "study/report.html").read_text()
    plots = sorted(path.name for path in (tmp_path / "study").glob("report_*.svg"))
    assert plots == [f"report_held_out_{score}.svg" for score in ("accuracy", "map_at_3", "top3_error")]
    assert all(f"]({name})" in text for name in plots)
    drawing = ElementTree.parse(tmp_path / "study/report_held_out_accuracy.svg")
    words = " ".join(drawing.getroot().itertext())
    assert "mel_db" in words and "waveform" in words
    assert page.count("data:audio/") >= 4 and page.count("data:image/png") >= 8
    before = [(tmp_path / "study" / name).read_bytes() for name in ("scores.json", "report.md", "report.html")]
    sounds.rename(tmp_path / "sounds")  # a study needs no recordings once its datasets are prepared
    try:
        run.run(parse_settings(config), tmp_path / "study")
    finally:
        (tmp_path / "sounds").rename(sounds)
    assert before == [(tmp_path / "study" / name).read_bytes() for name in ("scores.json", "report.md", "report.html")]
    images = Path(config.dataset.prepared_dir) / "audiotag_spectrograms"
    images.rename(tmp_path / "images")  # a report prepares nothing: it computes the images of the shown clips
    config.study.train = False
    try:
        run.run(parse_settings(config), tmp_path / "study")
        assert not images.exists()
    finally:
        (tmp_path / "images").rename(images)
    again = (tmp_path / "study/report.html").read_text()
    assert again.count("data:image/png") == page.count("data:image/png")
    assert before[0] == (tmp_path / "study/scores.json").read_bytes()


def test_a_report_on_what_is_finished(config, tmp_path, written, capsys):
    config = config.copy_and_resolve_references()
    config.study.rate_factors, config.study.train = (1.0,), False
    config.study.seeds, config.study.variants = (0, 1), (*VARIANTS, "log_linear")
    for variant in VARIANTS:
        for training in final(parse_settings(config), tmp_path / "study", variant, 0, dict.fromkeys(range(3), 1.0)):
            lay(training)
    run.run(parse_settings(config), tmp_path / "study")
    assert "nothing is trained now" in capsys.readouterr().out
    assert [(each.variant, each.seed) for each in written[-1][2]] == [("log_db", 0), ("mel_db", 0)]
    assert dict(written[-1][4])["not finished"].startswith("4 of 6 runs")
    config.study.seeds, config.study.variants = (0,), VARIANTS
    run.run(parse_settings(config), tmp_path / "study")
    assert "nothing is trained now" not in capsys.readouterr().out
    assert "not finished" not in dict(written[-1][4])
    config.train.num_epochs += 1
    with pytest.raises(UserError, match="log_db-seed_0-rate_1 contains another run; different: train.num_epochs"):
        run.run(parse_settings(config), tmp_path / "study")
    config.study.rate_factors = (1.0, 3.0)  # whose search has not begun
    with pytest.raises(UserError, match="no finished run of the baseline log_db"):
        run.run(parse_settings(config), tmp_path / "study")


def test_seeds_of_other_data_are_not_reported_together(config, tmp_path, written):
    config = config.copy_and_resolve_references()
    config.study.rate_factors, config.study.train, config.study.variants = (1.0,), False, ("log_db",)
    for seed in SEEDS:
        [training] = final(parse_settings(config), tmp_path / "study", "log_db", seed, dict.fromkeys(FOLDS, 1.0))
        lay(training, dataset=f"data {seed}")
    with pytest.raises(UserError, match="log_db-seed_1-rate_1 contains a run on other data"):
        run.run(parse_settings(config), tmp_path / "study")
    assert not written


def test_a_study_of_other_data_is_not_continued(config, tmp_path, written, monkeypatch):
    config = config.copy_and_resolve_references()
    config.study.rate_factors, config.study.variants, config.study.seeds = (1.0,), ("log_db",), (0,)
    [training] = final(parse_settings(config), tmp_path / "study", "log_db", 0, dict.fromkeys(FOLDS, 1.0))
    lay(training)
    monkeypatch.setattr(train, "run", None)
    with pytest.raises(UserError, match="log_db-seed_0-rate_1 contains a run on other data"):
        run.run(parse_settings(config), tmp_path / "study")
    lay(training, dataset=dataset_name(parse_settings(config)))
    write_json(training.workdir / "summary.json", {})
    run.run(parse_settings(config), tmp_path / "study")
    assert written


def test_a_run_that_was_ended_before_its_summary_is_given_it(config, tmp_path, written, monkeypatch):
    config = config.copy_and_resolve_references()
    config.study.rate_factors, config.study.variants, config.study.seeds = (1.0,), ("log_db",), (0,)
    [training] = final(parse_settings(config), tmp_path / "study", "log_db", 0, dict.fromkeys(FOLDS, 1.0))
    lay(training, dataset=dataset_name(parse_settings(config)))
    asked = []
    monkeypatch.setattr(train, "run", lambda settings, workdir: asked.append((workdir, settings.training.folds)))
    run.run(parse_settings(config), tmp_path / "study")
    assert asked == [(training.workdir, FOLDS)]


def test_a_trial_that_diverges_is_worse_than_any_other(config, tmp_path, written, monkeypatch, capsys):
    config = config.copy_and_resolve_references()
    config.study.variants, config.study.seeds = ("log_db",), (0,)
    trials = search(parse_settings(config), tmp_path / "study", "log_db", FOLDS)
    asked = []

    def diverge(settings, workdir):
        folds = settings.training.folds
        asked.append((workdir.name, folds))
        training = Training("log_db", "", settings, workdir, folds)
        if workdir == trials[1.0].workdir and 1 in folds:
            lay(training, [fold for fold in folds if fold < 1], dataset_name(parse_settings(config)))
            training.diverged(1).parent.mkdir()
            raise Diverged("The training of fold 1 diverged.")
        lay(training, dataset=dataset_name(parse_settings(config)))
        write_json(workdir / "summary.json", {})

    monkeypatch.setattr(train, "run", diverge)
    monkeypatch.setattr(run, "_time_step", lambda experiment: 1.0)
    run.run(parse_settings(config), tmp_path / "study")
    assert asked == [
        ("log_db-rate_1", (0, 1, 2)),
        ("log_db-rate_1", (2,)),
        ("log_db-rate_3", (0, 1, 2)),
        ("log_db-seed_0-rate_1", (0, 2)),
        ("log_db-seed_0-rate_3", (1,)),
    ]
    assert "fold 1 diverged.\nThis trial counts as worse" in capsys.readouterr().out
    assert "diverged" in json.loads(trials[1.0].diverged(1).read_text())["reason"]
    assert json.loads((tmp_path / "study/choices.json").read_text())["log_db"] == {"0": 1.0, "1": 3.0, "2": 1.0}
    run.run(parse_settings(config), tmp_path / "study")
    assert len(asked) == 5


def test_a_run_that_diverges_ends_the_study(config, tmp_path, monkeypatch):
    config = config.copy_and_resolve_references()
    config.study.rate_factors, config.study.variants, config.study.seeds = (1.0,), ("log_db",), (0,)

    def diverge(config, workdir):
        raise Diverged("The training of fold 0 diverged.")

    monkeypatch.setattr(train, "run", diverge)
    monkeypatch.setattr(run, "_time_step", lambda experiment: 1.0)
    with pytest.raises(UserError, match="diverged"):
        run.run(parse_settings(config), tmp_path / "study")
    assert not list(tmp_path.rglob("diverged.json"))


def test_a_search_needs_three_folds(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.dataset.num_folds = 2
    with pytest.raises(UserError, match="search of the learning rates needs three folds, but there are 2"):
        run.run(parse_settings(config), tmp_path / "study")


def test_the_chosen_factor_has_the_lowest_loss_and_of_equal_ones_is_nearest_to_one(tmp_path):
    def trial(name, logits):
        (tmp_path / name / "fold_0").mkdir(parents=True)
        fields = {"ids": ["a", "b"], "labels": np.array([0, 1]), "verified": [True, True]}
        write_npz(tmp_path / name / "fold_0/predictions.npz", logits=np.array(logits), **fields)
        return Training("log_db", name, None, tmp_path / name, (0,))

    sure, unsure, wrong = [[2.0, 0], [0, 2]], [[1.0, 0], [0, 1]], [[9.0, 0], [9, 0]]
    trials = {0.5: trial("half", unsure), 1.0: trial("one", sure), 2.0: trial("two", wrong)}
    assert run.choose_factor(trials, 0) == 1.0
    trials = {0.25: trials[1.0], 2.0: trials[1.0], 1.0: trials[0.5]}
    assert run.choose_factor(trials, 0) == 2.0
