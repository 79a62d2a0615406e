"""A sample of the fuzz in benchmarks/fuzz_decode.py: damaged files end in samples, a note or an error."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/fuzz_decode.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_decode", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_files_are_decoded_or_reported(fuzz, tmp_path, monkeypatch):
    """A file of each format, with damages at random."""
    monkeypatch.setattr(fuzz, "MOST_S", 20.0)  # the machine may be busy
    rng = fuzz.np.random.default_rng(4)
    outcomes = set()
    for suffix, data in list(fuzz.whole_files(rng, one_each=True)) * 3:
        damage = fuzz.DAMAGES[rng.integers(len(fuzz.DAMAGES))]
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(damage(rng, data, [data]))
        outcome, note, _ = fuzz.check(path)
        assert not outcome.startswith("FAILED"), (suffix, damage.__name__, outcome, note)
        outcomes.add(outcome)
    assert outcomes == {"whole", "with a note", "error"}


def test_the_fuzz_finds_what_it_looks_for(fuzz, tmp_path, monkeypatch):
    suffix, data = next(fuzz.whole_files(fuzz.np.random.default_rng(0)))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data)
    assert fuzz.check(path)[0] == "whole"
    whole = fuzz.load_audio(path, 16000)[0]
    for broken, outcome in (
        (lambda *_: 1 / 0, "FAILED with ZeroDivisionError"),
        (lambda *_: (whole, "two\nlines"), "FAILED: several lines"),
    ):
        monkeypatch.setattr(fuzz, "load_audio", broken)
        assert fuzz.check(path)[0] == outcome
    pytest.importorskip("av")
    monkeypatch.setattr(fuzz, "load_audio", lambda *_: (whole[:100], ""))
    assert fuzz.check(path)[0] == "FAILED: shorter than by FFmpeg"
