"""One more entry in METRICS is one more score in every place that shows scores."""

import types

import numpy as np
import pytest
import test_html
import test_markdown

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.intervals import score_table
from audiotag_jax.study.markdown import report
from audiotag_jax.study.statistics import study_scores
from audiotag_jax.study.verdict import verdict
from audiotag_jax.training import loop
from audiotag_jax.training.evaluate import format_summary

RANK = metrics.Metric(
    name="reciprocal_rank",
    label="Reciprocal rank",
    values=lambda ranks: 1.0 / (ranks + 1),
    guessing=lambda num_classes: float(np.mean(1 / np.arange(1, num_classes + 1))),
)


@pytest.fixture(autouse=True)
def one_more(monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, RANK))


def test_in_the_summary_and_on_the_terminal():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(30, 5)), rng.integers(0, 5, 30)
    ids, alone = np.arange(30).astype(str), np.full(30, "")
    arrays = {"logits": logits, "labels": labels, "verified": np.ones(30, bool)}
    table = score_table({"ids": ids, "recordings": alone} | arrays)
    expected = np.mean(1.0 / (metrics.label_ranks(logits, labels) + 1))
    assert table["reciprocal_rank"]["value"] == pytest.approx(expected)
    parts = {"validation": {"all": table, "verified": table}, "folds": [{"fold": 0, "all": table}]}
    text = format_summary({"name": "log_db", "num_classes": 5, "steps": 7, "missing_folds": []} | parts)
    assert "reciprocal_rank (95 % interval)" in text and text.count(f"{expected:.3f} (") == 2


def test_in_validation(monkeypatch):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(30, 5)), rng.integers(0, 5, 30)
    clips = np.arange(20)
    monkeypatch.setattr(loop, "predict_logits", lambda *_: logits[clips])
    experiment = types.SimpleNamespace(
        validation_clips=lambda fold: clips, examples=types.SimpleNamespace(labels=labels)
    )
    found, scores = loop.validate(experiment, 0, None)
    assert found is not logits and (found == logits[:20]).all()
    assert list(scores) == ["loss", "top3_error", "accuracy", "map_at_3", "reciprocal_rank"]
    assert scores["reciprocal_rank"] == pytest.approx(
        np.mean(1.0 / (metrics.label_ranks(logits[:20], labels[:20]) + 1))
    )


def test_in_the_report_and_its_page():
    scores = test_markdown.scores_of(base=test_markdown.BASE, x=test_markdown.MUCH_BETTER)
    assert {row["name"] for row in scores["rows"] if "reciprocal_rank" in row["scores"]} >= {"base", "x"}
    assert [each["variant"] for each in scores["differences"] if each["score"] == "reciprocal_rank"] == ["x"]
    text = report(scores, [])
    assert "| variant | top-3 error | accuracy | MAP@3 | reciprocal rank |" in text
    assert "Reciprocal rank, better above 0:" in text
    assert any(each.startswith("Reciprocal rank is highest for x") for _, part in verdict(scores) for each in part)
    guessing = f"a reciprocal rank of {np.mean(1 / np.arange(1, 6)):.3f}"
    assert any(guessing in each for _, part in verdict(scores) for each in part)
    given = test_html.results()
    page = test_html.page(given, study_scores(given, "log_db", num_resamples=50))
    assert "Reciprocal rank" in page and "difference in reciprocal rank to log_db" in page
