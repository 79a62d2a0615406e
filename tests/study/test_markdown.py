"""The words fit the figures in every case, and user strings stay text."""

import copy
import re

import numpy as np
import pytest
import scipy.stats

from audiotag_jax.study.markdown import report
from audiotag_jax.study.naming import p_text
from audiotag_jax.study.results import Clips, Results, VariantLogits
from audiotag_jax.study.statistics import study_scores
from audiotag_jax.study.verdict import headline, is_real, verdict

N, NUM_CLASSES = 200, 5
RNG = np.random.default_rng(0)
BASE = np.where(np.arange(N) % 4, 0, 1)  # accuracy 0.75, top-3 error 0
MUCH_BETTER, MUCH_WORSE = np.zeros(N, int), np.where(np.arange(N) % 2, 0, 3)
A_LITTLE_BETTER = np.where(np.arange(N) < 8, 0, BASE)  # two clips
SOMEWHAT_BETTER = np.where(np.arange(N) < 28, 0, BASE)  # seven clips: p 1/64 by McNemar's test


def scores_of(seeds=None, test=None, **ranks):
    """`study_scores` of variants whose labels have the given places [n] or [S, n]; the first is the baseline."""
    labels = np.arange(N) % NUM_CLASSES
    ids = np.array([f"{k:04d}" for k in range(N)])
    clips = Clips(ids, labels, np.ones(N, bool), np.arange(N) % 5)
    variants = []
    for name, each in ranks.items():
        each = np.atleast_2d(each)
        places = (labels[:, None] - np.arange(NUM_CLASSES)) % NUM_CLASSES  # 0 for the label
        logits = np.where(places == 0, -each[..., None] - 0.5, -places).astype(np.float32)
        chosen = (seeds or {}).get(name, tuple(range(len(each))))
        variants.append(VariantLogits(name, chosen, logits, logits[:, None].repeat(2, 1) if test else None))
    results = Results(tuple("abcde"), clips, clips if test else None, tuple(variants))
    return study_scores(results, next(iter(ranks)), {ids[0]: "Public", ids[1]: "Private"}, num_resamples=999)


def paragraph(scores, score, heading=f"Held-out clips, all {N}"):
    (text,) = (each for each in dict(verdict(scores))[heading] if each.startswith(score))
    return text


def caveats(scores):
    return " ".join(dict(verdict(scores))["Limits"])


def test_the_cases_are_what_they_are_called():
    scores = scores_of(base=BASE, x=MUCH_WORSE, y=A_LITTLE_BETTER)
    values = {row["name"]: row["scores"]["accuracy"]["value"] for row in scores["rows"] if row["kind"] == "single"}
    assert values == {"base": 0.75, "x": 0.5, "y": 0.76}


def test_no_real_difference():
    text = paragraph(scores_of(base=BASE, x=A_LITTLE_BETTER, y=A_LITTLE_BETTER), "Accuracy")
    assert text.startswith("Accuracy is highest for x and y (0.760). None of the 2 other variants could be ")
    assert (
        "distinguished from base (0.750)" in text
        and "Not distinguished does not mean equal: a true difference of" in text
    )
    assert "Better" not in text and "Worse" not in text and "Before the correction" not in text


def test_one_real_difference():
    text = paragraph(scores_of(base=BASE, x=A_LITTLE_BETTER, y=MUCH_BETTER), "Accuracy")
    assert "1 of the 2 other variants could be distinguished from base (0.750). Better: y by 0.250 (0.1" in text
    assert "p = 0.002). Not distinguished does not mean equal" in text and "Worse" not in text and "x by" not in text


def test_all_real_one_better_one_worse():
    text = paragraph(scores_of(base=BASE, x=MUCH_WORSE, y=MUCH_BETTER), "Accuracy")
    assert "All 2 other variants could be distinguished" in text
    assert re.search(r"Better: y by 0\.250 \([^)]*\)\. Worse: x by 0\.250 \([^)]*\)\. A true difference of", text)
    assert "Not distinguished" not in text


def test_a_higher_error_is_worse():
    text = paragraph(scores_of(base=BASE, x=MUCH_WORSE), "Top-3 error")
    assert "lowest for base (0.000). x could be distinguished from base (0.000). Worse: x by 0.500 (0.4" in text
    text = paragraph(scores_of(base=MUCH_WORSE, x=BASE), "Top-3 error")
    assert "Better: x by 0.500 (0.4" in text and "Worse" not in text


def test_equal_scores_are_not_ranked():
    text = paragraph(scores_of(base=BASE, x=A_LITTLE_BETTER, y=MUCH_BETTER), "Top-3 error")
    assert text.startswith("Top-3 error is 0.000 for every variant. None of the 2")
    assert "a true difference of 0.022 is found" in text  # from Wilson's limit for 0 of 200, not 0


def test_a_report_begins_with_a_score_that_some_variant_misses():
    first = headline(scores_of(base=BASE, x=MUCH_BETTER))  # the top-3 error is 0 for both
    assert "Accuracy is highest for x (1.000)" in first and "Top-3" not in first
    assert "Top-3 error is lowest for base (0.000)" in headline(scores_of(base=BASE, x=MUCH_WORSE))
    assert "Top-3 error is 0.000 for every variant" in headline(scores_of(base=MUCH_BETTER, x=MUCH_BETTER))


def test_two_variants():
    text = paragraph(scores_of(base=BASE, x=A_LITTLE_BETTER), "Accuracy")
    assert "x could not be distinguished from base (0.750)." in text and "correction" not in text


def test_the_difference_found_half_of_the_time_accounts_for_the_correction():
    scores = scores_of(base=BASE, x=A_LITTLE_BETTER, y=np.roll(BASE, 1))
    errors = [each["standard_error"] for each in scores["differences"] if each["score"] == "accuracy"]
    half, most = ([scipy.stats.norm.ppf([1 - 0.05 / 4, power]).sum() * each for each in errors] for power in (0.5, 0.8))
    text = paragraph(scores, "Accuracy")
    assert f"a true difference of {min(half):.3f} to {max(half):.3f} is found in half of such studies after the" in text
    assert f"correction for 2 comparisons, one of {min(most):.3f} to {max(most):.3f} in four of five." in text


def test_only_the_correction_keeps_it_from_being_real():
    assert "could be distinguished" in paragraph(scores_of(base=BASE, x=SOMEWHAT_BETTER), "Accuracy")
    others = {f"z{k}": A_LITTLE_BETTER for k in range(5)}
    text = paragraph(scores_of(base=BASE, x=SOMEWHAT_BETTER, **others), "Accuracy")
    assert "None of the 6 other variants" in text
    assert "Before the correction x (better, p = 0.016) would have been distinguished, but so would about one" in text


def test_tests_that_disagree_are_named_and_not_counted():
    scores = scores_of(base=BASE, x=MUCH_BETTER)
    for found in scores["differences"]:
        if found["score"] == "accuracy":
            found["p_mcnemar_holm"] = 0.07
            assert not is_real(found)
    text = paragraph(scores, "Accuracy")
    assert "x could not be distinguished from base" in text
    assert "disagree on x (bootstrap p = 0.001, McNemar's p = 0.070), which therefore does not count" in text
    assert "Better" not in text and "Before the correction" not in text


def test_a_first_seed_that_points_the_other_way_is_no_support():
    worse, better = np.where(np.arange(N) < 40, 1, BASE), MUCH_BETTER
    scores = scores_of(base=np.stack([BASE] * 4), x=np.stack([worse, better, better, better]))
    found = next(each for each in scores["differences"] if each["score"] == "accuracy")
    assert found["value"] > 0 and max(found["p_bootstrap_holm"], found["p_mcnemar_holm"]) < 0.05
    assert found["discordant"][0] < found["discordant"][1] and not is_real(found)
    text = paragraph(scores, "Accuracy")
    assert "Both tests reject for x, but in opposite directions: with the first common seed" in text
    assert f"{found['discordant'][0]} clips are right only with it and {found['discordant'][1]} only with base" in text
    assert "disagree" not in text and "x could not be distinguished from base" in text


def test_single_variant():
    scores = scores_of(base=BASE)
    assert verdict(scores)[0] == (
        "One variant",
        ["There is nothing to compare with: these are the predictions of base alone."],
    )
    text = caveats(scores)
    assert text.startswith("One seed was used for base: how far another would move the scores was not measured.")
    assert "tests resample" not in text and "correction" not in text and "Averages" not in text
    assert "difference" not in report(scores, []).lower()


def test_a_score_that_no_network_can_miss_is_named():
    scores = scores_of(base=BASE, x=MUCH_BETTER)
    assert "for any network" not in caveats(scores)
    text = caveats(scores | {"classes": ["a", "b", "c"]})
    assert (
        "With 3 classes top-3 error is 0 for any network. Guessing among 3 classes gives an accuracy of 0.333" in text
    )
    assert "Guessing" not in caveats(scores | {"classes": ["a"]})


def test_what_guessing_gives_is_what_random_answers_score():
    text = caveats(scores_of(base=BASE, x=MUCH_BETTER) | {"classes": [str(n) for n in range(10)]})
    told = [float(number) for number in re.findall(r"0\.\d{3}", text.partition("Guessing among 10 classes")[2])[:3]]
    ranks = np.random.default_rng(0).integers(0, 10, 100_000)
    seen = [np.mean(ranks >= 3), np.mean(ranks == 0), np.mean(np.where(ranks < 3, 1 / (ranks + 1), 0))]
    np.testing.assert_allclose(told, seen, atol=0.005)


def test_one_seed_is_said():
    text = caveats(scores_of(base=BASE, x=A_LITTLE_BETTER))
    assert text.startswith("One seed was used for every variant: how far another would move the scores was not")
    assert "one between these trained networks, and need not be one between the variants" in text


def test_several_seeds():
    flipped = np.where(np.arange(N) < 8, 1, BASE)  # two to six clips worse
    x = np.stack([MUCH_BETTER, MUCH_BETTER, flipped])
    scores = scores_of(base=np.stack([BASE, BASE, BASE]), x=x, y=A_LITTLE_BETTER)
    assert "Better: x by 0.1" in paragraph(scores, "Accuracy")
    assert "; so with 2 of 3 seeds)" in paragraph(scores, "Accuracy")
    spread = np.std([1, 1, np.mean(flipped == 0)], ddof=1)
    text = caveats(scores)
    assert f"standard deviation of the accuracy over seeds, each by itself, is at most {spread:.3f} (x)." in text
    assert "One seed was used for y: how" in text
    table = report(scores, [])
    assert "| seeds | standard deviation over seeds of these scores |" in table and "| 0, 1, 2 |" in table
    assert "| x, seeds averaged |" in table


def test_what_is_resampled_is_said():
    scores = scores_of(base=BASE, x=MUCH_BETTER)
    assert "bootstrap over clips (" in report(scores, []) and "resampled one by one" in caveats(scores)
    for row in scores["rows"]:
        row["num_recordings"] = N - 7
    assert "bootstrap over recordings (" in report(scores, [])
    assert f"The {N} clips were cut from {N - 7} recordings, and the bootstrap draws" in caveats(scores)


def test_test_clips_get_their_own_words_and_tables():
    scores = scores_of(base=BASE, x=MUCH_WORSE, test=True)
    assert [heading for heading, _ in verdict(scores)] == [
        f"Held-out clips, all {N}",
        f"Test clips, all {N}",
        "Limits",
    ]
    text = report(scores, [])
    for block in ("all 200", "the 1 Public ones", "the 1 Private ones"):
        assert f"### Test clips, {block}\n\n| variant | top-3 error" in text
        assert f"### Test clips, {block}: differences\n" in text
    assert "| base, folds averaged |" in text


def test_tables_hold_the_figures():
    scores = scores_of(base=BASE, x=MUCH_WORSE)
    text = report(scores, [("data", "400 clips")], {"Forest plot": "plots/forest plot.svg"})
    assert "| what | how |\n| --- | --- |\n| data | 400 clips |" in text
    found = next(d for d in scores["differences"] if d["score"] == "accuracy")
    limits = f"−0.250 (−{-found['low']:.3f} to −{-found['high']:.3f})"
    p = f"{p_text(found['p_bootstrap'])} | {p_text(found['p_bootstrap'])} | {p_text(found['p_mcnemar'])}"
    assert f"| x | {limits} | {p} | " in text and "| 50 : 100 | yes |" not in text and "| 0 : 50 | yes |" in text
    interval = scores["rows"][0]["scores"]["accuracy"]
    assert f"| base | 0.000 (0.000 to 0.019) | 0.750 ({interval['low']:.3f} to {interval['high']:.3f}) |" in text
    assert "0.75 0.75 0.75 0.75 0.75 | 0 |" in text
    assert "![Forest plot](plots/forest%20plot.svg)" in text
    assert all(line.count("|") in (0, 3, 7, 9) for line in text.splitlines())


def test_verified_clips_are_explained_where_they_stand_apart():
    scores = scores_of(base=BASE, x=A_LITTLE_BETTER)
    assert "verified" not in report(scores, []).lower()
    for key in ("rows", "differences"):
        scores[key] += [each | {"clips": "verified"} for each in scores[key]]
    text = report(scores, [])
    assert f"### Held-out clips, the {N} verified ones\n\n| variant" in text and "checked by hand" in text
    assert f"Held-out clips, the {N} verified ones" in dict(verdict(scores))


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "< 0.001"), (0.0496, "< 0.05"), (0.05, "0.050"), (0.0504, "0.050"), (1.0, "1.000")]
)
def test_p_values(p, text):
    assert p_text(p) == text


NASTY = (
    "a|b",
    "<script>alert(1)</script>",
    "*x* _y_ `z`",
    "[a](http://b)",
    "line\nbreak",
    "a_b & c\\",
    "$x$ ~~y~~",
    "# 1. - x #",
)


@pytest.mark.parametrize("name", NASTY)
def test_user_strings_stay_text(name):
    markdown_it = pytest.importorskip("markdown_it")
    scores = scores_of(base=BASE, **{"placeholder": A_LITTLE_BETTER})
    scores = copy.deepcopy(scores)
    for each in scores["rows"]:
        each["name"] = name if each["name"] == "placeholder" else each["name"]
    for each in scores["differences"]:
        each["variant"] = name
    plain = " ".join(name.split())
    text = report(scores, [(name, name)], {name: "plots/a b.svg"})
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    kinds, cells = set(), []
    for token in parser.parse(text):
        kinds.add(token.type)
        for child in token.children or []:
            kinds.add(child.type)
        if token.type == "inline":
            cells.append("".join(child.content for child in token.children))
    assert cells.count(plain) >= 2 + 1 + 1 + 3  # about, scores, heading and image, differences
    assert not kinds & {"html_block", "html_inline", "link_open", "code_inline", "s_open", "strong_open"}
    assert any(plain in cell and "could not be distinguished from base" in cell for cell in cells)
