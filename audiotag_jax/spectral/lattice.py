"""Where linear reassignment looks at a clip: rows of centre frequencies, points in time, and the sums that reach them.

One row is the clip seen through a Gaussian window around a frequency f0. Its spectrum fills a narrow band, so that its
values at M evenly spaced times are one inverse FFT of length M over that band; a band wider than M folds onto it, which
is exact. Where M times sample the band well, short interpolation kernels give `factor` times as many for far less than
an FFT of their number costs. All of this is planned here in NumPy and double precision, once for a length of clip.
"""

import dataclasses
import functools
import math

import numpy as np

# Standard deviations at which a window ends: it is then 1e-8 of its peak in single, 3e-18 in double precision, below
# the rounding of either. An earlier end shows as an error in every cell; a later one only widens the bands, which cost
# as much as their width.
_WINDOW_ENDS_AT = {"float32": 6.0, "float64": 9.0}
_SAMPLED_WINDOW_ENDS_AT = 5.0  # 4e-6 of the peak, less than what sampling leaves out
# Interpolation between the values of an inverse FFT, in single precision only. Fewer taps, or fewer values over the
# row's band, raise the floor of the error under everything that a window sees.
_TAPS = 8
_LEAST_OVERSAMPLING = 1.3
_FACTORS = (4, 8, 16, 32, 64, 128)  # points a value that are tried
# The memory that `fit` plans with, in numbers of the working type. Too few, and a test finds that the compiled program
# exceeds `memory_mib`; too many, and clips are refused that would fit.
_CLIP_VALUES = 12  # numbers held or in flight for each sample of a clip
_TURN_VALUES = 8  # the same for each of its delayed spectra but the first
_POINT_VALUES = 36  # the same for each point worked on at once
_CELL_VALUES = 8  # the same for each cell of the histogram
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0  # its multiples modulo 1 leave the most even gaps, however many they are
# Neighbouring rows of wide bands nearly repeat each other: fewer rows with more points each give nearly the same sums.
# At most four become one, and only while a window's standard deviation still spans so many.
_LEAST_ROWS_A_SIGMA = 15.0


@dataclasses.dataclass(frozen=True)
class Grid:
    """The parameters of the published algorithm: frequencies are fractions of the sampling rate, times are samples.

    Raises ValueError for values that make no histogram.
    """

    q: float  # a window's standard deviation in time is q / f0
    tdeci: int  # samples a time bin
    over: int  # rows a frequency bin
    noct: float  # frequency bins an octave
    minf: float
    maxf: float

    def __post_init__(self):
        # Energy moves from f0 to f0 (1 - Re(m) / (2 pi q)) with |m| < 1/2: below q = 1 / (4 pi), below zero frequency.
        if not 0.08 <= self.q < math.inf:
            raise ValueError(f"q must be 0.08 or more, not {self.q!r}")
        for name in ("tdeci", "over"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value!r}")
        if not 0.2 <= self.noct < math.inf:  # below, the first rows' windows would be wider than any memory
            raise ValueError(f"noct must be above 0, at least 0.2 bins an octave, not {self.noct!r}")
        if not 0.0 < self.minf < self.maxf <= 0.5:
            note = " (a fraction of the sampling rate, not Hz)" if self.maxf > 0.5 else ""
            raise ValueError(f"minf and maxf must be 0 < minf < maxf <= 0.5{note}, not {self.minf!r} and {self.maxf!r}")
        if self.num_bins < 2:
            raise ValueError(f"noct {self.noct!r} leaves no bin between minf {self.minf!r} and maxf {self.maxf!r}")

    @property
    def lowest_position(self) -> float:
        """Where `minf` lies on the scale of the bins, which counts down from 1 at `maxf`."""
        return -self.noct * math.log2(self.minf / self.maxf) + 1.0  # the authors' formula, which counts bins from 1

    @property
    def num_bins(self) -> int:
        return math.ceil(self.lowest_position)

    def num_frames(self, num_samples: int) -> int:
        return -(-num_samples // self.tdeci)


@dataclasses.dataclass(frozen=True)
class Group:
    """Consecutive rows that are computed alike."""

    first: int
    last: int  # one past
    steps: int  # the length of the inverse FFTs
    factor: int  # points a step
    below: int  # how far the widest window reaches from its centre, in bins of the clip's FFT
    above: int
    unit_delay: float  # in samples

    @property
    def band(self) -> int:
        return self.below + 1 + self.above

    @property
    def num_points(self) -> int:
        return self.steps * self.factor

    def kernel(self) -> np.ndarray:
        return interpolation_kernel(self.factor, (2 * max(self.below, self.above) + 1) / self.steps)


@dataclasses.dataclass(frozen=True)
class Lattice:
    """All rows over one length of clip; the arrays are [rows], float64 or whole numbers."""

    groups: tuple[Group, ...]
    bin: np.ndarray  # of the clip's FFT, nearest to the centre frequency f0
    offset: np.ndarray  # f0 in bins, from `bin`
    sigma: np.ndarray  # of the window, in bins
    turn: np.ndarray  # the row's first point comes so many of its group's `unit_delay` after the clip's first sample
    moment: np.ndarray  # 1 / (2 pi sigma): samples that one unit of the imaginary part moves a point
    position: np.ndarray  # f0 on the scale of the bins
    num_turns: int
    points_a_hit: float  # points of the exact lattice that one of this lattice stands for


def fit(num_samples: int, num_cells: int, stride: float, num_values: float, wanted_points: int) -> tuple[int, int]:
    """Returns a lattice's `turns`, and how many points to work on at once, that keep within `num_values` numbers.

    Raises ValueError if nothing does, or if the histogram's `num_cells` cannot be numbered.
    """
    # `deposit` numbers cells in int32; the spare cells, far fewer than 2^16, follow the last one.
    if num_cells >= 2**31 - 2**16:
        raise ValueError(f"a histogram of {num_cells} cells is too large; raise tdeci")
    # Points of the longest row, which is worked on whole, by `turns` in order of preference. A sampled row has about
    # num_samples / stride of them, up to four times as many where rows are merged (`sampled_lattice`).
    if stride > 1:  # the more different delays the better
        points = dict.fromkeys((8, 4, 2, 1), 4.0 * num_samples / stride)
    else:  # the fewer parts of a row the better
        points = {turns: num_samples / turns for turns in range(1, 9) if num_samples % turns == 0}
    # What does not depend on how many points are worked on at once: the clip, its delayed spectra, the histogram.
    clip = _CLIP_VALUES * num_samples + _CELL_VALUES * num_cells
    fixed = {turns: clip + _TURN_VALUES * (turns - 1) * num_samples for turns in points}
    needed = {turns: fixed[turns] + _POINT_VALUES * points[turns] for turns in points}
    turns = next((turns for turns in needed if needed[turns] <= num_values), None)
    if turns is None:
        times = min(needed.values()) / num_values
        raise ValueError(f"{num_samples} samples need {times:.2g} times the memory that memory_mib allows")
    # Two of the longest rows at once where memory allows, since `_chunks` makes even numbers of rows.
    most = (num_values - fixed[turns]) / _POINT_VALUES
    return turns, int(min(max(wanted_points, 2 * points[turns]), most))


@functools.lru_cache(maxsize=16)
def exact_lattice(num_samples: int, grid: Grid, dtype: str, turns: int = 1) -> Lattice:
    """Plans every sample of every row; `turns`, a divisor of `num_samples`, cuts a row up into interleaved ones."""
    rows = np.repeat(np.arange(grid.num_bins * grid.over), turns)
    turn = np.tile(np.arange(turns), grid.num_bins * grid.over)
    points = np.full(len(rows), num_samples // turns)
    return _lattice(num_samples, grid, dtype, rows, points, turn, turns, _WINDOW_ENDS_AT[dtype])


@functools.lru_cache(maxsize=16)
def sampled_lattice(num_samples: int, grid: Grid, dtype: str, stride: float, turns: int = 8) -> Lattice:
    """Plans about one point in `stride` of the exact lattice.

    Neighbouring rows start at other moments, about a golden section apart: the points then fill the plane of times and
    frequencies evenly, whatever the shape of the cell that they are counted in. There are `turns` different delays.
    """
    num_rows = grid.num_bins * grid.over
    num_points = _smooth_multiple(num_samples / stride)
    # Rows are 1 / (over noct) octaves apart and sigma is f0 / (2 pi q): the number of rows in it is the same at all f0.
    rows_a_sigma = grid.over * grid.noct / (2.0 * np.pi * grid.q * math.log(2.0))
    merged = max(m for m in (1, 2, 4) if m == 1 or rows_a_sigma / m >= _LEAST_ROWS_A_SIGMA)
    # Wide bands are the expensive ones, as their FFTs cannot be short: fewer of them, with as many more points each.
    sigmas = _frequencies(grid, np.arange(num_rows)) / (2.0 * np.pi * grid.q) * num_samples
    num_narrow = int(np.searchsorted(2.0 * _SAMPLED_WINDOW_ENDS_AT * sigmas, num_points))
    wide = np.arange(num_narrow, num_rows - merged + 1, merged) + 0.5 * (merged - 1)
    rows = np.concatenate([np.arange(num_narrow), wide])
    points = np.concatenate([np.full(num_narrow, num_points), np.full(len(wide), num_points * merged)])
    turn = np.floor(np.arange(len(rows)) * _GOLDEN % 1.0 * turns).astype(np.int64)
    return _lattice(num_samples, grid, dtype, rows, points, turn, turns, _SAMPLED_WINDOW_ENDS_AT)


def _lattice(num_samples, grid, dtype, rows, points, turn, num_turns, ends_at):
    frequencies = _frequencies(grid, rows)
    # A Gaussian of standard deviation q / f0 in time has one of f0 / (2 pi q) in frequency: constant q.
    sigmas = frequencies / (2.0 * np.pi * grid.q)
    bins = np.round(frequencies * num_samples).astype(np.int64)
    reaches = np.floor(ends_at * sigmas * num_samples).astype(np.int64) + 1
    below = np.minimum(reaches, bins + num_samples // 2)  # signed frequencies end at half the sampling rate
    above = np.maximum(0, np.minimum(reaches, (num_samples - 1) // 2 - bins))
    # Interpolation kernels are made for bands symmetric around zero, so the wider side of a band counts on both sides.
    factors = _factors(points, 2 * np.maximum(below, above) + 1, interpolate=dtype == "float32")
    # A group is a run of rows with FFTs of one length; its band is the widest of its rows: they share one shape.
    edges = [0, *(np.flatnonzero((np.diff(points) != 0) | (np.diff(factors) != 0)) + 1), len(rows)]
    groups = [
        Group(
            first=int(a),
            last=int(b),
            steps=int(points[a] // factors[a]),
            factor=int(factors[a]),
            below=int(below[a:b].max()),
            above=int(above[a:b].max()),
            unit_delay=num_samples / int(points[a]) / num_turns,  # one sample in the exact lattice
        )
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    return Lattice(
        groups=tuple(groups),
        bin=bins,
        offset=frequencies * num_samples - bins,
        sigma=sigmas * num_samples,
        turn=turn,
        moment=1.0 / (2.0 * np.pi * sigmas),
        position=-grid.noct * np.log2(frequencies / grid.maxf) + 1.0,
        num_turns=num_turns,
        points_a_hit=num_samples * grid.num_bins * grid.over / points.sum(),
    )


@functools.lru_cache(maxsize=256)
def interpolation_kernel(factor: int, band: float) -> np.ndarray:
    """Returns weights [taps, factor] of samples, `taps / 2 - 1` before to `taps / 2` after, for points between two.

    Column i belongs to the point i / `factor` after a sample. They are least-squares fits over the `band`, a share of
    the sampling rate around zero; frequencies matter as a Gaussian window weighs them that ends, with the band, at
    five standard deviations.
    """
    frequencies = np.linspace(-0.5, 0.5, 401)
    weight = np.exp(-0.5 * np.square(2.0 * frequencies * _SAMPLED_WINDOW_ENDS_AT)) + 1e-9
    taps = np.arange(_TAPS) - (_TAPS // 2 - 1)
    kernel = np.empty((_TAPS, factor))
    for i in range(factor):
        phases = 2.0 * np.pi * band * frequencies[:, None] * (taps - i / factor)
        system = np.concatenate([np.cos(phases) * weight[:, None], np.sin(phases) * weight[:, None]])
        kernel[:, i] = np.linalg.lstsq(system, np.concatenate([weight, 0.0 * weight]), rcond=None)[0]
    return kernel


def _frequencies(grid, rows):
    return grid.minf * 2.0 ** (rows / (grid.over * grid.noct))


def _factors(points, bands, *, interpolate):
    """Returns the most points a step, [rows], that leave enough steps to sample each row's band."""
    # Steps are periodic: of fewer than `_TAPS`, a kernel would use one value twice.
    usable = {int(n): _divisors(int(n)) if interpolate else [] for n in np.unique(points)}
    return np.array(
        [
            max([1, *(f for f in usable[int(n)] if n // f >= max(_TAPS, _LEAST_OVERSAMPLING * k))])
            for n, k in zip(points, bands, strict=True)
        ]
    )


def _divisors(number):
    """Returns the largest divisors of `number` up to each of `_FACTORS`; fewer than three points a step do not pay."""
    largest = (max(d for d in range(1, factor + 1) if number % d == 0) for factor in _FACTORS)
    return sorted({d for d in largest if d > 2})


def _smooth_multiple(at_least):
    """Returns the least 256 * 2^a * 3^b * 5^c not below `at_least`: fast for FFTs, and every factor divides it."""
    number = max(1, math.ceil(at_least / 256))
    while not _is_smooth(number):
        number += 1
    return 256 * number


def _is_smooth(number):
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1
