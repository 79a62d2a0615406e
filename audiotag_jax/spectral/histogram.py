"""The histogram of linear reassignment: which cell a point's energy moves to, and the sums over cells."""

import math

import jax.numpy as jnp

# Energy that would move further, in standard deviations of the window, is left out, as published. Other rows and times
# see it nearer to their centres; and where |xi| is nearly 0, m is large and means nothing. `Grid` and `_log1p` rely on
# the bound.
_LARGEST_MOMENT = 0.5
SPARE_CELLS = 1024  # take what is left out; many of them, because two additions to one cell must wait for each other


def deposit(sums, rows, values, times, grid, num_samples):
    """Adds every point of some rows to the histogram's `sums` where its energy belongs; returns the new sums.

    Args:
      sums: energies and whole-numbered hits, [F * T + SPARE_CELLS] each.
      rows: arrays [R]: whether the row is `live`, its place as a whole `bin` and a `position` from there, its `delay`
        in time bins, and the `moment` that turns the imaginary part of m into time bins.
      values: real and imaginary parts, each [2, R, ...], of xi and eta.
      times: [...] whole time bins of the points, and the rest in time bins.
    """
    (xi_real, eta_real), (xi_imag, eta_imag) = values
    rows = {name: rows[name][:, None, None] for name in ("live", "bin", "position", "delay", "moment")}
    num_frames = grid.num_frames(num_samples)
    size = num_frames * grid.num_bins
    frame, part = times

    # m = eta / xi = eta conj(xi) / |xi|^2. Below `tiny` the quotient would have fewer bits than single precision has.
    energy = jnp.square(xi_real) + jnp.square(xi_imag)
    tiny = float(jnp.finfo(energy.dtype).tiny) * 2.0**24
    per_energy = 1.0 / jnp.where(energy > tiny, energy, 1.0)
    real = (eta_real * xi_real + eta_imag * xi_imag) * per_energy
    imag = (eta_imag * xi_real - eta_real * xi_imag) * per_energy
    kept = rows["live"] & (energy > tiny) & (real * real + imag * imag < _LARGEST_MOMENT**2)
    # What is not kept is computed all the same: clipped, it stays within the bound that `_log1p` is made for.
    real = jnp.clip(real, -_LARGEST_MOMENT, _LARGEST_MOMENT)
    imag = jnp.clip(imag, -_LARGEST_MOMENT, _LARGEST_MOMENT)

    # Frequencies and times in bins, from a whole one near by: single precision then holds small numbers only.
    # The frequency is f0 (1 - Re(m) / (2 pi q)), on the logarithmic scale of the bins a difference of logarithms; the
    # time is t + Im(m) / (2 pi sigma).
    scale = 1.0 / (2.0 * math.pi * grid.q)
    bins = rows["position"] - grid.noct / math.log(2.0) * _log1p(-scale * real, scale * _LARGEST_MOMENT)
    frames = part + rows["delay"] + imag * rows["moment"]
    bin0, frame0 = rows["bin"].astype(bins.dtype), frame.astype(bins.dtype)
    # Inside of the image as the authors count it: bins from 1 to `lowest_position`, samples from 1 to N.
    kept &= (bins > 1.0 - bin0) & (bins < grid.lowest_position - bin0)
    kept &= (frames >= 1.0 / grid.tdeci - frame0) & (frames < num_samples / grid.tdeci - frame0)
    # A frequency bin is centred on its whole position, a time bin begins at it. `promise_in_bounds` relies on what
    # is kept to lie inside the histogram.
    bins = jnp.floor(bins + 0.5).astype(jnp.int32) + (rows["bin"] - 1)
    frames = jnp.floor(frames).astype(jnp.int32) + frame
    spare = size + jnp.arange(frame.size, dtype=jnp.int32).reshape(frame.shape) % SPARE_CELLS
    cell = jnp.where(kept, bins * num_frames + frames, spare)

    energies, hits = sums
    energies = energies.at[cell.reshape(-1)].add(energy.reshape(-1), mode="promise_in_bounds")
    hits = hits.at[cell.reshape(-1)].add(1, mode="promise_in_bounds")
    return energies, hits


def _log1p(x, largest):
    """Computes log(1 + x), |x| <= `largest` < 1, to rounding: 2 artanh(x / (2 + x)) by a series, short for small x."""
    ratio = x / (2.0 + x)
    square = jnp.square(ratio)
    bound = (largest / (2.0 - largest)) ** 2
    num_terms = 1
    while bound**num_terms / (2 * num_terms + 1) > float(jnp.finfo(x.dtype).eps) / 4.0:
        num_terms += 1
    series = jnp.zeros_like(x)
    for i in reversed(range(num_terms)):
        series = series * square + 1.0 / (2 * i + 1)
    return 2.0 * ratio * series
