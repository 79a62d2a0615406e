"""Against the authors' own run, and against a slow transcription of the definition in double precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from audiotag_jax.spectral import reassignment
from audiotag_jax.spectral.lattice import Grid, fit, interpolation_kernel
from audiotag_jax.spectral.reassignment import high_resolution_spectrogram, high_resolution_spectrograms

GRID = {"q": 2.0, "tdeci": 45, "over": 4, "noct": 12.0, "minf": 0.0207, "maxf": 0.4507}  # on no bin of an FFT
COARSE = GRID | {"over": 2, "noct": 3.0}  # soon compiled


def oracle(x, q, tdeci, over, noct, minf, maxf):
    """One window and one sample after the other, as the publication defines it: [T, F] energies."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    num_samples = len(x)
    num_frames = int(np.ceil(num_samples / tdeci))
    num_bins = int(np.ceil(-noct * np.log2(minf / maxf) + 1))
    energies, hits = np.zeros((num_frames, num_bins)), np.zeros((num_frames, num_bins))
    f = np.fft.fftfreq(num_samples)
    t = np.arange(1, num_samples + 1)
    for channel in x.T:
        spectrum = np.fft.fft(channel)
        for k in range(num_bins * over):
            f0 = minf * 2 ** (k / over / noct)
            sigma = f0 / (2 * np.pi * q)
            window = np.exp(-((f - f0) ** 2) / (2 * sigma**2))
            xi = np.fft.ifft(window * spectrum)
            eta = np.fft.ifft(-(f - f0) / sigma * window * spectrum)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                m = eta / xi
            new_t, new_f = t + m.imag / (2 * np.pi * sigma), f0 - m.real * sigma
            kept = (np.abs(m) < 0.5) & (new_f > minf) & (new_f < maxf) & (new_t >= 1) & (new_t < num_samples)
            row = np.floor(new_t[kept] / tdeci + 0.5 + 0.5).astype(int) - 1
            row = np.minimum(row, num_frames - 1)  # a moment before the end of a clip of whole frames
            column = np.floor(-noct * np.log2(new_f[kept] / maxf) + 1 + 0.5).astype(int) - 1
            np.add.at(energies, (row, column), np.abs(xi[kept]) ** 2)
            np.add.at(hits, (row, column), 1)
    return np.where(hits < np.sqrt(hits.max()), 0.0, energies)


def noise(num_samples, channels=()):
    return np.random.default_rng(num_samples).standard_normal((num_samples, *channels))


def chirp(num_samples):
    t = np.arange(num_samples)
    return np.sin(2 * np.pi * (0.02 + 0.15 * t / num_samples) * t)


def clicks(num_samples):
    x = np.zeros(num_samples)
    x[[num_samples // 5, num_samples // 3 + 1, num_samples // 2 + 7]] = 1.0, -0.5, 0.25
    return x


def difference(ours, reference):
    return np.linalg.norm(ours - reference) / np.linalg.norm(reference)


def above_rounding(image):
    """Without cells that hold the rounding errors of FFTs only, as far from clicks and chirps."""
    return np.where(image > 1e-25 * image.max(), image, 0.0)


SIGNALS = {
    "noise": noise(1260),
    "prime length": noise(1009),
    "two channels": noise(701, (2,)),
    "chirp": chirp(1260),
    "clicks": clicks(1260),
    "chirp in half a clip": np.concatenate([np.zeros(600), chirp(660)]),
    "very quiet": 1e-12 * noise(1260),
}


@pytest.mark.parametrize("q", [1.0, 8.0])
@pytest.mark.parametrize("name", SIGNALS)
def test_double_precision_is_the_definition(name, q):
    x, grid = SIGNALS[name], GRID | {"q": q}
    reference = oracle(x, **grid)
    with jax.enable_x64(True):
        ours = np.asarray(high_resolution_spectrogram(x, **grid))
    assert ours.dtype == np.float64
    assert ours.shape == reference.shape
    reference, ours = above_rounding(reference), above_rounding(ours)
    assert difference(ours, reference) < 1e-12
    np.testing.assert_array_equal(ours > 0.0, reference > 0.0)


UP_TO_HALF = [GRID | {"q": q, "over": 10, "noct": 26.2, "maxf": 0.5} for q in (1, 8)]
UP_TO_HALF += [{"q": 2.0, "tdeci": 45, "over": 10, "noct": 2.0, "minf": 0.3, "maxf": 0.5}]
UP_TO_HALF += [{"q": 0.1, "tdeci": 45, "over": 3, "noct": 3.0, "minf": 0.45, "maxf": 0.5}]


@pytest.mark.parametrize("num_samples", [2205, 1891])
@pytest.mark.parametrize("grid", UP_TO_HALF, ids=lambda grid: f"{grid['q']} {grid['noct']}")
def test_rows_that_reach_beyond_half_the_sampling_rate(grid, num_samples):
    """As in the images: the first rows lie above `maxf`."""
    x = noise(num_samples)
    reference = oracle(x, **grid)
    with jax.enable_x64(True):
        ours = np.asarray(high_resolution_spectrogram(x, **grid))
    assert difference(ours, reference) < 1e-12
    np.testing.assert_array_equal(ours > 0.0, reference > 0.0)
    single = np.asarray(high_resolution_spectrogram(x, **grid))
    assert difference(single, reference) < 1e-3


@pytest.mark.parametrize("q", [1.0, 8.0])
@pytest.mark.parametrize("name", ["noise", "prime length", "two channels", "chirp", "very quiet"])
def test_single_precision(name, q):
    """Most lengths have divisors, so that this also meets interpolated rows."""
    ours = np.asarray(high_resolution_spectrogram(SIGNALS[name], **GRID | {"q": q}))
    assert ours.dtype == np.float32
    assert difference(ours, oracle(SIGNALS[name], **GRID | {"q": q})) < 2e-4


def test_authors_matlab(shared_data):
    """Thirty-two frames of their run, all frequencies: double precision has the same cells, single is close to it.

    Computed from these frames and sixteen on either side: the longest windows end there, at ten standard deviations
    and more. The other samples decide on which side of a border between cells a few points fall.
    """
    run = scipy.io.loadmat(shared_data / "reassignment" / "matlab_reference.mat")
    grid = {name: run[name].item() for name in ("q", "tdeci", "over", "noct", "minf", "maxf")}
    first, frames, around = 300, 32, 16
    x = run["x"][(first - around) * grid["tdeci"] : (first + frames + around) * grid["tdeci"]]
    reference = run["result"].toarray()[first : first + frames]
    single = np.asarray(high_resolution_spectrogram(x.astype(np.float32), **grid))[around:-around]
    assert difference(single, reference) < 1e-4
    with jax.enable_x64(True):
        double = np.asarray(high_resolution_spectrogram(x, **grid))[around:-around]
    assert difference(double, reference) < 1e-5
    assert np.isclose(double, reference, rtol=1e-9, atol=0).mean() > 0.9
    np.testing.assert_array_equal(double > 0.0, reference > 0.0)


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize(
    "x", [np.zeros(500), np.ones(1), np.zeros(1), -np.ones(3)], ids=lambda x: f"{len(x)} times {x[0]}"
)
def test_nothing_to_see_gives_zeros(x, stride):
    with jax.debug_nans(True):
        image = np.asarray(high_resolution_spectrogram(x, **GRID, stride=stride))
    assert image.shape == (-(-len(x) // 45), 55)
    np.testing.assert_array_equal(image, 0.0)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_constant_has_no_energy_beyond_rounding(stride):
    with jax.debug_nans(True):
        image = np.asarray(high_resolution_spectrogram(np.ones(1000), **GRID, stride=stride))
    assert np.sum(image) < 1e-12 * 1000.0


@pytest.mark.parametrize("stride", [1, 3.7])
@pytest.mark.parametrize("name", ["noise", "prime length", "clicks", "chirp in half a clip", "very quiet"])
def test_never_nan(name, stride):
    with jax.debug_nans(True):
        image = np.asarray(high_resolution_spectrogram(SIGNALS[name], **GRID, stride=stride))
    assert np.all(image >= 0.0)
    assert np.any(image > 0.0)


def test_batch_is_each_clip():
    waveforms = np.stack([noise(1260), chirp(1260), clicks(1260), np.zeros(1260)]).astype(np.float32)
    for stride in (1, 4):
        batch = np.asarray(high_resolution_spectrograms(waveforms, **COARSE, stride=stride))
        alone = [high_resolution_spectrogram(waveform, **COARSE, stride=stride) for waveform in waveforms]
        # Other fusions round otherwise, and a point on the border of two cells then changes sides.
        assert [difference(a, np.asarray(b)) < 1e-3 for a, b in zip(batch[:3], alone[:3], strict=True)] == [True] * 3
        np.testing.assert_array_equal(batch[3], 0.0)


def test_rows_dealt_out_are_the_same_rows():
    """What little memory makes of the exact form."""
    with jax.enable_x64(True):
        x = jnp.asarray(noise(1260)[None, None])
        whole = reassignment._compiled(x, Grid(**GRID), 1.0, 1, 90_000)
        dealt = reassignment._compiled(x, Grid(**GRID), 1.0, 5, 700)
    assert difference(np.asarray(dealt), np.asarray(whole)) < 1e-12


@pytest.mark.parametrize(
    ("num_samples", "num_frames", "stride"),
    [(600 * 22050, 224, 1), (600 * 22050 - 11, 224, 1), (600 * 22050, 224, 8), (441_000, 441_000, 1)],
)
def test_memory_keeps_within_the_bound(num_samples, num_frames, stride):
    """Ten minutes, of a number of samples with divisors and of one without; many more cells than samples."""
    memory_mib = reassignment.DEFAULT_MEMORY_MIB
    grid = Grid(2.0, -(-num_samples // num_frames), 10, 26.2, 1.4e-3, 0.5)
    num_cells = grid.num_frames(num_samples) * grid.num_bins
    turns, points = fit(num_samples, num_cells, stride, memory_mib * 2**20 / 4, 90_000)
    clip = jax.ShapeDtypeStruct((1, 1, num_samples), jnp.float32)
    compiled = reassignment._compiled.lower(clip, grid, float(stride), turns, points).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < memory_mib * 2**20


def test_too_many_cells():
    with pytest.raises(ValueError, match=r"a histogram of \d+ cells is too large; raise tdeci"):
        high_resolution_spectrogram(np.zeros(600 * 22050, np.float32), **GRID | {"tdeci": 1, "noct": 100.0})


def test_too_little_memory():
    with pytest.raises(ValueError, match=r"50000 samples need [\d.]+ times the memory that memory_mib allows"):
        high_resolution_spectrogram(np.zeros(50_000), **GRID, memory_mib=1)


def decibels(image):
    return 10.0 * np.log10(np.maximum(image / image.max(), 1e-8))


@functools.cache
def usual_image(signal, q, stride):
    grid = {"q": q, "tdeci": 197, "over": 10, "noct": 26.2, "minf": 1.4e-3, "maxf": 0.5}
    return np.asarray(high_resolution_spectrogram(signal(11025), **grid, stride=stride))


@pytest.mark.parametrize(
    ("x", "q", "stride", "error"),
    [
        (noise, 1, 3, 0.04),
        (noise, 1, 8, 0.055),
        (noise, 8, 8, 0.03),
        (chirp, 2, 8, 0.02),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_sampled_is_near_exact(x, q, stride, error):
    """At the usual grid, of noise, which fills every cell thinly, and of a chirp."""
    exact, sampled = usual_image(x, q, 1), usual_image(x, q, stride)
    assert difference(sampled, exact) < error
    assert np.corrcoef(decibels(sampled).ravel(), decibels(exact).ravel())[0, 1] > 0.985
    np.testing.assert_allclose(sampled.sum(), exact.sum(), rtol=0.01)


def test_a_tone_and_a_click_return_to_their_cells():
    """Closed form: a tone's energy is at its own frequency in every frame, a click's at its own time."""
    tone = np.cos(2 * np.pi * 0.1 * np.arange(2000))
    image = np.asarray(high_resolution_spectrogram(tone, **GRID))
    at = round(-12.0 * np.log2(0.1 / 0.4507) + 1) - 1
    assert image[5:-5, at].sum() > 0.999 * image[5:-5].sum()
    click = np.zeros(2000)
    click[1001] = 1.0
    image = np.asarray(high_resolution_spectrogram(click, **GRID))
    assert image[1002 // 45].sum() > 0.999 * image.sum()


def test_too_loud_for_single_precision_is_no_nan():
    image = np.asarray(high_resolution_spectrogram(1e20 * noise(800), **GRID))
    assert np.all(image >= 0.0)
    assert np.any(image == 0.0)


def test_amplitude_scales_energy():
    quiet, loud = (np.asarray(high_resolution_spectrogram(a * noise(800), **GRID)) for a in (1.0, 1024.0))
    np.testing.assert_allclose(loud, quiet * 2.0**20, rtol=1e-6)


@pytest.mark.parametrize("factor", [4, 7, 64])
def test_interpolation_within_a_window(factor):
    """A tone within the band: the points between are the tone's, but for what its weight in a window makes small."""
    kernel = interpolation_kernel(factor, 1 / 1.3)
    for share in (0.0, 0.1, -0.2, 0.3, -0.4):
        frequency = share / 1.3
        samples = np.exp(2j * np.pi * frequency * np.arange(-3, 5))
        expected = np.exp(2j * np.pi * frequency * np.arange(factor) / factor)
        weight = np.exp(-0.5 * (2 * share * 5) ** 2)
        np.testing.assert_allclose(samples @ kernel, expected, atol=2.5e-5 / weight)


BAD = [
    ({"q": 0.07}, "q must be 0.08 or more"),
    ({"tdeci": 0}, "tdeci must be 1 or more, not 0"),
    ({"tdeci": 1.5}, "tdeci must be a whole number, not 1.5"),
    ({"over": 0}, "over must be 1 or more"),
    ({"noct": 0.0}, "noct must be above 0"),
    ({"minf": 0.0}, "0 < minf < maxf <= 0.5"),
    ({"maxf": 0.6}, "0 < minf < maxf <= 0.5"),
    ({"stride": 0.5}, "stride must be 1 or more"),
    ({"x": np.zeros((2, 3, 4))}, r"x must be \[samples\]"),
    ({"x": np.zeros(0)}, r"x must be \[samples\]"),
    ({"x": np.zeros(5, complex)}, "real samples"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        high_resolution_spectrogram(**{"x": np.zeros(10)} | GRID | changes)


def test_bad_batch():
    with pytest.raises(ValueError, match=r"waveforms must be \[clips, samples\]"):
        high_resolution_spectrograms(np.zeros(10), **GRID)


BAD_ONES = [
    ({"x": np.zeros((2, 2000))}, r"x is \[samples\] or \[samples, channels\]; \(2, 2000\) looks transposed: give x.T"),
    ({"x": np.zeros((2000, 33))}, r"at most 32 channels, not \(2000, 33\)"),
    ({"x": "my.wav"}, "x must hold numbers, not str"),
    ({"x": np.array(["1", "2"])}, "x must hold numbers, not <U1"),
    ({"x": None}, "x must hold numbers, not NoneType"),
    ({"x": np.ones(10, bool)}, "x must hold numbers, not bool"),
    ({"x": [2**40]}, "x must hold numbers"),
    ({"x": np.array([0.0, np.nan])}, "x contains NaN or infinity"),
    ({"x": jnp.array([0.0, -jnp.inf])}, "x contains NaN or infinity"),
    ({"x": np.array([1e300])}, r"x contains NaN or infinity \(as float32\)"),
    ({"x": np.array([[0.0, 1.0], [0.0, np.inf]])}, "x contains NaN or infinity"),
    ({"memory_mib": 0}, "memory_mib must be above 0, not 0.0"),
    ({"memory_mib": -5}, "memory_mib must be above 0, not -5.0"),
    ({"memory_mib": np.nan}, "memory_mib must be above 0, not nan"),
    ({"memory_mib": None}, "memory_mib must be a number, not None"),
    ({"noct": 1e-20}, "noct must be above 0, at least 0.2 bins an octave, not 1e-20"),
    ({"noct": 0.1}, "noct must be above 0"),
    ({"noct": 0.2, "minf": 0.5 - 5e-17, "maxf": 0.5}, r"noct 0.2 leaves no bin between minf 0.4999\d* and maxf 0.5"),
    ({"tdeci": np.inf}, "tdeci must be a whole number, not inf"),
    ({"tdeci": np.nan}, "tdeci must be a whole number, not nan"),
    ({"tdeci": None}, "tdeci must be a number, not None"),
    ({"tdeci": 2**31}, "tdeci must be below 2.31, not 2147483648"),
    ({"over": True}, "over must be a number, not True"),
    ({"q": None}, "q must be a number, not None"),
    ({"q": "2"}, "q must be a number, not '2'"),
    ({"q": [1, 2]}, r"q must be a number, not \[1, 2\]"),
    ({"minf": None}, "minf must be a number, not None"),
    ({"maxf": 11025}, r"<= 0.5 \(a fraction of the sampling rate, not Hz\), not 0.0207 and 11025.0"),
    ({"stride": None}, "stride must be a number, not None"),
    ({"stride": "8"}, "stride must be a number, not '8'"),
    ({"stride": 101}, "stride must be 1 or more, at most 100, not 101.0"),
    ({"stride": np.nan}, "stride must be 1 or more"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_ONES)
def test_bad_arguments_give_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as raised, np.errstate(over="ignore"):
        high_resolution_spectrogram(**{"x": np.zeros(10)} | GRID | changes)
    assert "\n" not in str(raised.value)


def test_numbers_of_other_types_are_the_same_numbers():
    x = (1000 * noise(300)).astype(np.int16)
    reference = np.asarray(high_resolution_spectrogram(x.astype(np.float32), **COARSE, stride=4))
    others = {"q": np.float32(2), "tdeci": 45.0, "over": np.int64(2), "noct": jnp.asarray(3)}
    image = high_resolution_spectrogram(list(map(int, x)), **COARSE | others, stride=np.array(4), memory_mib=np.inf)
    np.testing.assert_array_equal(image, reference)
    assert reference.any()


def test_a_channel_with_nan_is_silent_where_nothing_can_be_raised():
    jitted = jax.jit(functools.partial(high_resolution_spectrogram, **COARSE))
    x = noise(400, (2,))
    other = np.asarray(jitted(np.stack([np.zeros(400), x[:, 1]], axis=1)))
    assert other.any()
    for bad in (np.nan, np.inf):
        x[7, 0] = bad
        np.testing.assert_array_equal(jitted(x), other)
        np.testing.assert_array_equal(jitted(x[:, 0]), 0.0)
        np.testing.assert_array_equal(high_resolution_spectrograms(x[:, :1].T, **COARSE), 0.0)


def test_inside_jit_is_outside():
    x = noise(701, (2,)).astype(np.float32)
    jitted = jax.jit(functools.partial(high_resolution_spectrogram, **COARSE))
    np.testing.assert_array_equal(jitted(x), high_resolution_spectrogram(x, **COARSE))
    with pytest.raises(ValueError, match="looks transposed"):
        jitted(x.T)


def test_channels_add_their_energies():
    """Opposite phases do not cancel."""
    x = chirp(700)
    one, two = (np.asarray(high_resolution_spectrogram(signal, **COARSE)) for signal in (x, np.stack([x, -x], axis=1)))
    both = (one > 0.0) & (two > 0.0)  # twice the hits, but a threshold of sqrt(2) only
    np.testing.assert_allclose(two[both], 2.0 * one[both], rtol=1e-4)
    assert two[both].sum() > 0.99 * two.sum() > 1.9 * one.sum() > 0.0


def test_where_the_bins_lie():
    """Tones on the centres maxf * 2 ** (-b / noct) and, by a third of a bin, beside them; the last bin is empty."""
    for b in (1, 13, 40, 52):
        for beside in (-0.33, 0.0, 0.33):
            tone = np.cos(2 * np.pi * 0.4507 * 2.0 ** (-(b + beside) / 12.0) * np.arange(4000))
            image = np.asarray(high_resolution_spectrogram(tone, **GRID | {"q": 8.0}, stride=4))
            assert image[10:-10].sum(axis=0).argmax() == b
    white = np.asarray(high_resolution_spectrogram(noise(4410), 2, 45, 10, 26.2, 1.4e-3, 0.5)).sum(axis=0)
    assert len(white) == 224 and white[-1] == 0.0 and white[-2] > 0.0
    assert white[0] < 0.6 * white[1:20].mean()


@pytest.mark.parametrize("q", [1.0, 2.0])
def test_a_click_in_digital_silence(q):
    """Rounding decides which cells enough points reach, but not what they hold; a little noise settles it."""
    x, grid = np.zeros(1260), GRID | {"q": q}
    x[637] = 1.0
    reference, single = oracle(x, **grid), np.asarray(high_resolution_spectrogram(x, **grid))
    both = (reference > 1e-6 * reference.max()) & (single > 0.0)
    assert both.any()
    np.testing.assert_allclose(single[both], reference[both], rtol=1e-3)
    x += 1e-6 * noise(1260)
    reference, single = oracle(x, **grid), np.asarray(high_resolution_spectrogram(x, **grid))
    assert difference(single, reference) < 0.01
    with jax.enable_x64(True):
        double = np.asarray(high_resolution_spectrogram(x, **grid))
    assert difference(double, reference) < 1e-12
    np.testing.assert_array_equal(double > 0.0, reference > 0.0)
