"""The study's report: the protocol's rules on constructed figures, and a committed page from committed predictions."""

from pathlib import Path

import pytest

from audiotag_jax.study import across_report
from audiotag_jax.study.across import CONTRAST, across
from benchmarks import study_report

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "benchmarks" / "study"


def test_a_committed_page_is_what_the_committed_predictions_give():
    saved = study_report.read(STUDY / "finetuned")
    found = across(saved, baseline=study_report.BASELINE, margin=study_report.MARGIN, pooled=list(saved))
    about = {name: each.about for name, each in saved.items()}
    page = (STUDY / "finetuned" / "across.md").read_text(encoding="utf-8")
    assert page == across_report.report(found, about, plot="across.svg")
    accuracy = found["datasets"]["esc50"]["variants"]["hires_q8"]["value"]
    labels = saved["esc50"].results.held_out.labels
    [logits] = next(v for v in saved["esc50"].results.variants if v.variant == "hires_q8").held_out
    assert accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean())


def figures(pooled=None, small=None, slope=-0.1, p=0.5, equivalent=()):
    """`found` of probes whose high-resolution variants differ by `pooled`, significantly, or not at all."""
    pooled, small = pooled or {}, small or {}
    rows = []
    for name in (*study_report.HIGH, study_report.CONTROL):
        value = pooled.get(name, 0.0)
        p_equivalence = 0.01 if name in equivalent else 1.0
        fixed = {"value": value, "p_holm": 0.01 if value else 1.0, "p_equivalence_holm": p_equivalence}
        rows.append({"variant": name, "fixed": fixed, "detectable": (0.02, 0.03)})
    contrast = {"contrast": CONTRAST, "slope": slope, "p": p, "num_classes": 9}
    own = [{"variant": name, "value": value, "p_bootstrap_holm": 0.2} for name, value in small.items()]
    return {
        "probes": {"pooled": rows, "datasets": {"a": {}, "b": {}}, "interactions": [contrast]},
        "small": {"datasets": {study_report.CONFIRMING: {"differences": own}}},
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (figures({"hires_q2": 0.03}, {"hires_q2": 0.01}), "High resolution helps: hires_q2 (+0.030)"),
        (figures({"hires_q2": 0.03}, {"hires_q2": -0.01}), "not confirmed: hires_q2"),
        (figures({"hires_q4": 0.03}), "not confirmed: hires_q4"),
        (figures({"hires_q2": 0.03, study_report.CONTROL: 0.03}, {"hires_q2": 0.01}), "not confirmed"),
        (figures({"hires_q1": -0.03}), "High resolution hurts probes: hires_q1 (−0.030)"),
        (figures(equivalent=study_report.HIRES), "It does not matter"),
        (figures(equivalent=study_report.HIRES[:3]), "Open"),
        (figures(), "Open"),
    ],
)
def test_the_summary_follows_the_rules_of_the_protocol(found, expected):
    assert expected in study_report.summary(found)[0]


@pytest.mark.parametrize(
    ("slope", "p", "expected"),
    [
        (-0.1, 0.01, "The best q depends on"),
        (-0.1, 0.5, "is not shown to depend"),
        (0.1, 0.01, "the expectation is refuted"),
    ],
)
def test_the_kind_of_sound_is_named_by_its_test(slope, p, expected):
    text = " ".join(study_report.summary(figures(slope=slope, p=p)))
    assert expected in text
    assert ("refuted" in text) == (slope > 0)


def test_the_readme_quotes_the_committed_pages():
    quoted = [
        line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "(−" in line and "|" in line
    ]
    pages = [(STUDY / family / "across.md").read_text(encoding="utf-8") for family in ("probes", "small")]
    assert len(quoted) == 4
    for line in quoted:
        variant, *cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        for cell, page in zip(cells, (*pages[:1] * 3, *pages[1:] * 2), strict=True):
            assert f"| {variant} | {cell} |" in page
