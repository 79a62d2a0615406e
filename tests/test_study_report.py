"""The study's report: the protocol's rules on constructed figures, and a committed page from committed predictions."""

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from audiotag_jax.settings.settings import flatten, parse_settings
from audiotag_jax.settings.variants import get_config, list_variants
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


def test_the_commands_that_repeat_the_study_are_understood(tmp_path):
    """All parts, with programs in place of python and cp that write down how they were called."""
    calls = tmp_path / "calls"
    for name, what in (("python", f'printf "%s\\0" "$@" >> {calls}; printf "\\0" >> {calls}'), ("cp", ":")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{what}\n")
        (tmp_path / name).chmod(0o755)
    script = ROOT / "benchmarks" / "repeat_study.sh"
    parts = re.search(r"any of: (.*)\. Every part", script.read_text()).group(1).split()
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path / "out")}
    subprocess.run(["bash", script, *parts], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    listed = tomllib.loads((STUDY / "datasets.toml").read_text()).keys()
    commands = [call.split("\0") for call in calls.read_text().split("\0\0") if call]
    assert sum(command[0] == "main.py" for command in commands) >= 15
    for file, *arguments in commands:
        options = [each.split("=", 1) for each in arguments if each.startswith("--")]
        if file != "main.py":
            text = (ROOT / file).read_text()
            assert all(f'"{name}"' in text for name, _ in options)
            continue
        variant, _, preset = dict(options)["--config"].removeprefix("configs/").partition(".py:")
        config = get_config(variant, preset)
        fields = flatten(config.to_dict())
        for name, value in options:
            if field := name.removeprefix("--config.") * name.startswith("--config."):
                given = value if isinstance(fields[field], str) else ast.literal_eval(value)
                config.update_from_flattened_dict({field: given})
        parse_settings(config.to_dict())
        for name in ast.literal_eval(dict(options).get("--config.study.variants", "()")):
            assert name in list_variants()
        assert set(dict(options)["--config.study.datasets"].partition(":")[2].split(",")) <= listed
    assert subprocess.run(["bash", script, "nothing"], cwd=ROOT, capture_output=True, check=False).returncode == 2
