"""Mode `export`: a trained run as one file, from waveforms to probabilities, that needs nothing of this project.

The file is StableHLO, for JAX; where the packages for it are installed, there is one of ONNX beside it.
"""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from audiotag_jax import export_onnx
from audiotag_jax.errors import UserError
from audiotag_jax.files import locked, write_atomic, write_json
from audiotag_jax.progress import say
from audiotag_jax.tagger import Tagger, load_tagger

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5  # of a probability, between the file and the run that it was made of
PROGRAM, ONNX, LABELS = "tagger.stablehlo", "tagger.onnx", "tagger.json"
USE_ONNX = f"onnxruntime.InferenceSession('{ONNX}').run(None, {{'{export_onnx.INPUT}': waveforms}})[0]"


def run(workdir: Path, *, out: Path | None = None) -> None:
    """Writes `tagger.stablehlo`, `tagger.json` and, where it can be, `tagger.onnx` to `out`, or `workdir/exported`.

    The programs are loaded back and compared with the run before they are put in place. Raises UserError if the
    directory holds no finished run.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("JAX writes exported functions by the package flatbuffers: pip install flatbuffers.")
    tagger = load_tagger(workdir)
    out = out or workdir / "exported"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder.")
    say(f"exporting {tagger.name}: {len(tagger.classes)} classes, folds {', '.join(map(str, tagger.folds))}")
    program = serialize(tagger)
    difference = compare(program, tagger)
    if not difference <= TOLERANCE:
        raise UserError(
            f"The exported function's probabilities differ from the run's by up to {difference:.2g}; nothing written."
        )
    say(f"loaded back: probabilities equal to {difference:.1g}")
    as_onnx = _as_onnx(tagger)
    with locked(out, "writing to"):
        (out / ONNX).unlink(missing_ok=True)  # of an earlier run: it must not lie beside another run's labels
        write_atomic(out / PROGRAM, lambda file: file.write(program))
        if as_onnx is not None:
            write_atomic(out / ONNX, lambda file: file.write(as_onnx))
        write_json(out / LABELS, describe(tagger) | ({} if as_onnx is None else {"use_onnx": USE_ONNX}))
    sizes = {PROGRAM: program} | ({} if as_onnx is None else {ONNX: as_onnx})
    listed = ", ".join(f"{name} ({len(data) / 1e6:.1f} MB)" for name, data in sizes.items())
    say(f"written to {out}: {listed}, {LABELS}")


def _as_onnx(tagger: Tagger) -> bytes | None:
    """None, with a line that says why, if there is no file that onnxruntime proves right."""
    try:
        program = export_onnx.serialize(tagger)
        waveforms = made_up(tagger)
        found = export_onnx.probabilities(program, waveforms)
    except UserError as reason:
        say(f"no {ONNX}: {reason}")
        return None
    difference = float(np.abs(found - np.asarray(tagger.probabilities(waveforms))).max())
    if not difference <= TOLERANCE:
        say(f"no {ONNX}: its probabilities differ from the run's by up to {difference:.2g}")
        return None
    say(f"onnxruntime: probabilities equal to {difference:.1g}")
    return program


def serialize(tagger: Tagger) -> bytes:
    """`tagger.probabilities` for any number of waveforms and for `PLATFORMS`, weights inside, as `jax.export` has it.

    Where a choice depends on the kind of device, it is that of the device at hand: elsewhere it is right, but slower.
    """
    (batch,) = jax_export.symbolic_shape("batch")
    waveforms = jax.ShapeDtypeStruct((batch, tagger.length_samples), np.float32)
    exported = jax_export.export(jax.jit(tagger.probabilities), platforms=PLATFORMS)(waveforms)
    return bytes(exported.serialize(vjp_order=0))


def compare(program: bytes, tagger: Tagger) -> float:
    """The largest difference of a probability between the serialized function and the tagger, on made-up sounds."""
    waveforms = made_up(tagger)
    loaded = jax_export.deserialize(bytearray(program))
    found, expected = (np.asarray(function(waveforms)) for function in (loaded.call, tagger.probabilities))
    return float(np.abs(found - expected).max())


def made_up(tagger: Tagger, num_waveforms: int = 3) -> np.ndarray:
    """Waveforms [B, N] of decaying noise."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((num_waveforms, tagger.length_samples))
    decays = np.exp(-np.linspace(0, 1, tagger.length_samples) * rng.uniform(0, 20, (num_waveforms, 1)))
    return (0.1 * noise * decays).astype(np.float32)


def describe(tagger: Tagger) -> dict[str, Any]:
    """What one must know to use the file."""
    return {
        "run": tagger.name,
        "folds": list(tagger.folds),
        "classes": list(tagger.classes),
        "sample_rate_hz": tagger.sample_rate_hz,
        "length_samples": tagger.length_samples,
        "duration_s": tagger.duration_s,
        "temperature": tagger.temperature,
        "platforms": list(PLATFORMS),
        "jax_version": jax.__version__,
        "input": f"float32 [batch, {tagger.length_samples}]: finite mono waveforms at {tagger.sample_rate_hz} Hz, any "
        "level; what is shorter lies in the middle of zeros",
        "output": f"float32 [batch, {len(tagger.classes)}]: calibrated probabilities in the order of classes",
        "use": f"jax.export.deserialize(bytearray(open('{PROGRAM}', 'rb').read())).call(waveforms)",
    }
