"""The study's figures against closed form, SciPy and statsmodels; how often true nulls are rejected."""

import json

import numpy as np
import pytest
import scipy.stats

from audiotag_jax.evaluation.intervals import bootstrap_means, score_table
from audiotag_jax.evaluation.predictions import concatenate, load_predictions
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_npz
from audiotag_jax.study.results import Clips, Results, Run, VariantLogits, read_results
from audiotag_jax.study.statistics import study_scores

NUM_CLASSES = 5


def logits_of(ranks, labels):
    """Logits [..., n, K] that put each clip's label in the given place."""
    ranks = np.asarray(ranks)
    others = np.arange(NUM_CLASSES) - (np.arange(NUM_CLASSES) > labels[:, None])  # 0, 1, 2... without the label
    logits = -(others + (others >= ranks[..., None])).astype(np.float32)
    return np.where(np.arange(NUM_CLASSES) == labels[:, None], -ranks[..., None], logits).astype(np.float32)


def study_of(ranks, *, folds=None, verified=None, test=None, test_labels=None, seeds=None):
    """Results whose labels have the given places: `{variant: [S, n]}`, and `{variant: [S, J, m]}` for test clips."""
    n = np.shape(next(iter(ranks.values())))[-1]
    labels = np.arange(n) % NUM_CLASSES
    every = np.ones(n, bool) if verified is None else np.asarray(verified)
    ids = np.array([f"{k:04d}" for k in range(n)])
    held_out = Clips(ids, labels, every, np.arange(n) % 2 if folds is None else np.asarray(folds))
    test_clips = None
    if test is not None:
        m = len(test_labels)
        test_clips = Clips(np.array([f"t{k}" for k in range(m)]), test_labels, np.ones(m, bool), np.full(m, -1))
    variants = []
    for name, each in ranks.items():
        test_logits = None if test is None else logits_of(test[name], np.maximum(test_labels, 0))
        chosen = (seeds or {}).get(name, tuple(range(len(each))))
        variants.append(VariantLogits(name, chosen, logits_of(each, labels), test_logits))
    return Results(tuple("abcde"), held_out, test_clips, tuple(variants))


def difference(scores, score, variant=None, part="held out", clips="all"):
    (found,) = (
        each
        for each in scores["differences"]
        if (each["score"], each["part"], each["clips"]) == (score, part, clips) and variant in (None, each["variant"])
    )
    return found


def row(scores, name, part="held out", clips="all"):
    (found,) = (each for each in scores["rows"] if (each["name"], each["part"], each["clips"]) == (name, part, clips))
    return found


def test_a_table_by_hand():
    """20 clips: both right 6, only the variant 8, only the baseline 2, neither 4."""
    base = [0] * 6 + [1] * 8 + [0] * 2 + [3] * 4
    x = [0] * 6 + [0] * 8 + [4] * 2 + [2] * 4
    scores = study_scores(study_of({"base": [base], "x": [x]}), "base", num_resamples=500)
    accuracy, top3 = difference(scores, "accuracy"), difference(scores, "top3_error")
    assert accuracy["discordant"] == [8, 2] and top3["discordant"] == [4, 2]
    assert accuracy["p_mcnemar"] == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert top3["p_mcnemar"] == pytest.approx(2 * (1 + 6 + 15) / 2**6)
    assert accuracy["value"] == pytest.approx(6 / 20) and top3["value"] == pytest.approx(-2 / 20)
    map_at_3 = difference(scores, "map_at_3")
    assert map_at_3["value"] == pytest.approx((8 * (1 - 1 / 2) - 2 * 1 + 4 / 3) / 20)
    assert (map_at_3["p_mcnemar"], map_at_3["p_mcnemar_holm"], map_at_3["discordant"]) == (None, None, None)
    assert row(scores, "base")["scores"]["accuracy"]["value"] == pytest.approx(8 / 20)
    assert row(scores, "x")["by_fold"]["accuracy"] == [7 / 10, 7 / 10]
    assert row(scores, "x")["num_clips"] == 20


def test_identical_variants_do_not_differ():
    ranks = np.random.default_rng(0).integers(0, 5, (1, 100))
    scores = study_scores(study_of({"base": ranks, "x": ranks}), "base", num_resamples=200)
    for score in ("top3_error", "accuracy", "map_at_3"):
        found = difference(scores, score)
        assert (found["value"], found["p_bootstrap"], found["p_bootstrap_holm"]) == (0, 1, 1)
        assert found["p_mcnemar"] == (None if score == "map_at_3" else 1)
        unseen = scipy.stats.binomtest(0, 100).proportion_ci(method="wilson").high
        assert (found["low"], found["high"]) == pytest.approx((-unseen, unseen))  # no width would claim to be sure


def test_better_on_every_clip():
    scores = study_scores(study_of({"base": [[3] * 50], "x": [[0] * 50]}), "base", num_resamples=999)
    found = difference(scores, "accuracy")
    assert found["value"] == 1 and found["high"] == 1 and 0.8 < found["low"] < 0.9
    assert found["p_bootstrap"] == 1 / 1000
    assert found["p_mcnemar"] == pytest.approx(2 / 2**50)
    assert difference(scores, "top3_error")["value"] == -1


@pytest.mark.parametrize("few", [1, 2, 3, 5])
def test_a_few_clips_never_make_the_bootstrap_surer_than_an_exact_test(few):
    scores = study_scores(
        study_of({"base": [[1] * 40], "x": [[0] * few + [1] * (40 - few)]}), "base", num_resamples=999
    )
    found = difference(scores, "accuracy")
    assert found["p_bootstrap"] >= found["p_mcnemar"] == pytest.approx(2 / 2**few)


def test_one_clip_is_no_evidence():
    scores = study_scores(study_of({"base": [[3]], "x": [[0]]}, folds=[0]), "base", num_resamples=99)
    found = difference(scores, "accuracy")
    assert found["value"] == 1 and found["p_bootstrap"] == 1 and found["p_mcnemar"] == 1 and found["low"] < 0
    json.dumps(scores, allow_nan=False)


def test_differences_are_paired():
    """Two variants wrong on nearly the same clips: the paired interval is far narrower than the rows' own."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 600)
    x = np.where(rng.random(600) < 0.05, 1 - base, base)
    scores = study_scores(study_of({"base": [base], "x": [x]}), "base", num_resamples=4000)
    found = difference(scores, "accuracy")
    expected = 1.96 * np.std((x == 0) * 1.0 - (base == 0)) / np.sqrt(600)
    assert (found["high"] - found["low"]) / 2 == pytest.approx(expected, rel=0.06)
    own = row(scores, "x")["scores"]["accuracy"]
    assert own["high"] - own["low"] > 2 * (found["high"] - found["low"])
    assert own["high"] - own["low"] == pytest.approx(2 * 1.96 * np.std(x) / np.sqrt(600), rel=0.06)


def test_recordings_are_resampled_whole():
    """Five copies of every clip are no more evidence than one, once they are known to be one recording's."""
    rng = np.random.default_rng(0)
    ranks = {"base": rng.integers(0, 3, (1, 40)), "x": rng.integers(0, 2, (1, 40))}
    copies = study_of({name: np.repeat(each, 5, axis=1) for name, each in ranks.items()})
    names = {clip: f"recording {k // 5}" for k, clip in enumerate(copies.held_out.ids.tolist())}
    one = difference(study_scores(study_of(ranks), "base", num_resamples=999), "map_at_3")
    scores = study_scores(copies, "base", recordings=names, num_resamples=999)
    five = difference(scores, "map_at_3")
    assert [five[key] for key in ("value", "low", "high", "p_bootstrap")] == pytest.approx(
        [one[key] for key in ("value", "low", "high", "p_bootstrap")]
    )
    blind = difference(study_scores(copies, "base", num_resamples=999), "map_at_3")
    assert blind["high"] - blind["low"] == pytest.approx((five["high"] - five["low"]) / np.sqrt(5), rel=0.15)
    assert (row(scores, "x")["num_clips"], row(scores, "x")["num_recordings"]) == (200, 40)
    half = {clip: names[clip] for clip in list(names)[:100]}  # the others stand alone
    assert row(study_scores(copies, "base", recordings=half, num_resamples=9), "x")["num_recordings"] == 20 + 100


def test_a_run_has_one_interval_in_its_summary_and_in_the_report(tmp_path):
    """Of four clips a recording, correlated; from the same files, and wider than clips by themselves would have it."""
    rng, folds = np.random.default_rng(0), (0, 1)
    for fold in folds:
        ids = np.array([f"{fold}-{n:02}" for n in rng.permutation(40)])
        recordings = np.array([f"r{clip[:-1]}{int(clip[-1]) // 4}" for clip in ids])
        right = {name: rng.random() < 0.7 for name in np.unique(recordings)}
        labels = rng.integers(0, NUM_CLASSES, 40)
        shift = np.array([0 if right[name] else 1 for name in recordings])
        logits = np.eye(NUM_CLASSES)[(labels + shift) % NUM_CLASSES] + 0.1 * rng.random((40, NUM_CLASSES))
        fields = {"labels": labels, "verified": np.ones(40, bool), "recordings": recordings}
        (tmp_path / f"fold_{fold}").mkdir()
        write_npz(tmp_path / f"fold_{fold}/predictions.npz", ids=ids, logits=logits, **fields)
    saved = concatenate([load_predictions(tmp_path / f"fold_{fold}/predictions.npz") for fold in folds])
    summary = score_table(saved)
    results = read_results([Run("base", 0, dict.fromkeys(folds, tmp_path))], tuple("abcde"))
    [reported] = study_scores(results, "base", recordings=results.recordings)["rows"]
    assert reported["num_recordings"] == summary["num_recordings"] < 80
    for metric, found in reported["scores"].items():
        assert found == pytest.approx(summary[metric], rel=1e-12)
    alone = score_table(saved | {"recordings": np.full(80, "")})["accuracy"]
    assert alone["high"] - alone["low"] < 0.8 * (summary["accuracy"]["high"] - summary["accuracy"]["low"])


def test_the_order_of_summation_makes_no_difference():
    """1 + 1/3 + 1 and 1 + 1 + 1/3 are not the same floating-point number; such clips do not count as different."""
    base, x = np.array([[0] * 10, [2] * 10, [0] * 9 + [1]]), np.array([[0] * 10, [0] * 10, [2] * 10])
    scores = study_scores(study_of({"base": base, "x": x}), "base", num_resamples=99)
    assert difference(scores, "map_at_3")["p_bootstrap"] == 1  # one clip differs


# How often true nulls are rejected, and how often intervals hold the truth.


def simulated_study(rng, num_variants, num_clips):
    """Exchangeable variants: clips differ in difficulty, variants only in their luck."""
    ease = rng.normal(1.0, 1.5, num_clips)
    logits = rng.normal(size=(num_variants, 1, num_clips, NUM_CLASSES)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, num_clips)
    logits[..., np.arange(num_clips), labels] += ease
    clips = Clips(np.arange(num_clips).astype(str), labels, np.ones(num_clips, bool), np.zeros(num_clips, int))
    return Results(
        tuple("abcde"), clips, None, tuple(VariantLogits(f"v{k}", (0,), each, None) for k, each in enumerate(logits))
    )


def test_true_nulls_are_rejected_at_most_at_the_nominal_rate():
    """Single tests near 0.05 (McNemar's is exact, so below it), and any of three after Holm at most 0.05."""
    rng = np.random.default_rng(0)
    trials, single, family = 400, {"p_bootstrap": [], "p_mcnemar": []}, {"p_bootstrap": [], "p_mcnemar": []}
    for trial in range(trials):
        results = simulated_study(rng, 4, 120)
        scores = study_scores(results, "v0", num_resamples=199, seed=trial)
        for key in single:
            found = [each for each in scores["differences"] if each[key] is not None]
            by_score = {score: [each for each in found if each["score"] == score] for score in ("accuracy", "map_at_3")}
            single[key] += [[each[0][key] <= 0.05 for each in by_score.values() if each]]
            family[key] += [[min(e[f"{key}_holm"] for e in each) <= 0.05 for each in by_score.values() if each]]
    most = scipy.stats.binom.ppf(0.999, trials, 0.05) / trials
    for rates in (
        *(np.mean(each, axis=0) for each in single.values()),
        *(np.mean(each, axis=0) for each in family.values()),
    ):
        assert (rates <= most).all(), rates
    assert (np.mean(single["p_bootstrap"], axis=0) > 0.02).all()  # nor is the test blind
    assert (np.mean(single["p_mcnemar"], axis=0) > 0.01).all()


def test_intervals_hold_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    choices, shares = np.array([0, 1 / 3, 1 / 2, 1]), np.array([0.15, 0.1, 0.25, 0.5])
    held = []
    for trial in range(400):
        scored = rng.choice(choices, (100, 2), p=shares)
        found = bootstrap_means(scored, 0.0, num_resamples=299, seed=trial)
        paired = bootstrap_means(scored[:, :1] - scored[:, 1:], -1.0, num_resamples=299, seed=trial)
        held.append([found.low[0] <= choices @ shares <= found.high[0], paired.low[0] <= 0 <= paired.high[0]])
    low, high = scipy.stats.binom.ppf([0.0005, 0.9995], 400, 0.94) / 400  # 100 clips: a little below nominal
    assert (np.mean(held, axis=0) >= low).all() and (np.mean(held, axis=0) <= high).all(), np.mean(held, axis=0)


# Seeds, folds, parts.


def test_seeds():
    base = [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]
    x = [[0, 0, 0, 0], [1, 1, 0, 0]]
    results = study_of({"base": base, "x": x}, seeds={"base": (0, 1, 5), "x": (1, 2)})
    scores = study_scores(results, "base", num_resamples=100)
    found = row(scores, "base")
    assert found["by_seed"]["accuracy"] == [0.5, 0.25, 0.75] and found["seeds"] == [0, 1, 5]
    assert found["spread_over_seeds"]["accuracy"] == pytest.approx(0.25)
    assert found["scores"]["accuracy"]["value"] == pytest.approx(0.5)
    np.testing.assert_allclose(found["by_fold"]["accuracy"], [(3 + 1) / 6, (2 + 0) / 6])  # clips 0, 2 and 1, 3
    together = row(scores, "base, seeds averaged")
    assert together["by_seed"] is None and together["spread_over_seeds"]["accuracy"] is None
    paired = difference(scores, "accuracy")
    assert paired["value"] == pytest.approx(0.75 - 0.5)
    assert paired["discordant"] == [3, 0]  # seed 1 of both: the baseline's second, the variant's first


def test_without_a_common_seed_there_is_no_mcnemar():
    ranks = {"base": [[0, 1] * 10], "x": [[1, 0] * 10], "y": [[0, 0] * 10]}
    scores = study_scores(study_of(ranks, seeds={"base": (0,), "x": (1,), "y": (0,)}), "base", num_resamples=100)
    x, y = (difference(scores, "accuracy", name) for name in "xy")
    assert (x["p_mcnemar"], x["p_mcnemar_holm"], x["discordant"]) == (None, None, None)
    assert y["p_mcnemar_holm"] == y["p_mcnemar"] == pytest.approx(2 / 2**10)  # a family of one
    assert x["p_bootstrap"] is not None and y["p_bootstrap_holm"] == pytest.approx(min(1, 2 * y["p_bootstrap"]))


def test_verified_clips_apart_unless_all_are():
    ranks = {"base": [[0, 1, 2, 3]], "x": [[0, 0, 0, 0]]}
    scores = study_scores(study_of(ranks, verified=[True, False, True, False]), "base", num_resamples=50)
    assert row(scores, "base", clips="verified")["scores"]["accuracy"]["value"] == 0.5
    assert row(scores, "base", clips="verified")["by_fold"]["accuracy"] == [0.5, None]  # fold 1 has none of them
    assert row(scores, "base", clips="verified")["num_clips"] == 2
    assert difference(scores, "accuracy", clips="verified")["discordant"] == [1, 0]
    for verified in ([True] * 4, [False] * 4):
        scores = study_scores(study_of(ranks, verified=verified), "base", num_resamples=50)
        assert {each["clips"] for each in scores["rows"] + scores["differences"]} == {"all"}


def test_test_clips_as_public_private_and_all():
    labels = np.array([0, 1, -1, 2, 3])  # the third is not scored
    test = {"base": [[[0, 1, 0, 3, 1], [0, 0, 0, 3, 1], [0, 0, 0, 3, 1]]], "x": [[[0, 0, 0, 0, 1]] * 3]}
    usage = {"t0": "Public", "t1": "Private", "t2": "Ignored", "t3": "Private"}  # t4 is not named
    held_out = {"base": [[0, 0]], "x": [[0, 0]]}
    scores = study_scores(study_of(held_out, test=test, test_labels=labels), "base", usage, num_resamples=50)
    sizes = {each["part"]: each["num_clips"] for each in scores["rows"]}
    assert sizes == {"held out": 2, "test": 4, "public": 1, "private": 2}
    found = row(scores, "base", "test")
    assert found["scores"]["accuracy"]["value"] == pytest.approx((2 + 3) / 12)  # three networks, four clips
    assert found["by_fold"] is None and found["by_seed"]["accuracy"] == [pytest.approx(5 / 12)]
    assert row(scores, "base, folds averaged", "test")["kind"] == "folds"
    # The baseline is right on clip t1 in two folds of three and in their average, so only t3 is left.
    assert difference(scores, "accuracy", part="test")["discordant"] == [1, 0]
    assert difference(scores, "top3_error", part="private")["discordant"] == [1, 0]
    unscored = study_scores(study_of(held_out, test=test, test_labels=labels * 0 - 1), "base", num_resamples=50)
    assert {each["part"] for each in unscored["rows"]} == {"held out"}
    only_test = study_scores(study_of(held_out, test=test, test_labels=labels), "base", num_resamples=50)
    assert {each["part"] for each in only_test["rows"]} == {"held out", "test"}


def test_same_input_same_figures():
    rng = np.random.default_rng(0)
    results = study_of({name: rng.integers(0, 5, (2, 60)) for name in ("base", "x", "hires_q1", "hires_q2")})
    first, second = (study_scores(results, "base", num_resamples=300) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    other = study_scores(results, "base", num_resamples=300, seed=1)
    assert difference(other, "accuracy", "x") != difference(first, "accuracy", "x")
    assert (first["baseline"], first["classes"], first["num_resamples"]) == ("base", list("abcde"), 300)


def test_a_variant_by_itself_has_no_differences():
    scores = study_scores(study_of({"base": [[0, 1, 2]]}), "base", num_resamples=50)
    assert scores["differences"] == [] and [each["name"] for each in scores["rows"]] == ["base"]


def test_an_unknown_baseline_is_an_error():
    with pytest.raises(UserError, match=r"baseline 'log'; there are: base, x"):
        study_scores(study_of({"base": [[0, 1]], "x": [[0, 1]]}), "log")
