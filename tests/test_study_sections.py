"""Sections of the study's report from predictions beside the main tables, and maps of occlusion, on known answers."""

import dataclasses
import json
import shutil
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.stats

from audiotag_jax.evaluation.predictions import VALIDATION
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.study import store
from audiotag_jax.study.across import across
from audiotag_jax.study.results import Clips, Results, VariantLogits
from benchmarks import (
    compare_strides,
    gather_folds,
    inner_losses,
    occlusion,
    robustness,
    study_exploratory,
    study_ranges,
    study_sections,
    study_trained,
)

N = 400


def saved(folder, hits, seeds=(0,)):
    """Predictions of `{variant: share right}` on the same clips; with each seed others are right."""
    labels = np.arange(N) % 4
    clips = Clips(np.array([f"{k:04d}" for k in range(N)]), labels, np.ones(N, bool), np.arange(N) % 4)
    right = {name: [right_clips(share, seed) for seed in seeds] for name, share in hits.items()}
    answers = {
        name: [np.where(each, labels, (labels + 1) % 4) for each in of_seeds] for name, of_seeds in right.items()
    }
    logits = {name: np.stack([5.0 * np.eye(4, dtype=np.float32)[a] for a in each]) for name, each in answers.items()}
    variants = tuple(VariantLogits(name, seeds, each, None) for name, each in logits.items())
    about = [("network", "a probe"), ("seeds", ", ".join(map(str, seeds)))]
    store.write(folder, Results(tuple("abcd"), clips, None, variants, {}), about)


def right_clips(share, seed):
    """Which clips are right: of seed 0 just that share, of others a little fewer, and not the same."""
    return (np.arange(N) * (97 + 10 * seed) % N) / N < share - 0.01 * seed


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    probes = {"log_db": 0.6, "hires_q2": 0.5, "hires_q8": 0.5}
    saved(root / "probes/predictions/drums", probes | {name: 0.4 for name in study_sections.HIGH if name not in probes})
    saved(root / "windows/window-512/predictions/drums", {"log_db": 0.7, "mel_db": 0.45})
    saved(root / "forms/smooth-1/predictions/drums", {"hires_q2": 0.6})
    for stride, shift in ((1, 0.0), (8, 0.0), (32, -0.2)):
        share = {"hires_q2": 0.5 + shift, "hires_q8": 0.5}
        saved(root / f"strides/stride-{stride}/predictions/drums", share)
    return root


def test_other_settings_stand_beside_the_committed_probes(study):
    found = study_sections.beside(study, "windows")["drums"]
    values = {d["variant"]: d["value"] for d in found["differences"]}
    assert values == {"log_db, window-512": pytest.approx(0.1), "mel_db, window-512": pytest.approx(-0.15)}
    probes = {"variants": dict.fromkeys(study_sections.HIGH, {"value": 0.65})}
    assert study_sections.exceeding(probes, found) == ("hires_q1 (0.650)", ["log_db, window-512"])
    assert "| `log_db, window-512` | 0.700 (" in "\n".join(study_sections.windows({"drums": found}))
    text = "\n".join(study_exploratory.forms(study))
    assert "| `hires_q2, smooth-1` | 0.600 (" in text and "| `hires_q8` | 0.500 (" in text


def losses(folder, **by_variant):
    folder.joinpath(inner_losses.FILE).write_text(json.dumps({name: {"loss": v} for name, v in by_variant.items()}))


def test_the_form_that_inner_splits_choose_is_shown_on_data_that_chose_nothing(study, tmp_path):
    shutil.copytree(study / "probes", tmp_path / "probes")
    shutil.copytree(study / "probes/predictions/drums", tmp_path / "probes/predictions/digits")
    for dataset, share in (("drums", 0.45), ("digits", 0.75)):
        saved(tmp_path / f"forms/smooth-1/predictions/{dataset}", {"hires_q2": share, "hires_q8": share})
        saved(tmp_path / f"forms/smooth-2/predictions/{dataset}", {"hires_q2": 0.99})
        losses(tmp_path / f"forms/smooth-1/predictions/{dataset}", hires_q2=1.0, hires_q8=1.5)
        losses(tmp_path / f"forms/smooth-2/predictions/{dataset}", hires_q2=1.1 if dataset == "drums" else 0.1)
        losses(tmp_path / f"probes/predictions/{dataset}", hires_q2=1.2, hires_q8=1.2)
    text = "\n".join(study_exploratory.forms(tmp_path))
    assert "Of `hires_q2` and its 2 other forms the inner splits of drums choose `smooth-1`; digits chose" in text
    assert "chose the form |" in text and "per-hz" not in text
    assert "| digits | +0.250 (" in text and "| drums | −0.050 (" in text and "smooth-2` − " not in text
    assert "Of `hires_q8` and its 1 other form the inner splits of drums choose `hires_q8` itself." in text
    assert "p | inner |" in text and "| 1.200 |" in text


def test_a_form_of_all_variants_is_compared_with_the_baseline_of_that_form(study, tmp_path):
    assert study_exploratory.forms_of_all(study) == []  # `smooth-1` was run without the baseline
    for dataset, share in (("drums", 0.5), ("digits", 0.65), ("notes", 0.75)):
        shutil.copytree(study / "probes/predictions/drums", tmp_path / f"probes/predictions/{dataset}")
        more = {"mel_db": 0.5} if dataset == "drums" else {}  # not run elsewhere
        saved(tmp_path / f"forms/range-40/predictions/{dataset}", {"log_db": 0.55, "hires_q2": share} | more)
    saved(tmp_path / "forms/cells-112/predictions/drums", {"log_db": 0.4, "hires_q8": 0.4})
    text = study_exploratory.forms_of_all(tmp_path)
    [row] = [line for line in text if line.startswith("| `hires_q2`")]
    digits, drums, notes, mean, p, _ = row.split(" | ", 1)[1].split(" | ")
    assert digits.startswith("+0.100 (") and drums.startswith("−0.050 (") and notes.startswith("+0.200 (")
    assert mean.startswith("+0.150 (") and p == "< 0.001"  # without drums, which chose
    assert "| variant | digits | drums | notes | mean of digits, notes | p | equivalent |" in text
    assert "| variant | drums |" in text and any(line.startswith("| `log_db`, accuracy | 0.400 (") for line in text)


def by_fold(folder, **by_variant):
    found = {name: {"loss": 1.0, "by_fold": dict(zip("0123", each, strict=True))} for name, each in by_variant.items()}
    folder.joinpath(inner_losses.FILE).write_text(json.dumps(found))


def test_each_fold_is_answered_at_the_range_that_its_inner_split_chooses(study, tmp_path):
    assert study_ranges.chosen_ranges(study) == []
    for dataset in ("drums", "digits", "notes"):
        folders = {80: tmp_path / f"probes/predictions/{dataset}"}
        folders |= {r: tmp_path / f"forms/range-{r}/predictions/{dataset}" for r in (20, 40)}
        for decibels, right in ((80, 0.0), (20, 1.0), (40, 0.0)):
            saved(folders[decibels], {"log_db": 0.5, "hires_q2": right, "mel_db": 0.5})
        by_fold(folders[80], log_db=[1, 1, 1, 1], hires_q2=[1, 1, 1, 1], mel_db=[1, 1, 1, 1])
        by_fold(folders[20], log_db=[2, 2, 2, 2], hires_q2=[0, 2, 0, 0])  # three of four folds
        by_fold(folders[40], log_db=[2, 2, 2, 0], hires_q2=[2, 0, 2, 2], mel_db=[0, 0, 0, 0])
    text = study_ranges.chosen_ranges(tmp_path)
    assert "Of 20, 40 and 80 dB" in text[2]
    rows = [line for line in text if line.startswith("| `hires_q2`")]
    differences = rows[0].split(" | ")[1:]
    assert all(each.startswith("+0.250 (") for each in differences[:4])  # 0.75 - 0.5, and the mean
    assert rows[1] == "| `hires_q2` | 20 (3), 40 (1) | 20 (3), 40 (1) | 20 (3), 40 (1) |"
    assert "| `log_db` | 40 (1), 80 (3) |" in "\n".join(text) and "mel_db" not in "\n".join(text)  # lacks losses at 20
    assert "mean of digits, notes" in "\n".join(text)
    changed = [line for line in text if line.startswith(("| `log_db`, accuracy", "| `hires_q2`"))][-2:]
    assert "0.000 (" in changed[0] and all(each.startswith("+0.750 (") for each in changed[1].split(" | ")[1:])
    shutil.rmtree(tmp_path / "forms/range-40/predictions/notes")
    assert "notes" not in "\n".join(study_ranges.chosen_ranges(tmp_path))


def test_channels_are_compared_with_the_average_of_their_parts(tmp_path):
    parts = {"hires_q1": 0.5, "hires_q8": 0.5, "log_db": 0.5}
    saved(tmp_path, parts | {"mix_q1_q8_log": 0.75})
    [row] = [line for line in study_exploratory.channels({"a": store.read(tmp_path)}) if "`mix" in line]
    assert row.startswith("| `mix_q1_q8_log` | +0.250 (")
    saved(tmp_path / "b", {"log_db": 0.5})
    both = {"b": store.read(tmp_path / "b"), "a": store.read(tmp_path)}
    [row] = [line for line in study_exploratory.channels(both) if "`mix" in line]
    assert row.startswith("| `mix_q1_q8_log` | – | +0.250 (")


def test_few_speakers_make_a_difference_less_certain(tmp_path):
    """The four folds of the clips as speakers, two of which gain much; against the t test of SciPy."""
    rng, folds = np.random.default_rng(1), np.arange(N) % 4
    right = {name: rng.uniform(size=N) < 0.5 for name in ("log_db", "mel_db")}
    right["mel_db"][folds < 2] = True
    labels = np.arange(N) % 4
    clips = Clips(np.array([f"{k:04d}" for k in range(N)]), labels, np.ones(N, bool), folds)
    variants = tuple(
        VariantLogits(name, (0,), np.eye(4, dtype=np.float32)[(labels + ~each) % 4][None], None)
        for name, each in right.items()
    )
    saved = {"digits": store.Saved(Results(tuple("abcd"), clips, None, variants, {}), [], None)}
    found = across(saved, baseline="log_db", margin=0.01, pooled=["digits"])
    row = study_exploratory.by_speaker(saved, found)[-2]
    means = [(right["mel_db"] * 1.0 - right["log_db"])[folds == fold].mean() for fold in range(4)]
    expected = scipy.stats.ttest_1samp(means, 0)
    low, high = expected.confidence_interval()
    assert (
        f"{np.mean(means):+.3f} ({low:+.3f} to {high:+.3f}) | {expected.pvalue:.3f} | < 0.001 |".replace("-", "−")
        in row
    )
    assert study_exploratory.by_speaker({}, {"pooled": [{"datasets": ["drums"]}]}) == []


def test_the_loss_on_inner_splits_is_that_of_each_folds_best_trial(tmp_path):
    labels = np.array([0, 1, 1, 0])
    for variant, factor, fold, probability in (
        ("log_db", "0.1", 0, 0.9),
        ("log_db", "10", 0, 0.5),
        ("log_db", "0.1", 1, 0.4),
        ("log_db", "10", 1, 0.8),
        ("mel_db", "0.1", 0, 0.99),  # its other trials are not finished
    ):
        logits = np.log(np.where(np.eye(2)[labels], probability, 1 - probability))
        folder = tmp_path / f"search/{variant}-rate_{factor}/fold_{fold}"
        folder.mkdir(parents=True)
        clips = {"ids": labels.astype(str), "recordings": labels.astype(str), "verified": np.ones(4, bool)}
        np.savez(folder / VALIDATION, **clips, labels=labels, logits=logits.astype(np.float32))
    found = inner_losses.inner_losses(tmp_path)
    assert found.keys() == {"log_db"}
    assert found["log_db"]["loss"] == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2, rel=1e-5)


def answers(share_by_condition):
    labels = np.arange(N) % 4
    found = {"ids": np.array([f"{k:04d}" for k in range(N)]), "labels": labels}
    for name in robustness.CONDITIONS:
        wrong = np.arange(N) >= share_by_condition.get(name, 0.8) * N
        found[name] = np.log(0.1 + np.eye(4)[(labels + wrong) % 4]).astype(np.float16)
    return found


def test_what_a_disturbance_costs_is_compared_with_what_it_costs_the_first(tmp_path):
    for name, share in (("log_db", 0.6), ("mel_db", 0.5)):
        np.savez(tmp_path / f"{name}.npz", **answers({"MP3 32 kbit/s": share}))
    text = "\n".join(robustness.tables(robustness.read(tmp_path, ("log_db", "mel_db")), {}))
    assert "| `mel_db` | 0, no clip differs | 0, no" in text
    assert "| `log_db` | 0.800 | 0.800 | 0.800 | 0.800 | 0.800 | 0.600 |" in text
    lost = text.splitlines()[-1].rpartition("`mel_db` | ")[2].split(" | ")[-1]
    assert lost.startswith("+0.100 (") and lost.endswith(r") \* |")
    other = answers({}) | {"ids": np.arange(N).astype(str)}
    np.savez(tmp_path / "z.npz", **other)
    with pytest.raises(SystemExit, match="other clips than log_db"):
        robustness.read(tmp_path)


def test_a_cell_is_marked_by_its_p_value_after_the_correction_over_all_cells(tmp_path):
    shares = {"log_db": 0.8, "mel_db": 0.785, "hires_q2": 0.8}  # six clips: p is 2**-5 before the correction
    for name, share in shares.items():
        np.savez(tmp_path / f"{name}.npz", **answers({"noise 0 dB": share}))
    rows = [line for line in robustness.tables(robustness.read(tmp_path, tuple(shares)), {}) if "`mel_db`" in line]
    assert len(rows) == 3 and not any(r"\*" in row for row in rows)


def test_the_pages_of_occlusion_are_linked(tmp_path):
    assert study_sections.occluded(tmp_path) == []
    for name in ("notes", "drums"):
        (tmp_path / "occlusion" / name).mkdir(parents=True)
        (tmp_path / "occlusion" / name / "maps.svg").touch()
    line, _ = study_sections.occluded(tmp_path)
    assert "[drums](occlusion/drums/report.md), [notes](occlusion/notes/report.md)" in line


def test_strides_are_compared_with_the_first_in_the_order_of_their_numbers(study):
    rows = [line for line in study_sections.strides(study) if line.startswith("| `")]
    assert [row.split(" | ")[1] for row in rows] == ["stride 8", "stride 32"] * 2
    assert "−0.200" in rows[1] and "< 0.001" in rows[1] and "no (1.000)" in rows[1] and "| 0.000 (" in rows[0]


def test_what_is_not_there_has_no_section(study, tmp_path):
    shutil.copytree(study / "probes", tmp_path / "probes")
    assert study_sections.strides(tmp_path) + study_sections.windows({}) == []
    shutil.copytree(study / "strides/stride-8", tmp_path / "strides/stride-8")
    shutil.copytree(study / "strides/stride-32", tmp_path / "strides/stride-32")
    assert study_sections.strides(tmp_path) == []  # stride 1, the baseline, is missing
    assert study_exploratory.forms(tmp_path) == []


def test_other_clips_are_refused(study, tmp_path):
    shutil.copytree(study / "probes", tmp_path / "probes")
    results = store.read(study / "windows/window-512/predictions/drums").results
    clips = dataclasses.replace(results.held_out, ids=np.array([f"x{k:04d}" for k in range(N)]))
    other = dataclasses.replace(results, held_out=clips)
    store.write(tmp_path / "windows/window-512/predictions/drums", other, [])
    with pytest.raises(UserError, match="window-512, drums differs in clips"):
        study_sections.beside(tmp_path, "windows")
    store.write(tmp_path / "runs/predictions/drums", other, [])
    with pytest.raises(UserError, match="runs differs in clips"):
        compare_strides.compare([study / "windows/window-512", tmp_path / "runs"], "drums", 0.01)
    with pytest.raises(UserError, match="the same name"):
        compare_strides.compare([tmp_path / "windows", study / "windows"], "drums", 0.01)


def test_a_fold_in_two_runs_is_refused(tmp_path):
    """As after a search with other factors: which one counts stands in choices.json."""
    for rate, fold in ((1, 0), (3, 1)):
        folder = tmp_path / f"runs/log_db-seed_0-rate_{rate}/fold_{fold}"
        folder.mkdir(parents=True)
        (folder / VALIDATION).touch()
    assert [path.name for path in robustness.fold_dirs(tmp_path, "log_db").values()] == [
        "log_db-seed_0-rate_1",
        "log_db-seed_0-rate_3",
    ]
    (tmp_path / "runs/log_db-seed_0-rate_3/fold_0").mkdir()
    (tmp_path / "runs/log_db-seed_0-rate_3/fold_0" / VALIDATION).touch()
    with pytest.raises(SystemExit, match="fold 0 of log_db is in log_db-seed_0-rate_1 and log_db-seed_0-rate_3"):
        robustness.fold_dirs(tmp_path, "log_db")


def test_the_clips_needed_grow_with_the_square_of_the_difference():
    entry = {"variant": "mel_db", "detectable": (0.02, 0.03)}
    entry["fixed"] = {"value": 0.0, "p_holm": 1.0, "p_equivalence_holm": 1.0}
    settled = entry | {"variant": "hires_q1", "fixed": {"value": -0.1, "p_holm": 0.01, "p_equivalence_holm": 1.0}}
    entry["fixed"]["standard_error"] = settled["fixed"]["standard_error"] = 0.01
    more = {"datasets": ["a"], "tau2": 0.0099, "random": {"value": -0.1}}
    pooled = [each | more for each in (entry, settled)]
    own = [{"variant": "hires_q2", "detectable": (0.02, 0.05), "p_bootstrap_holm": 0.2, "p_equivalence_holm": 1.0}]
    one = {"datasets": {"a": {"num_clips": 2000, "differences": own}}, "pooled": pooled}
    text = "\n".join(study_sections.take({"probes": one, "small": one}))
    assert "ImageNet weights, mean: open are mel_db. To find" in text and "9 times the clips (a 2,000)" in text
    rng = np.random.default_rng(0)  # standard deviation 0.1, mean -0.1: 10 data sets have this power
    assert study_sections.datasets_needed(pooled[0], 1) == 10 and "hires_q1 13." in text
    found = scipy.stats.ttest_1samp(rng.normal(-0.1, 0.1, size=(4000, 10)), 0, axis=1).pvalue < 0.05
    assert 0.75 < found.mean() < 0.85
    assert study_sections.datasets_needed(pooled[0] | {"random": {"value": 0.001}}, 1) is None
    assert "24 epochs, a: open are hires_q2. To find" in text and "25 times the clips (a 2,000)" in text


def maps(**more):
    rng = np.random.default_rng(0)
    clips = {"ids": np.array(["a", "b", "c", "d"]), "labels": np.array([0, 0, 1, 1]), "recordings": np.array([""] * 4)}
    axis = np.geomspace(50, 7000, 14)
    return clips | {"maps": rng.normal(size=(4, 14, 14)).astype(np.float16), "frequencies_hz": axis} | more


def test_a_cell_is_worth_what_its_pixels_add_to_a_linear_answer():
    rng = np.random.default_rng(0)
    image, weights = rng.uniform(size=(2, 48, 64, 1)).astype(np.float32)
    image[16:32, 16:32] = 0  # silent already: nothing is lost, nothing computed
    seen = []

    def answer(images):
        seen.append(len(images))
        return 3.0 + (images * weights).sum(axis=(1, 2, 3))

    expected = (image * weights)[..., 0].reshape(3, 16, 4, 16).sum(axis=(1, 3))
    np.testing.assert_allclose(occlusion.occlude(image, answer), expected, rtol=1e-4, atol=1e-4)
    assert expected[1, 1] == 0 and sum(seen) == 32


def test_numbers_of_a_map():
    one = np.zeros((1, 14, 14), np.float16)
    one[0, 3, 0], one[0, 4, 13], one[0, 5, 5] = 2.0, 1.0, -1.0
    found = occlusion.measures(maps(maps=one))
    assert [round(float(each[0]), 3) for each in found.values()] == [1, pytest.approx(0.75), 0.25, 2.0]


def test_tables_and_plot_by_kind(tmp_path):
    saved(tmp_path, {"log_db": 0.5})
    probes, clips = store.read(tmp_path), np.array(["0000", "0004", "0001", "0005"])
    labels = probes.results.held_out.labels  # of the four classes, only that of the first two clips is percussive
    descriptors = {"harmonic_share": np.where(labels == 0, 0.1, 0.9), "flatness_db": np.full(N, -20.0)}
    kinds = occlusion.kinds_of_clips(dataclasses.replace(probes, descriptors=descriptors), clips)
    assert kinds.tolist() == ["percussive", "percussive", "tonal", "tonal"]
    both = {"log_db": maps(), "hires_q2": maps(maps=2 * maps()["maps"])}
    text = occlusion.tables(both, kinds)
    assert text.count("\n## ") == 3 and text.count("(+0: +0 to +0)") == 9 and text.count("| `hires_q2` |") == 3
    occlusion.plot(both, kinds, tmp_path / "maps.svg")
    ElementTree.parse(tmp_path / "maps.svg")


def test_maps_of_other_clips_are_refused():
    with pytest.raises(SystemExit, match="the maps of hires_q2 and log_db are of different clips"):
        occlusion.check_same_clips({"log_db": maps(), "hires_q2": maps(ids=np.array(list("abce")))})


def test_figures_of_other_clips_are_not_taken_for_these(tmp_path):
    ids = np.array(["a", "b"])
    assert not robustness.is_saved(tmp_path / "x.npz", ids)
    np.savez(tmp_path / "x.npz", ids=ids)
    assert robustness.is_saved(tmp_path / "x.npz", ids)
    with pytest.raises(SystemExit, match=r"x\.npz is of other clips"):
        robustness.is_saved(tmp_path / "x.npz", ids[:1])


def test_clips_are_drawn_evenly_and_the_same_in_any_order():
    ids, labels = np.array([f"{k}" for k in range(40)]), np.arange(40) % 4
    chosen = set(ids[occlusion.by_class(ids, labels, 3)])
    assert np.bincount([int(clip) % 4 for clip in chosen]).tolist() == [3, 3, 3, 3]
    assert set(ids[::-1][occlusion.by_class(ids[::-1], labels[::-1], 3)]) == chosen


def record_of(variant, seed, classes="abcd"):
    return SimpleNamespace(classes=tuple(classes), settings=SimpleNamespace(name=variant, seed=seed))


def test_folds_that_are_trained_apart_make_a_file_of_a_study(tmp_path, monkeypatch):
    saved(tmp_path / "study", {"log_db": 0.7})
    with np.load(tmp_path / "study/log_db-seed_0.npz") as file:
        expected = dict(file)
    for fold in range(4):
        rows = expected["folds"] == fold
        one = {name: expected[name][rows] for name in ("ids", "labels", "verified", "recordings")}
        folder = tmp_path / f"run_{fold}/fold_{fold}"
        folder.mkdir(parents=True)
        np.savez(folder / VALIDATION, **one, logits=expected["logits"][rows].astype(np.float32) + 3)
    monkeypatch.setattr(gather_folds, "read_record", lambda run: record_of("log_db", 0))
    out = tmp_path / "gathered/log_db-seed_0.npz"
    assert gather_folds.gather([tmp_path / "run_0", tmp_path / "run_2"], out) == [0, 2]
    assert gather_folds.gather([tmp_path / "run_1", tmp_path / "run_3"], out) == [0, 1, 2, 3]
    with np.load(out) as file:
        found = dict(file)
    assert found.keys() == expected.keys()
    for name in found.keys() - {"logits"}:
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=0.01)
    with pytest.raises(UserError, match="100 clips are held out twice, such as 0000"):
        gather_folds.gather([tmp_path / "run_0"], out)
    monkeypatch.setattr(gather_folds, "read_record", lambda run: record_of("log_db", 0, classes="abce"))
    with pytest.raises(UserError, match="different classes"):
        gather_folds.gather([tmp_path / "run_0"], out)
    with pytest.raises(UserError, match="none of the runs"):
        gather_folds.gather([tmp_path / "run_9"], tmp_path / "new" / "log_db-seed_0.npz")


def test_a_gathered_file_is_listed_beside_those_of_a_study_once_it_is_whole(tmp_path, monkeypatch):
    saved(tmp_path / "study", {"log_db": 0.7, "mix": 0.5}, seeds=(0, 2))
    with np.load(tmp_path / "study/mix-seed_0.npz") as file:
        one = {name: file[name] for name in ("ids", "labels", "verified", "recordings", "logits", "folds")}
    for fold in range(4):
        folder = tmp_path / f"run_{fold % 2}/fold_{fold}"
        folder.mkdir(parents=True)
        np.savez(folder / VALIDATION, **{name: each[one["folds"] == fold] for name, each in one.items()})
    monkeypatch.setattr(gather_folds, "read_record", lambda run: record_of("mix", 1))
    out = tmp_path / "study/mix-seed_1.npz"
    gather_folds.gather([tmp_path / "run_0"], out)
    assert store.read(tmp_path / "study").results["mix"].seeds == (0, 2)
    gather_folds.gather([tmp_path / "run_1"], out)
    found = store.read(tmp_path / "study")
    assert found.results["mix"].seeds == (0, 1, 2) and found.results["log_db"].seeds == (0, 2)
    np.testing.assert_allclose(found.results["mix"].held_out[1], found.results["mix"].held_out[0], atol=0.01)
    assert ("seeds", "0, 2") in found.about  # those of all variants
    with pytest.raises(UserError, match=r"run_0 is of mix-seed_1, not of log_db-seed_1"):
        gather_folds.gather([tmp_path / "run_0"], tmp_path / "study/log_db-seed_1.npz")
    with pytest.raises(UserError, match=r"mix\.npz is not named .* VARIANT-seed_S\.npz"):
        gather_folds.gather([tmp_path / "run_0"], tmp_path / "study/mix.npz")
    assert not (tmp_path / "study/mix.npz").exists()


def test_trained_networks_stand_against_their_own_baseline_and_the_usual_settings(tmp_path):
    family, run = tmp_path / "small/predictions/drums", tmp_path / "trained/small-range_40/predictions/drums"
    saved(family, {"hires_q8": 0.4, "log_db": 0.6}, seeds=(0, 1, 2))
    saved(run, {"hires_q8": 0.55, "log_db": 0.62}, seeds=(1, 0))
    text = "\n".join(study_trained.trained(tmp_path))
    assert "### The small network, 40 dB in place of 80: drums" in text
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:3] == "| `"]
    assert [row[0] for row in rows] == ["`log_db`", "`hires_q8`"]

    def mean(share, seeds):
        return np.mean([right_clips(share, seed).mean() for seed in seeds])

    def starts(cell, value):
        return cell.replace("−", "-").startswith(f"{value:+.3f} (")

    here, there = mean(0.55, (0, 1)) - mean(0.62, (0, 1)), mean(0.4, (0, 1)) - mean(0.6, (0, 1))
    assert rows[0][1] == f"{mean(0.62, [0]):.3f} (0), {mean(0.62, [1]):.3f} (1)"
    assert starts(rows[0][4], mean(0.62, (0, 1)) - mean(0.6, (0, 1)))
    by_seed = [mean(0.55, [seed]) - mean(0.62, [seed]) for seed in (0, 1)]
    assert rows[1][2].replace("−", "-") == f"{by_seed[0]:+.3f} (0), {by_seed[1]:+.3f} (1)"
    assert starts(rows[1][3], here) and rows[1][3].endswith("p < 0.001")
    assert starts(rows[1][4], mean(0.55, (0, 1)) - mean(0.4, (0, 1))) and starts(rows[1][5], here - there)
    assert starts(rows[1][6], mean(0.55, (0, 1)) - mean(0.6, (0, 1))) and rows[1][7] == "no (1.000)"


def test_equivalence_of_trained_networks_counts_the_seeds_too():
    """Against the formula, with standard errors of means of independent clips and of three seeds."""
    rng = np.random.default_rng(0)
    gains = {seed: rng.choice([-1.0, 0.0, 1.0], 3000, p=[0.02, 0.955, 0.025]) for seed in range(3)}
    values = np.array([gain.mean() for gain in gains.values()])
    of_seeds = values.std(ddof=1) / 3**0.5
    error = np.hypot(np.std(np.mean([*gains.values()], axis=0)) / 3000**0.5, of_seeds)
    degrees = 2 * (error / of_seeds) ** 4  # Satterthwaite's, the variance over recordings known
    expected = scipy.stats.t.sf((study_sections.MARGIN - abs(values.mean())) / error, degrees)
    assert study_trained._equivalence(gains, np.arange(3000)) == pytest.approx(expected, rel=0.15)
    alone = study_trained._equivalence({0: gains[0]}, np.arange(3000))
    error = np.std(gains[0]) / 3000**0.5
    assert alone == pytest.approx(scipy.stats.norm.sf((study_sections.MARGIN - abs(values[0])) / error), rel=0.15)


def test_networks_trained_again_are_what_others_are_compared_with(tmp_path):
    saved(tmp_path / "small/predictions/drums", {"log_db": 0.6, "hires_q8": 0.4})
    saved(tmp_path / "trained/small-again/predictions/drums", {"log_db": 0.5, "hires_q8": 0.45})
    about = tmp_path / "trained/small-again/predictions/drums/about.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"about": [["note", "On another machine."]]}))
    saved(tmp_path / "trained/small-bfloat16/predictions/drums", {"log_db": 0.5})
    text = study_trained.trained(tmp_path)
    again, other = (text[text.index(line) :] for line in text if line.startswith("### "))
    assert "On another machine." in again and "to the usual" not in again[2]
    assert "| `log_db` | 0.500 (0) |  |  | 0.000 (" in "\n".join(other)
    assert study_trained.trained(tmp_path / "small") == []


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("small-range_40/predictions/notes", "small has no predictions of notes, with which small-range_40"),
        ("tiny-range_40/predictions/drums", "tiny-range_40 is not named after a network and a change"),
        ("small-louder/predictions/drums", "small-louder is not named after a network and a change"),
    ],
)
def test_a_run_without_its_family_is_one_line(tmp_path, run, message):
    saved(tmp_path / "small/predictions/drums", {"log_db": 0.6})
    saved(tmp_path / "trained" / run, {"log_db": 0.6})
    with pytest.raises(UserError, match=message):
        study_trained.trained(tmp_path)


def test_a_variant_is_compared_with_its_control(tmp_path):
    saved(tmp_path / "predictions/drums", {"log_db": 0.6, "mix": 0.4, "control": 0.55}, seeds=(0, 1))
    found = study_sections.read(tmp_path)
    value = np.mean([right_clips(0.4, seed).mean() - right_clips(0.55, seed).mean() for seed in (0, 1)])
    [line, _] = study_trained.against_control(found, "mix", "control")
    assert line.replace("−", "-").startswith(f"`mix` minus `control`, uncorrected: drums {value:.3f} (")
    assert study_trained.against_control(found, "mix", "other") == []


def test_a_family_states_its_trainings_and_shows_kinds_of_class(tmp_path):
    saved(tmp_path / "predictions/drums", {"log_db": 0.6, "hires_q8": 0.4})
    one = study_sections.read(tmp_path)
    assert study_trained.between_seeds(one)[0].startswith("One training each (seed 0)")
    assert study_sections.kinds_of_family(one, one) == []
    saved(tmp_path / "predictions/drums", {"log_db": 0.6, "hires_q8": 0.4}, seeds=(0, 1))
    spread = [np.std([right_clips(share, seed).mean() for seed in (0, 1)], ddof=1) for share in (0.6, 0.4)]
    text = " ".join(study_trained.between_seeds(study_sections.read(tmp_path)))
    begin = "Means of 2 trainings each (seeds 0, 1), whose accuracies have standard deviations of"
    assert text.startswith(f"{begin} {min(spread):.3f} to {max(spread):.3f};")
    other = saved_with_one_seed_more(tmp_path / "uneven/predictions/drums")
    with pytest.raises(UserError, match="not all variants of drums were trained with the same seeds"):
        study_trained.between_seeds(study_sections.read(other))
    harmonic = np.where(np.arange(N) % 4 < 2, 0.1, 0.9)
    descriptors = {"harmonic_share": harmonic, "flatness_db": -20 * harmonic}
    described = dataclasses.replace(one["drums"], descriptors=descriptors)
    lines = study_sections.kinds_of_family(one, {"drums": described})
    assert lines[0] == "| by kind of class | percussive: drums | tonal: drums |"
    assert lines[2].startswith("| `hires_q8` | −0.200 (")


def saved_with_one_seed_more(folder):
    saved(folder, {"log_db": 0.6, "hires_q8": 0.4}, seeds=(0, 1))
    about = json.loads((folder / "about.json").read_text())
    about["files"] = [each for each in about["files"] if (each["variant"], each["seed"]) != ("hires_q8", 1)]
    (folder / "about.json").write_text(json.dumps(about))
    return folder.parents[1]
