"""A tagger as an ONNX file, by jax2onnx, where that is installed: an extra beside what mode `export` always writes.

What is converted is a trace, because jax2onnx replaces functions of Flax while it traces, and its own take neither the
arguments by position nor the padding that the networks use. A trace has fixed sizes: it is of one clip, and a loop runs
over as many as there are. onnxruntime has maxima over windows of at most three axes, where jax2onnx makes windows of
all axes, batch and channels too; here they become maxima of slices.
"""

import contextlib
import functools
import importlib.util
import logging
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from audiotag_jax.inference.tagger import Tagger
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log

PACKAGES = ("jax2onnx", "onnxruntime")
INPUT, OUTPUT, BATCH = "waveforms", "probabilities", "batch"


def serialize(tagger: Tagger) -> bytes:
    """Serializes `tagger.probabilities` for any number of waveforms, weights inside, as an ONNX model.

    Raises UserError, in one line, where the packages are missing or do not convert the function.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed")
    log("converting to ONNX")
    try:
        return _convert(tagger)
    except Exception as error:  # any that another project's converter raises
        raise UserError(f"jax2onnx cannot convert this run: {_in_a_line(error)}") from error


def probabilities(program: bytes, waveforms: np.ndarray) -> np.ndarray:
    """Computes [B, K] of `waveforms` [B, N] by onnxruntime on a CPU; raises UserError where it cannot."""
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
    of_one_clip = jaxpr_as_fun(traced)

    def probabilities(waveforms):
        return lax.map(lambda waveform: of_one_clip(waveform[None])[0][0], waveforms)

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of every unknown shape
    shape = (BATCH, tagger.length_samples)
    with _window_maxima_by_slices():
        model = jax2onnx.to_onnx(probabilities, [shape], input_names=[INPUT], output_names=[OUTPUT])
    _drop_unused(model.graph)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = BATCH
    return model.SerializeToString()


@contextlib.contextmanager
def _window_maxima_by_slices() -> Iterator[None]:
    """Makes jax2onnx convert maxima over windows as `window_maxima` computes them, within the block."""
    from jax2onnx.plugins.jax.lax._control_flow_utils import lower_jaxpr_eqns
    from jax2onnx.plugins.plugin_system import PLUGIN_REGISTRY, PrimitiveLeafPlugin, import_all_plugins

    class WindowMaxima(PrimitiveLeafPlugin):
        def lower(self, ctx, eqn):
            (values,), (maxima,) = eqn.invars, eqn.outvars
            traced = jax.make_jaxpr(functools.partial(window_maxima, **eqn.params))(values.aval)
            for variable, constant in zip(traced.jaxpr.constvars, traced.consts, strict=True):
                ctx.bind_const_for_var(variable, np.asarray(constant))
            ctx.bind_value_for_var(traced.jaxpr.invars[0], ctx.get_value_for_var(values))
            lower_jaxpr_eqns(ctx, traced.jaxpr)
            ctx.bind_value_for_var(maxima, ctx.get_value_for_var(traced.jaxpr.outvars[0]))

    import_all_plugins()
    name = lax.reduce_window_max_p.name
    own = PLUGIN_REGISTRY[name]
    PLUGIN_REGISTRY[name] = WindowMaxima()
    try:
        yield
    finally:
        PLUGIN_REGISTRY[name] = own


def _drop_unused(graph) -> set[str]:
    """Takes out constants that nothing reads, and of which onnxruntime warns; gives the names of what is read."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    used = used.union(*map(_drop_unused, inner))
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name not in used:
            del graph.initializer[i]
    return used


def window_maxima(values, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """Computes `lax.reduce_window_max_p` by slices and elementwise maxima, one axis after the other; exact.

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


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    # onnxruntime's messages lead from loops without to the node within, which they name last.
    return f"{type(error).__name__}: {text if len(text) <= 160 else '...' + text[-160:]}"
