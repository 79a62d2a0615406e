"""Mode `export`: a trained run as one file, from waveforms to probabilities, that needs nothing of this project."""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from audiotag_jax.errors import UserError
from audiotag_jax.files import locked, write_atomic, write_json
from audiotag_jax.progress import say
from audiotag_jax.tagger import Tagger, load_tagger

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5  # of a probability, between the file and the run that it was made of
PROGRAM, LABELS = "tagger.stablehlo", "tagger.json"


def run(workdir: Path, *, out: Path | None = None) -> None:
    """Writes `tagger.stablehlo` and `tagger.json` to `out`, by default `workdir/exported`.

    The former is loaded back and compared with the run before it is put in place. Raises UserError if the directory
    holds no finished run.
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
    with locked(out, "writing to"):
        write_atomic(out / PROGRAM, lambda file: file.write(program))
        write_json(out / LABELS, describe(tagger))
    say(f"loaded back: probabilities equal to {difference:.1g}")
    say(f"written to {out}: {PROGRAM} ({len(program) / 1e6:.1f} MB), {LABELS}")


def serialize(tagger: Tagger) -> bytes:
    """`tagger.probabilities` for any number of waveforms and for `PLATFORMS`, weights inside, as `jax.export` has it.

    Where a choice depends on the kind of device, it is that of the device at hand: elsewhere it is right, but slower.
    """
    (batch,) = jax_export.symbolic_shape("batch")
    waveforms = jax.ShapeDtypeStruct((batch, tagger.length_samples), np.float32)
    exported = jax_export.export(jax.jit(tagger.probabilities), platforms=PLATFORMS)(waveforms)
    return bytes(exported.serialize(vjp_order=0))


def compare(program: bytes, tagger: Tagger, num_waveforms: int = 3) -> float:
    """The largest difference of a probability between the serialized function and the tagger, on made-up sounds."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((num_waveforms, tagger.length_samples))
    decays = np.exp(-np.linspace(0, 1, tagger.length_samples) * rng.uniform(0, 20, (num_waveforms, 1)))
    waveforms = (0.1 * noise * decays).astype(np.float32)
    loaded = jax_export.deserialize(bytearray(program))
    found, expected = (np.asarray(function(waveforms)) for function in (loaded.call, tagger.probabilities))
    return float(np.abs(found - expected).max())


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
