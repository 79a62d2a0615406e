"""The ONNX file gives the tagger's probabilities in a process without JAX, or a line gives the reason."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import random_runs
from jax import lax

from audiotag_jax.inference import export, export_onnx
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.models.head import global_max
from audiotag_jax.models.resnet import ResNetBody
from audiotag_jax.runtime.errors import UserError

STRANGER = """
import json, pathlib, sys
import numpy as np, onnxruntime
folder = pathlib.Path(sys.argv[1])
session = onnxruntime.InferenceSession(folder / "tagger.onnx")
waveforms = np.load("waveforms.npy")
three, one = (session.run(None, {"waveforms": w})[0] for w in (waveforms, waveforms[:1]))
np.savez("answers.npz", three=three, one=one)
assert not {name.split(".")[0] for name in sys.modules} & {"jax", "flax", "audiotag_jax", "tensorflow"}
"""
KINDS = {
    "standard": {"spectral.channels": ("log_db", "linear_linear"), "model.normalization": "imagenet"},
    "waveform": {"spectral.channels": ("waveform",), "model.name": "waveform"},
}
ABSENT = [name for name in export_onnx.PACKAGES if importlib.util.find_spec(name) is None]
needs_packages = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}")


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory) -> Path:
    return random_runs.make_run(random_runs.tiny_config(folder), tmp_path_factory.mktemp("runs") / "run")


@needs_packages
@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_gets_the_same_answers(folder, tmp_path, kind, capsys):
    config = random_runs.tiny_config(folder)
    config.update_from_flattened_dict(KINDS[kind])
    workdir = random_runs.make_run(config, tmp_path / "run")
    export.run(workdir)
    assert "onnxruntime: probabilities differ by at most" in capsys.readouterr().out
    waveforms = np.random.default_rng(1).standard_normal((3, random_runs.LENGTH)).astype(np.float32)
    waveforms[2, 300:] = 0
    np.save(tmp_path / "waveforms.npy", waveforms)
    command = [sys.executable, "-c", STRANGER, str(workdir / "exported")]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert not done.stderr, "onnxruntime warns of the file"
    expected = np.asarray(load_tagger(workdir).probabilities(waveforms))
    assert np.ptp(expected, axis=0).max() > 1e-3
    with np.load(tmp_path / "answers.npz") as answers:
        np.testing.assert_allclose(answers["three"], expected, rtol=0, atol=1e-4)
        np.testing.assert_allclose(answers["one"], expected[:1], rtol=0, atol=1e-4)
    assert "tagger.onnx" in json.loads((workdir / "exported" / "tagger.json").read_text())["use_onnx"]


def test_without_the_packages_all_else_is_written(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export_onnx, "PACKAGES", ("surely_absent",))
    (tmp_path / export.ONNX).write_bytes(b"of another run")
    export.run(workdir, out=tmp_path)
    assert "no tagger.onnx: surely_absent not installed\n" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {export.PROGRAM, export.LABELS}
    assert "use_onnx" not in json.loads((tmp_path / export.LABELS).read_text())


def test_what_is_not_converted_takes_one_line(workdir, monkeypatch, capsys):
    def refuse(tagger):
        raise NotImplementedError("no such\nprimitive")

    monkeypatch.setattr(export_onnx, "PACKAGES", ())
    monkeypatch.setattr(export_onnx, "_convert", refuse)
    assert export._as_onnx(load_tagger(workdir)) is None
    reason = "jax2onnx cannot convert this run: NotImplementedError: no such primitive"
    assert f"no tagger.onnx: {reason}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("off", "right"), [(1e-5, True), (1e-3, False), (np.nan, False)])
def test_a_file_that_differs_is_not_taken(workdir, monkeypatch, capsys, off, right):
    tagger = load_tagger(workdir)
    monkeypatch.setattr(export_onnx, "serialize", lambda tagger: b"a program")
    monkeypatch.setattr(export_onnx, "probabilities", lambda _, waveforms: tagger.probabilities(waveforms) + off)
    assert export._as_onnx(tagger) == (b"a program" if right else None)
    assert ("no tagger.onnx: its probabilities differ" in capsys.readouterr().out) != right


def test_a_broken_onnxruntime_is_said(workdir, monkeypatch, tmp_path, capsys):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libstdc++ is too old')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(export_onnx, "serialize", lambda tagger: b"a program")
    assert export._as_onnx(load_tagger(workdir)) is None
    assert "ImportError: libstdc++ is too old\n" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)


@pytest.mark.skipif("onnxruntime" in ABSENT, reason="not installed: onnxruntime")
def test_what_onnxruntime_refuses_is_said():
    with pytest.raises(UserError, match="onnxruntime does not run"):
        export_onnx.probabilities(b"no program", np.zeros((1, 4), np.float32))


@needs_packages
def test_what_pretrained_networks_are_made_of_is_converted():
    """Padded maxima over windows, grouped convolutions, averages; and a loop over a single fold."""
    body = ResNetBody(block="bottleneck", stage_sizes=(1, 1), width=8, groups=2, grouped_method="blocks")
    images = lambda waveforms: waveforms.reshape(-1, 30, 40, 1)  # noqa: E731
    waveforms = np.random.default_rng(0).standard_normal((3, 1200)).astype(np.float32)
    variables = jax.tree.map(lambda leaf: leaf[None], body.init(jax.random.key(0), images(waveforms), train=False))

    @jax.jit
    def probabilities(waveforms):
        features = lax.map(lambda fold: body.apply(fold, images(waveforms), train=False), variables)
        return jax.nn.softmax(global_max(features[0]))

    expected = np.asarray(probabilities(waveforms))
    program = export_onnx.serialize(SimpleNamespace(probabilities=probabilities, length_samples=1200))
    np.testing.assert_allclose(export_onnx.probabilities(program, waveforms), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(probabilities(waveforms), expected)  # what jax2onnx replaces does not stay replaced
    assert np.ptp(expected, axis=0).max() > 1e-3


@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((1, 3, 2), (1, 2, 2), ((0, 0), (1, 1), (0, 1))),
        ((1, 7, 6), (1, 7, 6), ((0, 0),) * 3),
        ((2, 1, 1), (3, 2, 4), 0),
    ],
)
def test_window_maxima(window, strides, padding):
    values = np.random.default_rng(0).standard_normal((4, 7, 6)).astype(np.float32) - 3.0
    padding = padding or ((0, 0),) * 3
    expected = lax.reduce_window(values, -np.inf, lax.max, window, strides, padding)
    ones = {"base_dilation": (1, 1, 1), "window_dilation": (1, 1, 1)}
    shape = {"window_dimensions": window, "window_strides": strides, "padding": padding}
    np.testing.assert_array_equal(export_onnx.window_maxima(values, **shape, **ones), expected)
    with pytest.raises(NotImplementedError, match="dilated"):
        export_onnx.window_maxima(values, **shape, **ones | {"window_dilation": (1, 2, 1)})
