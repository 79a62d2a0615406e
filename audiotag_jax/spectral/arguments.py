"""What can be wrong with the arguments of linear reassignment; each error names its parameter in one line."""

import math
import reprlib

import jax
import jax.numpy as jnp
import numpy as np

MAX_CHANNELS = 32  # more are a recording turned on its side, which would compile for minutes
MAX_STRIDE = 100.0  # sparser points than that show little of a clip


def number(name: str, value) -> float:
    """Returns `value` as a float. Raises ValueError where it is no number."""
    if not isinstance(value, str | bytes | bool | np.bool_):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise ValueError(f"{name} must be a number, not {reprlib.repr(value)}")


def whole_number(name: str, value) -> int:
    """Returns `value` as a whole number below 2^31, in which JAX counts. Raises ValueError where it is none."""
    result = number(name, value)
    if not math.isfinite(result) or result != int(result):
        raise ValueError(f"{name} must be a whole number, not {reprlib.repr(value)}")
    if result >= 2**31:
        raise ValueError(f"{name} must be below 2^31, not {reprlib.repr(value)}")
    return int(result)


def stride_number(value) -> float:
    """Returns a stride from 1 to `MAX_STRIDE`. Raises ValueError for any other."""
    result = number("stride", value)
    if not 1.0 <= result <= MAX_STRIDE:
        raise ValueError(f"stride must be 1 or more, at most {MAX_STRIDE:g}, not {result!r}")
    return result


def memory_bytes(memory_mib) -> float:
    """Converts the bound on memory from MiB to bytes. Raises ValueError unless it is above 0."""
    result = number("memory_mib", memory_mib)
    if not result > 0.0:
        raise ValueError(f"memory_mib must be above 0, not {result!r}")
    return result * 2**20


def real_samples(name: str, x) -> jax.Array:
    """Casts `x` to float32; keeps float64 where JAX has it enabled. Raises ValueError unless it is of real numbers."""
    try:
        samples = jnp.asarray(x)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must hold numbers, not {getattr(x, 'dtype', type(x).__name__)}") from error
    if jnp.iscomplexobj(samples):
        raise ValueError(f"{name} must hold real samples, not complex ones")
    if not jnp.issubdtype(samples.dtype, jnp.number):
        raise ValueError(f"{name} must hold numbers, not {samples.dtype}")
    return samples if samples.dtype == jnp.float64 else samples.astype(jnp.float32)


def one_recording(x) -> jax.Array:
    """Returns `x` [N] or [N, channels] as finite real samples [channels, N].

    Raises ValueError for other shapes, what is not real, and NaN or infinity. Inside `jax.jit`, where values are
    not known yet, a channel with NaN or infinity becomes silence.
    """
    x = real_samples("x", x)
    if x.ndim not in (1, 2) or 0 in x.shape:
        raise ValueError(f"x must be [samples] or [samples, channels], one or more of each, not {x.shape}")
    num_samples, num_channels = (*x.shape, 1)[:2]
    if num_channels > num_samples:
        raise ValueError(f"x is [samples] or [samples, channels]; {x.shape} looks transposed: give x.T")
    if num_channels > MAX_CHANNELS:
        raise ValueError(f"x is [samples] or [samples, channels], at most {MAX_CHANNELS} channels, not {x.shape}")
    if isinstance(x, jax.core.Tracer):
        x = jnp.where(jnp.all(jnp.isfinite(x), axis=0), x, 0.0)
    elif not np.isfinite(np.asarray(x)).all():
        raise ValueError(f"x contains NaN or infinity (as {x.dtype}): replace or cut out such samples first")
    return x[None] if x.ndim == 1 else x.T
