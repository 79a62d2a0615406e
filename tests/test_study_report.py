"""The study's report: the protocol's rules on constructed figures, and a committed page from committed predictions."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from audiotag_jax.settings.settings import flatten, parse_settings
from audiotag_jax.settings.variants import get_config, list_variants
from audiotag_jax.study.across import CONTRAST
from benchmarks import study_report, study_sections, study_summary

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "benchmarks" / "study"


def test_the_committed_pages_are_what_the_committed_predictions_give(tmp_path, monkeypatch):
    shutil.copytree(STUDY, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.md"))
    monkeypatch.setattr(sys, "argv", ["study_report.py", f"--study={tmp_path}"])
    study_report.main()
    for name in ("report.md", *(f"{family}/across.md" for family in study_report.FAMILIES)):
        assert (tmp_path / name).read_text(encoding="utf-8") == (STUDY / name).read_text(encoding="utf-8"), name
    saved = study_report.read(STUDY / "finetuned")["esc50"]
    [logits] = saved.results["hires_q8"].held_out
    accuracy = (logits.argmax(axis=1) == saved.results.held_out.labels).mean()
    rows = (STUDY / "finetuned" / "across.md").read_text(encoding="utf-8").splitlines()
    row = next(line for line in rows if line.startswith("| hires_q8 |"))
    assert f"| {accuracy:.3f} (" in row


def figures(pooled=None, small=None, slope=-0.1, p=0.5, equivalent=(), left_out=()):
    """`found` of probes whose high-resolution variants differ by `pooled`, significantly, or not at all."""
    pooled, small = pooled or {}, small or {}
    rows, within = [], []
    for name in (*study_sections.HIGH, study_summary.CONTROL):
        value = pooled.get(name, 0.0)
        p_equivalence = 0.01 if name in equivalent else 1.0
        fixed = {"value": value, "p_holm": 0.01 if value else 1.0, "p_equivalence_holm": p_equivalence}
        rows.append({"variant": name, "fixed": fixed, "detectable": (0.02, 0.03), "datasets": ["a", "b"]})
        rows[-1] |= {"random": {"value": value, "p_holm": 1.0}, "tau2": 0.01, "i2": 0.5}
        within.append({"variant": name, "value": value, "p_bootstrap_holm": 0.01 if value > 0.02 else 1.0})
    contrast = {"contrast": CONTRAST, "slope": slope, "p": p, "num_classes": 9}
    own = [{"variant": name, "value": value, "p_bootstrap_holm": 0.2} for name, value in small.items()]
    accuracies = {name: {"value": 0.6} for name in study_sections.HIGH}
    datasets = {name: {"differences": within, "variants": accuracies} for name in ("a", "b")}
    return {
        "probes": {"pooled": rows, "datasets": datasets, "interactions": [contrast], "left_out": left_out},
        "small": {"datasets": {study_summary.CONFIRMING: {"differences": own}}},
    }


def shorter(value, p):
    """Of shorter windows on data set a: one that differs by `value` from a baseline of 0.65."""
    name = "mel_db, window-512"
    differences = [{"variant": name, "value": value, "p_bootstrap_holm": p}]
    return {"a": {"variants": {name: {"value": 0.65 + value}}, "differences": differences}}


@pytest.mark.parametrize(
    ("found", "windows", "expected"),
    [
        (figures({"hires_q2": 0.03}, {"hires_q2": 0.01}), {}, "High resolution helps: hires_q2 (+0.030; significant"),
        (
            figures({"hires_q2": 0.03}, {"hires_q2": -0.01}),
            {},
            "but not confirmed by the small network on esc50: hires_q2",
        ),
        (figures({"hires_q4": 0.03}), {}, "not confirmed by the small network"),
        (
            figures({"hires_q2": 0.03, "hires_q4": 0.03}, {"hires_q2": 0.01}),
            {},
            "helps: hires_q2 (+0.030; significant within a, b), on",
        ),
        (
            figures({"hires_q2": 0.03, study_summary.CONTROL: 0.03}, {"hires_q2": 0.01}),
            {},
            "but so is mix_linear_mel_log",
        ),
        (figures({"hires_q2": 0.03}, {"hires_q2": 0.01}), shorter(0.02, 0.01), "but so is mel_db, window-512 on a"),
        (figures({"hires_q2": 0.03}, {"hires_q2": 0.01}), shorter(0.02, 0.5), "High resolution helps"),
        (
            figures({"hires_q1": -0.03}),
            {},
            "High resolution hurts probes: hires_q1 (−0.030; significant within none of them)",
        ),
        (figures({"hires_q1": -0.03}, equivalent=("hires_q1",)), {}, "Equivalent to log_db within 0.01: hires_q1"),
        (figures(equivalent=study_sections.HIRES), {}, "It does not matter"),
        (figures(equivalent=study_sections.HIRES[:3]), {}, "Equivalent to log_db within 0.01: hires_q1 (0.000"),
        (figures(), {}, "Open"),
    ],
)
def test_the_summary_follows_the_rules_of_the_protocol(found, windows, expected):
    assert expected in study_summary.summary(found, windows)[0]


def test_the_summary_names_what_exceeds_and_what_is_left_out():
    text = study_summary.summary(figures(left_out=["notes"]), shorter(-0.02, 0.5))
    assert (
        text[1]
        == "With shorter windows, `mel_db, window-512` exceed the best high-resolution variant, hires_q1 (0.600), on a."
    )
    assert text[-1] == "Not finished, and left out of what is pooled: notes."
    assert not any("shorter" in line for line in study_summary.summary(figures(), shorter(-0.06, 0.5)))


def test_the_summary_has_the_fine_tuned_variant_of_the_rule_alone():
    differences = [
        {"variant": "hires_q8", "value": -0.076, "p_bootstrap_holm": 0.001},
        {"variant": "mix_q1_q4_q8", "value": 0.002, "p_bootstrap_holm": 1.0},
    ]
    tuned = {"finetuned": {"datasets": {"drums": {"differences": differences}}}}
    text = study_summary.summary(figures() | tuned, {}, "hires_q8")
    assert "Fine-tuned on drums: hires_q8 (−0.076); distinguished from log_db: hires_q8." in text
    assert "Fine-tuned on drums: mix_q1_q4_q8 (+0.002); distinguished from log_db: none." in study_summary.summary(
        figures() | tuned, {}, "mix_q1_q4_q8"
    )
    assert not any("Fine-tuned" in line for line in study_summary.summary(figures() | tuned, {}))


@pytest.mark.parametrize(
    ("slope", "p", "expected"),
    [
        (-0.1, 0.01, "The best q depends on"),
        (-0.1, 0.5, "is not shown to depend"),
        (0.1, 0.01, "the expectation is refuted"),
    ],
)
def test_the_kind_of_sound_is_named_by_its_test(slope, p, expected):
    text = " ".join(study_summary.summary(figures(slope=slope, p=p), {}))
    assert expected in text
    assert ("refuted" in text) == (slope > 0)


def test_cells_of_a_family_are_marked_and_never_move():
    one = {"value": -0.1, "low": -0.2, "high": -0.05, "p_bootstrap_holm": 0.01, "p_equivalence_holm": 1.0}
    other = one | {"value": 0.0, "low": -0.001, "high": 0.001, "p_bootstrap_holm": 0.9, "p_equivalence_holm": 0.01}
    accuracy = {"log_db": {"value": 0.5, "low": 0.4, "high": 0.6}}
    datasets = {"a": {"differences": [one | {"variant": "x"}, one | {"variant": "y"}], "variants": accuracy}}
    datasets["b"] = {"differences": [other | {"variant": "y"}], "variants": accuracy}
    pooled = [{"variant": "y", "fixed": one | {"p_holm": 0.02, "p_equivalence_holm": 1.0}}]
    baseline, first, second = study_sections.difference_rows({"datasets": datasets, "pooled": pooled}, with_mean=True)
    assert baseline == ["`log_db`, accuracy", *["0.500 (0.400 to 0.600)"] * 2, *["–"] * 3]
    assert first == ["`x`", "−0.100 (−0.200 to −0.050) \\*", "–", "–", "–", "–"]
    assert second[2] == "0.000 (−0.001 to +0.001) =" and second[3:] == ["−0.100 (−0.200 to −0.050)", "0.020", "no"]


def test_the_variant_that_was_fine_tuned_is_compared_with_the_rule():
    tuned = {"datasets": {"esc50": {"differences": [{"variant": "hires_q8"}]}}}
    losses = {"hires_q8": 1.0, "hires_q1": 1.1, "log_db": 0.5, "mix_linear_mel_log": 0.9}  # no usual variant is taken
    assert study_report.chosen_for_tuning(losses) == "hires_q8" and study_report.chosen_for_tuning({}) is None
    text = " ".join(study_report.rule_for_tuning(tuned, losses))
    assert text.endswith("on inner splits of esc50: `hires_q8` (1.000). ")
    names = ("hires_q8", "hires_q1", "mix_linear_mel_log")
    more = {"datasets": {"esc50": {"differences": [{"variant": name} for name in names]}}}
    text = " ".join(study_report.rule_for_tuning(more, losses))
    assert text.endswith("(1.000). Exploratory: `hires_q1` (1.100); `mix_linear_mel_log` (0.900), a control. ")
    text = " ".join(study_report.rule_for_tuning(tuned, losses | {"hires_q1": 0.95}))
    assert "`hires_q1` (0.950), which was not fine-tuned. Exploratory: `hires_q8` (1.000)." in text
    assert "hires_q8 is exploratory" in study_report.rule_for_tuning(tuned, {})[0]


def test_what_is_committed_names_no_folder_of_one_machine():
    for path in STUDY.rglob("about.json"):
        values = [value for _, value in json.loads(path.read_text(encoding="utf-8"))["about"]]
        assert not any(re.search(r"(^|\s)/\w", value) for value in values), path


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_quoted_rows_are_those_of_the_committed_report(page):
    """Each row of differences, but for its last columns, is a row of the report."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    quoted = [line for line in lines if line.startswith("| `") and " to " in line]
    rows = (STUDY / "report.md").read_text(encoding="utf-8").splitlines()
    assert len(quoted) >= 6
    for line in quoted:
        assert any(row.startswith(line.removesuffix(" |")) for row in rows), line


def test_the_commands_that_repeat_the_study_are_understood(tmp_path):
    """All parts, with programs in place of python and cp that write down how they were called."""
    calls = tmp_path / "calls"
    for name, what in (("python", f'printf "%s\\0" "$@" >> {calls}; printf "\\0" >> {calls}'), ("cp", ":")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{what}\n")
        (tmp_path / name).chmod(0o755)
    script = ROOT / "benchmarks" / "repeat_study.sh"
    parts = re.search(r"any of: (.*)\. Every", script.read_text()).group(1).split()
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


def test_damaged_predictions_are_one_line_and_what_is_missing_is_named(tmp_path, monkeypatch, capsys):
    for dataset in ("drums", "esc50"):
        folder = tmp_path / "probes" / "predictions" / dataset
        shutil.copytree(STUDY / "probes" / "predictions" / dataset, folder)
        about = json.loads((folder / "about.json").read_text())
        chosen = ("log_db", *study_sections.HIGH, study_summary.CONTROL)
        kept = [each for each in about["files"] if each["variant"] in chosen]
        (folder / "about.json").write_text(json.dumps(about | {"files": kept}))
    monkeypatch.setattr(sys, "argv", ["study_report.py", f"--study={tmp_path}"])
    study_report.main()
    text = (tmp_path / "report.md").read_text()
    assert "- There are no predictions in small, finetuned, windows: nothing is concluded from them." in text
    capsys.readouterr()
    damaged = tmp_path / "probes/predictions/drums/hires_q8-seed_0.npz"
    damaged.write_bytes(b"garbage")
    with pytest.raises(SystemExit, match=r"^error: \S*hires_q8-seed_0.npz is damaged [^\n]*$"):  # of a copy: no advice
        study_report.main()
    damaged.unlink()
    with pytest.raises(SystemExit, match=r"^error: \S*hires_q8-seed_0.npz is missing"):
        study_report.main()
