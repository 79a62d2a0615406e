"""Linear reassignment: sparse spectrograms, in which a window's energy moves to the time and frequency it came from.

T. J. Gardner and M. O. Magnasco, "Sparse time-frequency representations", PNAS 103(16), 6094-6099, 2006. For Gaussian
windows of constant q around log-spaced frequencies f0, the spectrum weighed by the window and by its first moment gives
m = eta / xi at every sample, a complex number that says how far the energy |xi|^2 lies from the window's centre: its
imaginary part in time, its real part in frequency. Energies are summed where they belong, in cells of a histogram.

In single precision the sum of n equal energies may be off by n * 6e-8: for time bins of many thousands of samples,
enable double precision. Cells that few points reach are set to zero. Around clicks in digital silence, exact zeros,
the points elsewhere are rounding errors, and where these go decides how many are few: in single precision whole cells
may be lost or kept (relative errors of 0.2 to 1 were seen for a lone impulse, 0.005 even in double precision). Noise
of 1e-6 of the click's height under it is enough for single precision; a stride above 1 stays as coarse (0.05 to 1.2).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.spectral import arguments
from audiotag_jax.spectral import lattice as lattices
from audiotag_jax.spectral.histogram import SPARE_CELLS, deposit
from audiotag_jax.spectral.lattice import Grid

DEFAULT_MEMORY_MIB = 4096
_POINTS_AT_ONCE = 2**24  # fill an accelerator; more only take memory
_POINTS_AT_ONCE_ON_CPU = 90_000  # stay in a core's cache


def high_resolution_spectrogram(x, q, tdeci, over, noct, minf, maxf, *, stride=1, memory_mib=DEFAULT_MEMORY_MIB):
    """Computes the reassigned energies [T, F] >= 0 of `x` [N] or [N, channels]; F descends from `maxf` to `minf`.

    Args:
      x: real and finite samples, taken as they are (int16 is not rescaled); at most 32 channels share one histogram.
        float64 stays so where JAX has it enabled, anything else becomes float32.
      q: duration of the windows: their standard deviation is `q` / f0 samples in time. A small one is sharp in time,
        for clicks, a large one in frequency, for steady tones.
      tdeci: samples a time bin; T = ceil(N / tdeci).
      over: centre frequencies, that is windows, a frequency bin.
      noct: frequency bins an octave; F = ceil(1 - noct * log2(minf / maxf)).
      minf: lowest frequency, a fraction of the sampling rate.
      maxf: highest frequency, the same, at most 0.5.
      stride: 1 computes every sample of every window, as published. More, up to 100, computes about one point in
        `stride`, evenly spread: so much faster, with errors that `benchmarks/reassignment.py` prints.
      memory_mib: bound on the memory that is worked in, in MiB.

    Raises:
      ValueError: for parameters without meaning, for `x` of another shape or with NaN or infinity in it, and where
        `memory_mib` is too little, with what would do. Inside `jax.jit`, where samples are not known, a channel with
        NaN or infinity counts as silence.

    Bin b of F is centred on maxf * 2 ** (-b / noct); bin 0 has only its lower half, and the last stays empty where
    minf lies above its upper edge, as in the default images. (Images of `features.spectrograms` ascend instead.) Time
    bins count from 0 where the authors' count from 1. Silence gives zeros. Energies are relative: they grow with
    `over` and depend on `q`. Channels' energies are added, so that opposite phases do not cancel. Each new length of
    `x` is compiled, for some seconds: pad recordings of many lengths to one. The module's docstring states the errors.
    """
    channels = arguments.one_recording(x)
    return _spectrograms(channels[None], _grid(q, tdeci, over, noct, minf, maxf), stride, memory_mib)[0]


def high_resolution_spectrograms(
    waveforms, q, tdeci, over, noct, minf, maxf, *, stride=1, memory_mib=DEFAULT_MEMORY_MIB
):
    """Maps one-channel clips, `waveforms` [B, N], to spectrograms [B, T, F]; see `high_resolution_spectrogram`.

    Values are not checked, inside `jax.jit` or out: a clip with NaN or infinity counts as silence.
    """
    waveforms = arguments.real_samples("waveforms", waveforms)
    if waveforms.ndim != 2 or 0 in waveforms.shape:
        raise ValueError(f"waveforms must be [clips, samples], one or more of each, not {waveforms.shape}")
    return _spectrograms(waveforms[:, None], _grid(q, tdeci, over, noct, minf, maxf), stride, memory_mib)


def _grid(q, tdeci, over, noct, minf, maxf):
    whole, real = arguments.whole_number, arguments.number
    return Grid(
        q=real("q", q),
        tdeci=whole("tdeci", tdeci),
        over=whole("over", over),
        noct=real("noct", noct),
        minf=real("minf", minf),
        maxf=real("maxf", maxf),
    )


def _spectrograms(channels, grid, stride, memory_mib):
    """Maps waveforms [B, channels, N] to spectrograms [B, T, F]."""
    stride = arguments.stride_number(stride)
    wanted = _POINTS_AT_ONCE_ON_CPU if jax.default_backend() == "cpu" else _POINTS_AT_ONCE
    num_values = arguments.memory_bytes(memory_mib) / channels.dtype.itemsize
    num_cells = grid.num_frames(channels.shape[-1]) * grid.num_bins
    turns, points_at_once = lattices.fit(channels.shape[-1], num_cells, stride, num_values, wanted)
    return _compiled(channels, grid, stride, turns, points_at_once)


@functools.partial(jax.jit, static_argnames=("grid", "stride", "turns", "points_at_once"))
def _compiled(channels, grid, stride, turns, points_at_once):
    make = lattices.exact_lattice if stride == 1 else functools.partial(lattices.sampled_lattice, stride=stride)
    lattice = make(channels.shape[-1], grid, channels.dtype.name, turns=turns)
    one = functools.partial(_spectrogram, grid=grid, lattice=lattice, points_at_once=points_at_once)
    return jax.lax.map(one, channels)


def _spectrogram(channels, grid, lattice, points_at_once):
    """Maps the waveforms [channels, N] of a clip to a spectrogram [T, F]."""
    num_samples = channels.shape[-1]
    num_frames = grid.num_frames(num_samples)
    size = num_frames * grid.num_bins
    # Energies are squares: a quiet clip would soon leave single precision's range. The scale is restored at the end.
    peak = jnp.max(jnp.abs(channels))
    channels = channels / jnp.where(peak > 0.0, peak, 1.0)
    sums = (jnp.zeros(size + SPARE_CELLS, channels.dtype), jnp.zeros(size + SPARE_CELLS, jnp.int32))
    for waveform in channels:
        sums = _add_channel(sums, waveform, grid, lattice, points_at_once)
    energies, hits = (total[:size] for total in sums)
    # The published threshold: cells with fewer hits than the square root of the most are zero. A point of a sampled
    # lattice stands for `points_a_hit` of the exact one, for which the threshold is stated.
    enough = hits >= jnp.sqrt(jnp.max(hits).astype(channels.dtype) / lattice.points_a_hit)
    image = jnp.where(enough & (energies > 0.0), energies * (jnp.square(peak) * lattice.points_a_hit), 0.0)
    return image.reshape(grid.num_bins, num_frames).T


def _add_channel(sums, waveform, grid, lattice, points_at_once):
    """Adds the energies and hits of one channel [N] to those of the histogram; returns the new sums."""
    num_samples = waveform.shape[-1]
    # Every row reads a slice of the same padded spectrum, in the order of signed frequencies.
    below = max(group.below for group in lattice.groups)
    # Rows near half the sampling rate reach beyond it: there, as below, must be zeros to read.
    ends = (int(lattice.bin[g.first : g.last].max()) + g.above for g in lattice.groups)
    above = max(0, *(end - (num_samples - 1) // 2 for end in ends))
    spectrum = jnp.fft.fftshift(jnp.fft.fft(waveform)) / num_samples  # inverse FFTs of any length then need no scale
    spectrum = jnp.pad(spectrum, (below, above))  # zeros beyond the signed frequencies
    # Signed frequencies of the spectrum, in bins of the clip's FFT; the padding continues their count.
    bins = jnp.arange(len(spectrum)) - (num_samples // 2 + below)
    # Groups with as many points look at the same times, and share them and the delayed spectra.
    by_points = {group.num_points: group for group in lattice.groups}
    times = {n: _times(num_samples, n, grid, waveform.dtype) for n in by_points}
    turned = {n: _turned(spectrum, bins, g.unit_delay / num_samples, lattice.num_turns) for n, g in by_points.items()}
    for group in lattice.groups:
        frames = [array.reshape(group.steps, group.factor).T for array in times[group.num_points]]
        index = _chunks(np.arange(group.first, group.last), group.num_points, points_at_once)
        rows = _rows(lattice, index, group.unit_delay / grid.tdeci, grid, waveform.dtype)
        rows["start"] = (lattice.bin[index] + (num_samples // 2 + below - group.below)).astype(np.int32)
        windowed = functools.partial(_windowed, spectra=turned[group.num_points], group=group)
        sums = _scan(sums, rows, windowed, frames, grid, num_samples)
    return sums


def _chunks(numbers, num_points, points_at_once):
    """Returns row numbers [chunks, rows at once], as many as fit; -1 fills up the last chunk."""
    # A scan needs chunks of one shape; rows that only fill up are computed too, but `deposit` leaves them out.
    at_once = min(max(1, points_at_once // num_points), len(numbers))
    at_once -= at_once % 2 if at_once > 1 else 0  # an even number shares out over two cores
    num_chunks = -(-len(numbers) // at_once)
    filled = np.full(num_chunks * at_once, -1)
    filled[: len(numbers)] = numbers
    return filled.reshape(num_chunks, at_once)


def _turned(spectrum, bins, turns_a_bin, num_turns):
    """Returns spectra [turns, bins] of the clip shifted to earlier times, by 0, 1, 2, ... times the unit delay.

    A point of the shifted clip is a point between those of the clip itself: by the shift theorem, without more FFTs.
    """
    angles = bins.astype(spectrum.real.dtype) * (2.0 * math.pi * turns_a_bin)
    turn = jax.lax.complex(jnp.cos(angles), jnp.sin(angles))
    spectra = [spectrum]
    for _ in range(num_turns - 1):
        spectra.append(spectra[-1] * turn)
    return jnp.stack(spectra)


def _times(num_samples, num_points, grid, dtype):
    """Returns time bins [L], whole ones from 0 and the rest, of a row's points, which the authors count from 1."""
    # Point i is at sample 1 + i * num_samples / num_points. Only fractions, and places within a time bin, are floats:
    # in single precision, a place near sample 10^5 would be rounded by up to 4e-3 of a sample, and later ones by more.
    index = jnp.arange(num_points, dtype=jnp.int32)
    whole, part = divmod(num_samples, num_points)
    extra = index.astype(dtype) * (part / num_points)
    extra_whole = jnp.floor(extra)
    sample = 1 + index * whole + extra_whole.astype(jnp.int32)
    frame = sample // grid.tdeci
    return frame, ((sample - frame * grid.tdeci).astype(dtype) + (extra - extra_whole)) / grid.tdeci


def _rows(lattice, index, unit_delay, grid, dtype):
    """Returns what the rows numbered in `index` need, of its shape each; rows numbered below 0 are not `live`."""
    # Rounded in double precision, so that what remains is at most half a bin and keeps its digits in single precision.
    nearest = np.round(lattice.position)
    # In the paper's terms: f0 from the nearest bin of the FFT and 1 / sigma, both in these bins; the row's delay and
    # the time that one unit of Im(m) moves a point, both in time bins; and f0 on the log axis, from its nearest bin.
    columns = {
        "offset": lattice.offset,
        "per_sigma": 1.0 / lattice.sigma,
        "delay": lattice.turn * unit_delay,
        "moment": lattice.moment / grid.tdeci,
        "position": lattice.position - nearest,
    }
    whole = {"bin": nearest, "turn": lattice.turn}
    rows = {name: column[index].astype(dtype) for name, column in columns.items()}
    return rows | {name: column[index].astype(np.int32) for name, column in whole.items()} | {"live": index >= 0}


def _scan(sums, rows, values, times, grid, num_samples):
    def add(sums, rows):
        return deposit(sums, rows, values(rows), times, grid, num_samples), None

    return jax.lax.scan(add, sums, rows)[0]


def _windowed(rows, spectra, group):
    """Computes real and imaginary parts [2, R, factor, steps] of xi and eta, up to a phase that both have in common."""
    # Frequencies from the row's nearest bin of the FFT: moving a band to zero multiplies xi and eta by one phase, which
    # cancels in m = eta / xi and in |xi|^2. `moment` is the distance from f0 in standard deviations of the window.
    bins = jnp.arange(-group.below, group.above + 1)
    moment = (bins - rows["offset"][:, None]) * rows["per_sigma"][:, None]
    window = jnp.exp(-0.5 * jnp.square(moment))
    cut = jax.vmap(lambda turn, start: jax.lax.dynamic_slice(spectra, (turn, start), (1, group.band))[0])
    zeroth = window * cut(rows["turn"], rows["start"])
    bands = jnp.stack([zeroth, -moment * zeroth])  # the spectra of xi and, with the authors' sign, of eta
    if group.band <= group.steps:
        # Frequencies around zero, where the interpolation is at its best.
        gap = jnp.zeros((*bands.shape[:-1], group.steps - group.band), bands.dtype)
        bands = jnp.concatenate([bands[..., group.below :], gap, bands[..., : group.below]], axis=-1)
    else:
        # Fewer times than bins: values at every (band / steps)th time are the inverse FFT of the spectrum folded onto
        # `steps` bins, exactly.
        folds = -(-group.band // group.steps)
        bands = jnp.pad(bands, ((0, 0), (0, 0), (0, folds * group.steps - group.band)))
        bands = jnp.sum(bands.reshape(*bands.shape[:-1], folds, group.steps), axis=-2)
    values = jnp.fft.ifft(bands, norm="forward")
    if group.factor == 1:
        return values.real[:, :, None], values.imag[:, :, None]
    # `factor` points a value, by kernels over neighbouring values; these are periodic, as the clip is to its FFT.
    kernel = jnp.asarray(group.kernel(), values.real.dtype)
    before = kernel.shape[0] // 2 - 1
    values = jnp.concatenate([values[..., values.shape[-1] - before :], values, values[..., : before + 1]], axis=-1)
    shifted = jnp.stack([values[..., i : i + group.steps] for i in range(kernel.shape[0])], axis=-2)
    between = functools.partial(jnp.einsum, "tf,crts->crfs", kernel, precision=jax.lax.Precision.HIGHEST)
    return between(shifted.real), between(shifted.imag)
