"""A tagger as an ONNX file, by jax2onnx, where that is installed: an extra beside what mode `export` always writes.

jax2onnx replaces functions of Flax while it traces, and pools over batch and channels too, which onnxruntime refuses.
So it is given the traced computation, primitive by primitive, with maxima over windows spelled out.
"""

import importlib.util
import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from audiotag_jax.inference.tagger import Tagger
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log

PACKAGES = ("jax2onnx", "onnxruntime")
INPUT, OUTPUT, BATCH = "waveforms", "probabilities", "batch"


def serialize(tagger: Tagger) -> bytes:
    """`tagger.probabilities` for any number of waveforms, weights inside, as an ONNX model.

    Raises UserError, in one line, where the packages are missing or do not convert the function.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed")
    log("converting to ONNX")
    try:
        return _convert(tagger)
    except Exception as error:  # whatever another project's converter stumbles over
        raise UserError(f"jax2onnx cannot convert this run: {_in_a_line(error)}") from error


def probabilities(program: bytes, waveforms: np.ndarray) -> np.ndarray:
    """[B, K] of `waveforms` [B, N], as onnxruntime computes them on a CPU; raises UserError where it cannot."""
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised; it need not be printed too
        session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
        return session.run([OUTPUT], {INPUT: waveforms})[0]
    except Exception as error:  # its exceptions have no base of their own
        raise UserError(f"onnxruntime does not run what jax2onnx made: {_in_a_line(error)}") from error


def _convert(tagger: Tagger) -> bytes:
    import jax2onnx

    traced = jax.make_jaxpr(tagger.probabilities)(jax.ShapeDtypeStruct((1, tagger.length_samples), np.float32))

    def probabilities(waveforms):
        # A trace has fixed sizes: it is of one clip, and a loop takes as many as there are.
        return lax.map(lambda waveform: evaluate(traced, [waveform[None]])[0][0], waveforms)

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of every unknown shape
    shape = (BATCH, tagger.length_samples)
    model = jax2onnx.to_onnx(probabilities, [shape], input_names=[INPUT], output_names=[OUTPUT])
    _drop_unused(model.graph)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = BATCH
    return model.SerializeToString()


def _drop_unused(graph) -> set[str]:
    """Takes out constants that nothing reads, and of which onnxruntime warns; gives the names of what is read."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    used = used.union(*map(_drop_unused, inner))
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name not in used:
            del graph.initializer[i]
    return used


def evaluate(traced: core.ClosedJaxpr, inputs: Sequence[jax.Array]) -> list[jax.Array]:
    """What `traced` computes of `inputs`, with each primitive in `REPLACED` computed as it says there."""
    values = dict(zip(traced.jaxpr.constvars, traced.consts, strict=True))
    values |= dict(zip(traced.jaxpr.invars, inputs, strict=True))

    def read(variable):
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in traced.jaxpr.eqns:
        outputs = _apply(equation, [read(variable) for variable in equation.invars])
        values |= zip(equation.outvars, outputs, strict=True)
    return [read(variable) for variable in traced.jaxpr.outvars]


def _apply(equation, inputs):
    primitive, params = equation.primitive, equation.params
    if primitive.name in REPLACED:
        return [REPLACED[primitive.name](*inputs, **params)]
    if primitive.name == "scan":
        return _scan(inputs, **params)
    if primitive.name in CALLS:
        return evaluate(params.get("jaxpr", params.get("call_jaxpr")), inputs)
    outputs = primitive.bind(*inputs, **params)
    return outputs if primitive.multiple_results else [outputs]


def _scan(inputs, *, jaxpr, length, reverse, **others):
    if "ft_in" in others:  # since JAX 0.12
        fixed, carry, rows = (list(part) for part in others["ft_in"].update(inputs).unpack())
    else:
        first_carry, first_row = np.cumsum([others["num_consts"], others["num_carry"]])
        fixed, carry, rows = inputs[:first_carry], inputs[first_carry:first_row], inputs[first_row:]

    def step(carry, row):
        outputs = evaluate(jaxpr, [*fixed, *carry, *row])
        return outputs[: len(carry)], outputs[len(carry) :]

    if length == 1:  # a loop less: those within loops are where converters err
        carry, row = step(carry, [array[0] for array in rows])
        return [*carry, *(array[None] for array in row)]
    carry, rows = lax.scan(step, carry, rows, length, reverse)
    return [*carry, *rows]


def window_maxima(values, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """`lax.reduce_window_max_p` by slices and elementwise maxima, one axis after the other; exact.

    Raises NotImplementedError for dilated windows.
    """
    if {*base_dilation, *window_dilation} != {1}:
        raise NotImplementedError("maxima over dilated windows")
    if any(before or after for before, after in padding):
        values = lax.pad(values, np.array(-np.inf, values.dtype), [(*pads, 0) for pads in padding])
    for axis, (size, stride) in enumerate(zip(window_dimensions, window_strides, strict=True)):
        if size == values.shape[axis]:
            values = jnp.max(values, axis=axis, keepdims=True)
            continue
        reach = (values.shape[axis] - size) // stride * stride + 1
        slices = [lax.slice_in_dim(values, start, start + reach, stride, axis) for start in range(size)]
        values = slices[0]
        for other in slices[1:]:
            values = lax.max(values, other)
    return values


REPLACED = {"reduce_window_max": window_maxima}
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")  # of a computation within, as it stands


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    # onnxruntime's messages lead from loops without to the node within, which they name last.
    return f"{type(error).__name__}: {text if len(text) <= 160 else '...' + text[-160:]}"
