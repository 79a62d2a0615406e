"""Several data sets together: constructed predictions whose answer is known, and a report from saved predictions."""

import html
import json
import re
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from audiotag_jax.evaluation.meta_analysis import meta_analysis
from audiotag_jax.evaluation.predictions import load_predictions
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_npz
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.study import datasets, store
from audiotag_jax.study.across import across
from audiotag_jax.study.across_report import forest, leading_number, page, report, sentences
from audiotag_jax.study.results import Clips, Results, Run, VariantLogits
from audiotag_jax.study.statistics import study_scores
from configs import log_db

VARIANTS = ("log_db", "hires_q1", "hires_q2", "hires_q4", "hires_q8", "mel_db")
NUM_CLASSES = 8
FAST = {"num_resamples": 300}


def results_of(hits, recordings=None):
    """Results of n clips, of which each variant gets right those in `hits`, `{variant: [n] bool}`."""
    n = len(next(iter(hits.values())))
    labels = np.arange(n) % NUM_CLASSES
    ids = np.array([f"{k:05d}" for k in range(n)])
    clips = Clips(ids, labels, np.ones(n, bool), np.arange(n) % 4)
    variants = []
    for name, right in hits.items():
        answers = np.where(right, labels, (labels + 1) % NUM_CLASSES)
        variants.append(VariantLogits(name, (0,), 5.0 * np.eye(NUM_CLASSES, dtype=np.float32)[answers][None], None))
    return Results(tuple("abcdefgh"), clips, None, tuple(variants), recordings or {})


def saved_of(rng, n, share, effects, steadiness=None):
    """A data set of n clips: `effects` of the variants on a baseline of accuracy 0.6; D depends on `steadiness`."""
    labels, draws = np.arange(n) % NUM_CLASSES, rng.uniform(size=n)
    harmonic = np.linspace(0, 1, NUM_CLASSES)[labels]
    slopes = {"hires_q1": -1, "hires_q2": -1, "hires_q4": 1, "hires_q8": 1}
    hits = {}
    for name in VARIANTS:
        tilt = (steadiness or 0.0) * slopes.get(name, 0) * (harmonic - 0.5)
        own = rng.uniform(size=n) < share  # so many clips are drawn anew, the others are right together
        hits[name] = np.where(own, rng.uniform(size=n), draws) < 0.6 + effects.get(name, 0.0) + tilt
    about = [("network", "a probe")]
    return store.Saved(
        results_of(hits), about, {"harmonic_share": harmonic, "flatness_db": np.where(harmonic > 0.6, -30.0, -3.0)}
    )


@pytest.fixture(scope="module")
def found():
    """Three data sets: hires_q8 0.1 better, mel_db the same but for chance; a small q helps clicks."""
    rng = np.random.default_rng(0)
    effects = {"hires_q1": 0.1, "hires_q2": 0.1, "hires_q4": 0.1, "hires_q8": 0.1}
    saved = {
        name: saved_of(rng, n, 0.02, effects, 0.2) for name, n in (("bells", 4000), ("dogs", 3000), ("rain", 5000))
    }
    small = {"cats": saved_of(rng, 400, 0.02, {"hires_q8": -0.3})}
    return across(saved | small, baseline="log_db", margin=0.01, pooled=list(saved), **FAST)


def test_known_effects_are_found(found):
    pooled = {each["variant"]: each for each in found["pooled"]}
    assert pooled["hires_q8"]["random"]["value"] == pytest.approx(0.1, abs=0.015)
    assert pooled["hires_q8"]["random"]["p_holm"] < 0.05 and pooled["hires_q8"]["random"]["p_equivalence_holm"] > 0.05
    assert abs(pooled["mel_db"]["random"]["value"]) < 0.01
    assert pooled["mel_db"]["random"]["p_holm"] > 0.05 and pooled["mel_db"]["fixed"]["p_equivalence_holm"] < 0.05
    assert pooled["mel_db"]["datasets"] == ["bells", "dogs", "rain"]
    text = " ".join(sentences(found))
    assert "On the average of bells, dogs, rain, better than log_db: hires_q1 (+0." in text
    assert "In cats: hires_q8 (−0.26" in text
    assert "equivalent within 0.01: mel_db (" in text and "open: none." in text


def test_pooled_figures_are_those_of_the_meta_analysis(found):
    chosen = [
        d
        for name in ("bells", "dogs", "rain")
        for d in found["datasets"][name]["differences"]
        if d["variant"] == "mel_db"
    ]
    expected = meta_analysis([d["value"] for d in chosen], [d["standard_error"] for d in chosen], 0.01)
    (ours,) = (each for each in found["pooled"] if each["variant"] == "mel_db")
    assert ours["random"].items() >= expected.random._asdict().items()
    assert (ours["tau2"], ours["prediction"]) == (expected.tau2, expected.prediction)


def test_interaction_with_the_kind_is_found(found):
    (contrast,) = (each for each in found["interactions"] if each["contrast"] == "small q − large q")
    assert contrast["slope"] == pytest.approx(-0.4, abs=0.06) and contrast["p"] < 0.01
    assert contrast["num_classes"] == 3 * NUM_CLASSES
    (mel,) = (each for each in found["interactions"] if each["contrast"] == "mel_db")
    assert mel["p_holm"] > 0.05
    by_kind = {
        kind: next(d["value"] for d in each["differences"] if d["contrast"] == "small q − large q")
        for kind, each in found["kinds"].items()
    }
    assert by_kind["percussive"] > 0.05 and by_kind["tonal"] < -0.05
    assert len(found["kinds"]["percussive"]["classes"]) == 3 * 3
    assert "a small q is, as expected, better for clicks" in " ".join(sentences(found))


def test_report_and_forest_plot(found):
    text = report(found, {"bells": [("network", "a probe")]}, plot="across.svg")
    assert text.count("\n## ") == 9 and "| mel_db |" in text and "![Differences in accuracy" in text
    assert "cats | 400 | 8 | 400 | 4 | no |" in text
    svg = str(forest(found))
    ElementTree.fromstring(svg)
    assert svg.count("random effects: ") == svg.count("these data sets: ") == 5 and svg.count('class="range"') == 6 * 5
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found))


def test_the_page_has_the_figures_of_the_text(found):
    about = {"bells": [("network", "a <probe>")]}
    text = page(found, about, forest(found))
    shown = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script|svg).*?</\1>", "", text, flags=re.S)))
    for line in report(found, about).splitlines():
        for cell in line.split("|") if line.startswith("| ") else ():
            plain = html.unescape(cell.replace("\\", "").strip())
            assert plain.strip("-") == "" or plain in shown, plain
    assert text.count('<figure class="forest">') == 5
    assert "a &lt;probe&gt;" in text and "<em>These data sets</em>" in text


def test_cells_sort_by_the_number_they_begin_with():
    cells = ("−0.078 (−0.1 to 0.0)", "+0.010 (…)", "2,067", "< 0.001", "yes (0.1)", "–")
    found = {cell: leading_number(cell) for cell in cells}
    assert [*found.values()][:5] == [-0.078, 0.01, 2067.0, 0.001, None] and np.isnan(found["–"])


def test_equal_variants_are_rejected_in_few_studies():
    rng, rejected, real = np.random.default_rng(1), [], []
    for _ in range(20):
        saved = {name: saved_of(rng, 240, 0.3, {}) for name in "abc"}
        one = across(saved, baseline="log_db", margin=0.01, pooled=list(saved), num_resamples=100)
        rejected.append(any(each["random"]["p_holm"] < 0.05 for each in one["pooled"]))
        real.append(one["interactions"][-1]["p"] < 0.05)
    assert sum(rejected) <= 4 and sum(real) <= 4  # 1 is expected of 20; more than 4 with a chance of 0.003


def test_saved_predictions_give_the_figures_of_the_study(tmp_path):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 1, 60, NUM_CLASSES)).astype(np.float32) * 3
    clips = results_of({"log_db": np.ones(60, bool)}).held_out
    variants = tuple(
        VariantLogits(name, (4,), each, None) for name, each in zip(("log_db", "mel_db"), logits, strict=True)
    )
    results = Results(tuple("abcdefgh"), clips, None, variants, {"00000": "one", "00001": "one"})
    assert not store.exists(tmp_path)
    store.write(tmp_path, results, [("budget", "small")])
    read = store.read(tmp_path)
    assert read.about == [("budget", "small")] and read.descriptors is None
    assert read.results.recordings == results.recordings and read.results.classes == results.classes
    assert load_predictions(tmp_path / "mel_db-seed_4.npz")["logits"].dtype == np.float16
    options = {"recordings": results.recordings, "num_resamples": 100}
    assert study_scores(read.results, "log_db", **options) == study_scores(results, "log_db", **options)


def test_damaged_and_foreign_predictions_are_refused(tmp_path):
    results = results_of({"log_db": np.ones(16, bool), "mel_db": np.ones(16, bool)})
    store.write(tmp_path, results, [])
    with np.load(tmp_path / "mel_db-seed_0.npz") as saved:
        changed = dict(saved)
    changed["labels"] = changed["labels"][::-1].copy()
    write_npz(tmp_path / "mel_db-seed_0.npz", **changed)
    with pytest.raises(UserError, match="different clips, labels or folds"):
        store.read(tmp_path)
    store.write(tmp_path, results, [])
    (tmp_path / "descriptors.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"descriptors.npz is damaged .*; remove it"):
        store.read(tmp_path)
    (tmp_path / "descriptors.npz").unlink()
    path = tmp_path / "log_db-seed_0.npz"
    damage(path, "folds.npy")
    with pytest.raises(UserError, match=r"log_db-seed_0.npz is damaged \(Bad CRC-32"):
        store.read(tmp_path)
    (tmp_path / "about.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        store.read(tmp_path)


def damage(path, member):
    """Changes a byte in the middle of an array of an NPZ file."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        later = [each.header_offset for each in archive.infolist()] + [archive.start_dir]
        start = archive.getinfo(member).header_offset
    content[(start + min(offset for offset in later if offset > start)) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.fixture
def listed(tmp_path):
    """A configuration with a list of two data sets of eight sounds each."""
    rng, tables = np.random.default_rng(3), []
    for name in ("first", "second"):
        for n in range(NUM_CLASSES):
            path = tmp_path / name / "abcdefgh"[n] / f"{n}.wav"
            path.parent.mkdir(parents=True)
            soundfile.write(path, 0.1 * rng.standard_normal(1200), 4000)
        tables.append(f'[{name}]\ndataset.path = "{tmp_path / name}"\ndataset.duration_s = 1\n')
    (tmp_path / "sets.toml").write_text("\n".join(tables))
    config = log_db.get_config("folder")
    config.dataset.prepared_dir, config.dataset.sample_rate_hz = str(tmp_path / "prepared"), 4000
    config.study.datasets = str(tmp_path / "sets.toml")
    return config


def test_each_data_set_is_studied_and_the_report_needs_its_predictions_alone(listed, tmp_path, monkeypatch):
    studied = []

    def study(settings, workdir):
        """What a study leaves of two variants."""
        studied.append((settings.dataset.path, settings.dataset.duration_s, workdir.name))
        names = sorted(
            path.relative_to(settings.dataset.path).as_posix() for path in tmp_path.glob(f"{workdir.name}/*/*")
        )
        runs = []
        for variant in ("log_db", "mel_db"):
            place = workdir / "runs" / variant
            (place / "fold_0").mkdir(parents=True, exist_ok=True)
            logits = np.eye(NUM_CLASSES)[:: -1 if variant == "mel_db" else 1]
            arrays = {"labels": np.arange(8), "verified": np.ones(8, bool), "logits": logits}
            write_npz(place / "fold_0" / "predictions.npz", ids=np.array(names), **arrays)
            runs.append(Run(variant, 0, {0: place}))
        return runs, tuple("abcdefgh"), [("budget", "none")]

    monkeypatch.setattr(datasets.single, "run", study)
    workdir = tmp_path / "study"
    datasets.run(parse_settings(listed), workdir)
    assert studied == [(str(tmp_path / name), 1.0, name) for name in ("first", "second")]
    text = (workdir / "across.md").read_text()
    assert "On the average of first, second" in text and "budget: none" in text
    found = json.loads((workdir / "across.json").read_text())
    assert found["pooled"][0]["variant"] == "mel_db" and found["interactions"]
    alone = tmp_path / "alone"
    alone.mkdir()
    (workdir / "predictions").rename(alone / "predictions")
    listed.study.train = False
    with monkeypatch.context() as patched:  # a report describes prepared clips, and prepares none
        patched.setattr(store, "prepare_run_clips", pytest.fail)
        (tmp_path / "prepared").rename(tmp_path / "away")
        datasets.run(parse_settings(listed), workdir)
    assert len(studied) == 4 and not json.loads((workdir / "across.json").read_text())["interactions"]
    for name in ("first", "second"):
        for path in (tmp_path / name).glob("*/*"):
            path.unlink()  # the report needs no sounds
    datasets.run(parse_settings(listed), alone)
    assert len(studied) == 4 and (alone / "across.md").read_text() == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a\n", "is not TOML"),
        ("", "lists no data sets"),
        ("x = 1\n", "lists no data sets"),
        ("[a]\ndataset.pth = 'x'\n", "unknown field dataset.pth"),
        ("[a]\nname = 'mel_db'\n", "unknown field name"),
        ("[a]\ndataset.path = 3\n", "must be of type str"),
        ("[a]\npooled = 'no'\n", "must be true or false"),
        ("['../a']\ndataset.path = 'x'\n", "becomes a folder"),
        ("[a]\ndataset.sample_rate_hz = 3\n", "must be at least 1000"),
    ],
)
def test_a_wrong_list_of_data_sets_is_refused_in_a_line(listed, tmp_path, text, problem):
    (tmp_path / "sets.toml").write_text(text)
    with pytest.raises(UserError, match=problem):
        datasets.read_datasets(parse_settings(listed))


@pytest.mark.parametrize("field", ["source = 'fsd50k'", "label_separator = ','\ndataset.table = 'x.csv'"])
def test_several_labels_a_clip_are_refused_before_anything_is_studied(listed, tmp_path, monkeypatch, field):
    monkeypatch.setattr(datasets.single, "run", pytest.fail)
    (tmp_path / "sets.toml").write_text(f"[a]\ndataset.path = 'x'\n[b]\ndataset.path = 'y'\ndataset.{field}\n")
    with pytest.raises(UserError, match="b has several labels a clip"):
        datasets.run(parse_settings(listed), tmp_path / "study")


def test_some_data_sets_of_a_list(listed):
    listed.study.datasets += ":second"
    (only,) = datasets.read_datasets(parse_settings(listed))
    assert only.name == "second" and only.settings.dataset.path.endswith("second")
    listed.study.datasets += ",third"
    with pytest.raises(UserError, match="no data set 'third'; choose from first, second"):
        datasets.read_datasets(parse_settings(listed))


def test_a_missing_list_is_refused(listed, tmp_path):
    (tmp_path / "sets.toml").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        datasets.read_datasets(parse_settings(listed))
