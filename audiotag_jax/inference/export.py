"""Mode `export`: a trained run as one file, from waveforms to probabilities, that needs nothing of this project.

The file is StableHLO, for JAX; where the packages for it are installed, there is one of ONNX beside it. It is not for
archives: JAX guarantees that a jaxlib loads it that was built up to six months after the one that wrote it
(https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees). Keep the run, and export it again.
"""

import calendar
import datetime
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.inference import export_onnx
from audiotag_jax.inference.tagger import Tagger, describe_decision, load_tagger
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked, write_atomic, write_json
from audiotag_jax.runtime.progress import log

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5  # of a probability, between the file and the run that it was made of
ONNX_TOLERANCE = 1e-4  # likewise; another library rounds otherwise, and weak bins in dB show it
PROGRAM, ONNX, LABELS = "tagger.stablehlo", "tagger.onnx", "tagger.json"
USE_ONNX = f"onnxruntime.InferenceSession('{ONNX}').run(None, {{'{export_onnx.INPUT}': waveforms}})[0]"


def run(workdir: Path, *, out: Path | None = None) -> None:
    """Writes `tagger.stablehlo`, `tagger.json` and, where it can be, `tagger.onnx` to `out`, or `workdir/exported`.

    The programs are loaded back and compared with the run before each is put in place. Raises UserError if the
    directory contains no finished run.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("JAX writes exported functions by the package flatbuffers: pip install flatbuffers.")
    tagger = load_tagger(workdir)
    out = out or workdir / "exported"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder.")
    log(f"exporting {tagger.name}: {len(tagger.classes)} classes, folds {', '.join(map(str, tagger.folds))}")
    program = serialize(tagger)
    difference = compare(program, tagger)
    if not difference <= TOLERANCE:
        raise UserError(
            f"The exported function's probabilities differ from the run's by up to {difference:.2g}; nothing written."
        )
    log(f"loaded back: probabilities differ by at most {difference:.1g}")
    with locked(out, "writing to"):
        (out / ONNX).unlink(missing_ok=True)  # of an earlier run: it must not lie beside another run's labels
        write_atomic(out / PROGRAM, lambda file: file.write(program))
        write_json(out / LABELS, describe(tagger))
        log(f"written to {out}: {PROGRAM} ({len(program) / 1e6:.1f} MB), {LABELS}")
        if (extra := _as_onnx(tagger)) is not None:
            write_atomic(out / ONNX, lambda file: file.write(extra))
            write_json(out / LABELS, describe(tagger) | {"use_onnx": USE_ONNX})
            log(f"written to {out}: {ONNX} ({len(extra) / 1e6:.1f} MB)")


def _as_onnx(tagger: Tagger) -> bytes | None:
    """Returns the ONNX model; None, logging the reason, unless onnxruntime gives the run's probabilities with it."""
    try:
        program = export_onnx.serialize(tagger)
        waveforms = probe_waveforms(tagger)
        found = export_onnx.probabilities(program, waveforms)
    except UserError as reason:
        log(f"no {ONNX}: {reason}")
        return None
    difference = float(np.abs(found - np.asarray(tagger.probabilities(waveforms))).max())
    if not difference <= ONNX_TOLERANCE:
        log(f"no {ONNX}: its probabilities differ from the run's by up to {difference:.2g}")
        return None
    log(f"onnxruntime: probabilities differ by at most {difference:.1g}")
    return program


def serialize(tagger: Tagger) -> bytes:
    """Serializes `tagger.probabilities` by `jax.export`, weights inside, for any number of waveforms and `PLATFORMS`.

    Where a choice depends on the kind of device, it is that of the device at hand: elsewhere it is right, but slower.
    """
    (batch,) = jax_export.symbolic_shape("batch")
    waveforms = jax.ShapeDtypeStruct((batch, tagger.length_samples), np.float32)
    exported = jax_export.export(jax.jit(tagger.probabilities), platforms=PLATFORMS)(waveforms)
    return bytes(exported.serialize(vjp_order=0))


def compare(program: bytes, tagger: Tagger) -> float:
    """Returns the largest difference of a probability of the serialized function to the tagger's, on test sounds."""
    waveforms = probe_waveforms(tagger)
    loaded = jax_export.deserialize(bytearray(program))
    found, expected = (np.asarray(function(waveforms)) for function in (loaded.call, tagger.probabilities))
    return float(np.abs(found - expected).max())


def probe_waveforms(tagger: Tagger) -> np.ndarray:
    """Returns waveforms [9, N] float32: decaying noise, tones, a click and silence."""
    rng, length = np.random.default_rng(0), tagger.length_samples
    decays = np.exp(-np.linspace(0, 1, length) * rng.uniform(0, 20, (4, 1)))
    tones = np.sin(2 * np.pi * np.array([[0.003], [0.03], [0.3]]) * np.arange(length))
    click, silence = np.zeros((2, 1, length))
    click[:, length // 2] = 1
    noise = decays * rng.standard_normal((4, length))
    return np.concatenate([0.1 * noise, 0.5 * tones, click, silence]).astype(np.float32)


def describe(tagger: Tagger) -> dict[str, Any]:
    """Describes what is needed to use the file, and how long JAX guarantees that it can be loaded."""
    jaxlib_version = importlib.metadata.version("jaxlib")
    last_day = six_months_after(datetime.date.today()).isoformat()
    several = tagger.task is MULTI_LABEL
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
        "jaxlib_version": jaxlib_version,
        "guarantee_ends_by": last_day,
        "guarantee": f"JAX guarantees that {PROGRAM} loads with releases of jaxlib built up to six months after jaxlib "
        f"{jaxlib_version}, so with none built after {last_day}. If loading fails, install that jaxlib, or export "
        "the run again.",
        "input": f"float32 [batch, {tagger.length_samples}]: finite mono waveforms at {tagger.sample_rate_hz} Hz, any "
        "level; what is shorter lies in the middle of zeros",
        "output": f"float32 [batch, {len(tagger.classes)}]: calibrated probabilities in the order of classes"
        + (
            ", of each class by itself; a tag is what reaches its threshold, in the order of classes" if several else ""
        ),
        **(
            {"task": tagger.task.name, **(describe_decision(tagger) or {"threshold": tagger.thresholds})}
            if several
            else {}
        ),
        "use": f"jax.export.deserialize(bytearray(open('{PROGRAM}', 'rb').read())).call(waveforms)",
    }


def six_months_after(day: datetime.date) -> datetime.date:
    """Returns the same day of the month six months later, or that month's last one where it is shorter."""
    years, months = divmod(day.month - 1 + 6, 12)
    year, month = day.year + years, months + 1
    return datetime.date(year, month, min(day.day, calendar.monthrange(year, month)[1]))
