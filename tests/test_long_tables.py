"""The benchmark of long tables makes runs that the reports take, with one label a clip or several."""

import argparse

import pytest

from benchmarks import long_tables


@pytest.mark.parametrize("several", [False, True])
def test_a_study_of_synthetic_runs_has_a_page(tmp_path, several):
    sizes = {"clips": 60, "classes": 5, "variants": 2, "seeds": 2, "folds": 3}
    long_tables.write_runs(argparse.Namespace(out=tmp_path, several=several, **sizes))
    assert len(list(tmp_path.glob("runs/*/fold_*/predictions.npz"))) == 2 * 2 * 3
    found = long_tables.measure("study", tmp_path)
    assert 0 < found["page_mb"] < 1 and found["peak_gib"] > 0
    text = (tmp_path / "study/report.html").read_text()
    assert "class 003, of a name" in text and ("lwlrap" in text) == several
