"""The exported file gives the tagger's probabilities in a process that does not have this project."""

import datetime
import json
import subprocess
import sys

import jaxlib
import numpy as np
import pytest
import random_runs

from audiotag_jax.inference import export
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.runtime.errors import UserError

pytest.importorskip("flatbuffers", reason="jax.export writes files by flatbuffers, which is not installed")

STRANGER = """
import json, pathlib, sys
sys.modules["audiotag_jax"] = None  # cannot be imported, although it may be installed
import jax, numpy as np
from jax import export
folder = pathlib.Path(sys.argv[1])
about = json.loads((folder / "tagger.json").read_text())
tag = export.deserialize(bytearray((folder / "tagger.stablehlo").read_bytes())).call
waveforms = np.load("waveforms.npy")
assert waveforms.shape[1] == about["length_samples"]
np.savez("answers.npz", three=tag(waveforms), one=tag(waveforms[:1]))
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"flax", "tensorflow", "optax"}, loaded
"""
KINDS = {
    "standard": {"spectral.channels": ("log_db",)},
    "high resolution": {"spectral.channels": ("hires_q2", "mel_linear"), "model.normalization": "imagenet"},
    "waveform": {"spectral.channels": ("waveform",), "model.name": "waveform"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_gets_the_same_answers(folder, tmp_path, kind):
    config = random_runs.tiny_config(folder)
    config.update_from_flattened_dict(KINDS[kind])
    workdir = random_runs.make_run(config, tmp_path / "run")
    export.run(workdir)
    strange = tmp_path / "elsewhere"
    strange.mkdir()
    waveforms = np.random.default_rng(1).standard_normal((3, random_runs.LENGTH)).astype(np.float32)
    waveforms[2, 300:] = 0
    np.save(strange / "waveforms.npy", waveforms)
    subprocess.run([sys.executable, "-c", STRANGER, str(workdir / "exported")], cwd=strange, check=True)
    tagger = load_tagger(workdir)
    expected = np.asarray(tagger.probabilities(waveforms))
    assert np.ptp(expected, axis=0).max() > 1e-3
    with np.load(strange / "answers.npz") as answers:
        np.testing.assert_allclose(answers["three"], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(answers["one"], expected[:1], rtol=0, atol=1e-5)
    about = json.loads((workdir / "exported" / "tagger.json").read_text())
    assert about["classes"] == list(random_runs.CLASSES)
    assert (about["sample_rate_hz"], about["duration_s"]) == (random_runs.RATE_HZ, 0.3)
    assert about["temperature"] == tagger.temperature
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    last_day = datetime.date.fromisoformat(about["guarantee_ends_by"])
    assert 180 < (last_day - datetime.date.today()).days < 185
    assert f"jaxlib {jaxlib.__version__}" in about["guarantee"] and about["guarantee_ends_by"] in about["guarantee"]
    assert not list((workdir / "exported").glob(".*.tmp"))


def test_a_file_that_differs_is_not_put_in_place(folder, tmp_path, monkeypatch):
    workdir = random_runs.make_run(random_runs.tiny_config(folder), tmp_path / "run")
    whole = load_tagger(workdir)
    part = load_tagger(workdir, (0,))
    program = export.serialize(part)
    assert export.compare(program, part) < 1e-5 < export.compare(program, whole)
    monkeypatch.setattr(export, "serialize", lambda tagger: program)
    with pytest.raises(UserError, match="differ"):
        export.run(workdir)
    assert not (workdir / "exported").exists()


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="contains no run"):
        export.run(tmp_path)


@pytest.mark.parametrize(("day", "later"), [
    ("2026-08-31", "2027-02-28"), ("2027-08-31", "2028-02-29"), ("2026-12-31", "2027-06-30"),
])  # fmt: skip
def test_six_months_after(day, later):
    assert export.six_months_after(datetime.date.fromisoformat(day)) == datetime.date.fromisoformat(later)
