"""Synthesizers of the demo's classes: physical and spectral models, the draws of each sound from its own generator.

Sounds of different classes share sources and bands, and differ in how they change over time: glides up and down,
regular and irregular impacts, fast and slow bursts of noise, struck and plucked bodies, slow and fast changes of pitch.
"""

from collections.abc import Callable

import numpy as np
from scipy.signal import fftconvolve, lfilter

Generator = np.random.Generator
FADE_S = 0.005  # at both ends of a sound, so that they do not click
# Frequencies of the first three formants in Hz of the vowels a, e, i, o, u, rounded.
VOWELS_HZ = ((750, 1150, 2500), (520, 1850, 2500), (290, 2250, 3000), (500, 880, 2450), (320, 820, 2300))


def render(name: str, rng: Generator, num_samples: int, rate_hz: int) -> np.ndarray:
    """Returns a sound `[N]` of class `name` with faded ends, from a random place in a random room."""
    sound = SYNTHESIZERS[name](rng, num_samples, rate_hz)
    sound = _reverberate(rng, sound, rate_hz)
    edge = min(num_samples // 2, round(FADE_S * rate_hz))
    sound[:edge] *= np.linspace(0, 1, edge)
    sound[num_samples - edge :] *= np.linspace(1, 0, edge)
    return sound


def noise(rng: Generator, num_samples: int, spectrum: Callable, rate_hz: float) -> np.ndarray:
    """Returns Gaussian noise `[N]` of unit power with magnitude spectrum `spectrum(f_hz)`."""
    shaped = np.fft.rfft(rng.standard_normal(num_samples)) * spectrum(np.fft.rfftfreq(num_samples, 1 / rate_hz))
    values = np.fft.irfft(shaped, num_samples)
    return values / np.sqrt(np.mean(values**2))


def _reverberate(rng: Generator, sound: np.ndarray, rate_hz: int) -> np.ndarray:
    """Adds the echoes of a room: noise that falls by 60 dB in 0.1 to 0.5 s, 10 to 25 dB below the sound."""
    decay_s = _log_uniform(rng, 0.1, 0.5)
    t_s = np.arange(round(decay_s * rate_hz)) / rate_hz
    echoes = rng.standard_normal(len(t_s)) * 10 ** (-3 * t_s / decay_s) * (t_s > 0.005)
    wet = fftconvolve(sound, echoes)[: len(sound)]
    level = 10 ** (-rng.uniform(10.0, 25.0) / 20) * np.sqrt(np.mean(sound**2) / np.mean(wet**2))
    return sound + level * wet


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _placed(events: list[tuple[int, np.ndarray]], num_samples: int) -> np.ndarray:
    """Returns `[N]`, the sum of (start, samples); what lies beyond the end is cut."""
    sound = np.zeros(num_samples)
    for start, values in events:
        part = values[: max(num_samples - start, 0)]
        sound[start : start + len(part)] += part
    return sound


def _resonance(values: np.ndarray, frequency_hz: float, bandwidth_hz: float, rate_hz: int) -> np.ndarray:
    """Returns `[N]` filtered by a resonator of two poles."""
    radius = np.exp(-np.pi * bandwidth_hz / rate_hz)
    poles = [1.0, -2 * radius * np.cos(2 * np.pi * frequency_hz / rate_hz), radius**2]
    return lfilter([1 - radius], poles, values)


def _struck(rng: Generator, modes_hz: np.ndarray, decays_s: np.ndarray, rate_hz: int) -> np.ndarray:
    """Returns the decaying modes of a struck body, `[N]` until all are inaudible."""
    t_s = np.arange(round(6 * decays_s.max() * rate_hz)) / rate_hz
    gains = rng.uniform(0.3, 1.0, len(modes_hz))
    return sum(
        gain * np.exp(-t_s / decay_s) * np.sin(2 * np.pi * hz * t_s)
        for gain, hz, decay_s in zip(gains, modes_hz, decays_s, strict=True)
    )


def _notes(rng: Generator, num_samples: int, rate_hz: int, note: Callable, gap_s: tuple[float, float]) -> np.ndarray:
    """Returns notes one after the other, `note()` each, with gaps drawn from `gap_s`, and of different loudness."""
    events, start = [], 0
    while start < num_samples:
        events.append((start, rng.uniform(0.5, 1.0) * note()))
        start += round(rng.uniform(*gap_s) * rate_hz)
    return _placed(events, num_samples)


def _bell(rng, num_samples, rate_hz):
    """Returns strokes of a bell by frequency modulation, whose index falls with the loudness (Chowning, 1973)."""
    carrier_hz, ratio = _log_uniform(rng, 250.0, 900.0), rng.uniform(1.35, 1.45)
    decay_s, index = rng.uniform(0.25, 0.6), rng.uniform(2.0, 4.0)
    t_s = np.arange(round(4 * decay_s * rate_hz)) / rate_hz
    envelope = np.exp(-t_s / decay_s)
    modulator = index * envelope * np.sin(2 * np.pi * ratio * carrier_hz * t_s)
    stroke = envelope * np.sin(2 * np.pi * carrier_hz * t_s + modulator)
    return _notes(rng, num_samples, rate_hz, lambda: stroke, (0.5, 1.2))


def _pluck(rng, num_samples, rate_hz):
    """Returns notes of a plucked string: noise that circles in a delay and loses its high frequencies in each round.

    Karplus and Strong (1983): y[n] = loss (y[n - P] + y[n - P - 1]) / 2, a round of P samples at a time.
    """
    lowest_hz = _log_uniform(rng, 110.0, 350.0)

    def note():
        period = round(rate_hz / (lowest_hz * 2 ** (rng.integers(0, 13) / 12)))
        rounds = [np.zeros(period), rng.uniform(-1.0, 1.0, period)]
        for _ in range(round(1.5 * rate_hz / period)):
            one_later = np.append(rounds[-2][-1], rounds[-1][:-1])
            rounds.append(0.496 * (rounds[-1] + one_later))
        return np.concatenate(rounds[1:])

    return _notes(rng, num_samples, rate_hz, note, (0.25, 1.2))


def _voice(rng, num_samples, rate_hz):
    """Returns sung vowels with vibrato: glottal pulses through the resonances of a vocal tract."""
    t_s = np.arange(num_samples) / rate_hz
    vibrato = rng.uniform(0.3, 0.9) / 12 * np.sin(2 * np.pi * (rng.uniform(4.5, 7.0) * t_s + rng.uniform()))
    pitch_hz = _log_uniform(rng, 120.0, 420.0) * 2**vibrato
    cycles = np.cumsum(pitch_hz) / rate_hz
    pulses = np.diff(np.floor(cycles), prepend=0.0) * (1 + 0.1 * rng.standard_normal(num_samples))
    breath = 0.02 * rng.standard_normal(num_samples)
    return _tract(rng, lfilter([1.0], [1.0, -0.9], pulses + breath), rate_hz)


def _tract(rng, source, rate_hz):
    """Returns `[N]` through the formants of a vowel that glides to another one, of a speaker of any size."""
    size = rng.uniform(0.9, 1.2)
    first, last = (VOWELS_HZ[n] for n in rng.integers(len(VOWELS_HZ), size=2))
    fade = np.clip(np.linspace(-1.0, 2.0, len(source)), 0.0, 1.0)

    def spoken(vowel):
        return sum(_resonance(source, size * hz, 60 + 0.05 * hz, rate_hz) / n for n, hz in enumerate(vowel, 1))

    return (1 - fade) * spoken(first) + fade * spoken(last)


def _siren(rng, num_samples, rate_hz):
    """Returns a siren: the pitch wails up and down, or changes between two notes, about once a second."""
    t_s = np.arange(num_samples) / rate_hz
    rounds = max(rng.uniform(0.6, 1.8), 1.2 * rate_hz / num_samples) * t_s + rng.uniform()  # more than one, always
    wail = 2 * np.abs(2 * (rounds % 1) - 1) - 1 if rng.uniform() < 0.5 else np.sin(2 * np.pi * rounds)
    wail = np.sign(wail) if rng.uniform() < 0.3 else wail
    pitch_hz = _log_uniform(rng, 300.0, 900.0) * 2 ** (rng.uniform(2.0, 6.0) / 12 * wail)
    cycles = np.cumsum(pitch_hz) / rate_hz
    tilt = rng.uniform(0.5, 1.5)
    return sum(n**-tilt * np.sin(2 * np.pi * n * cycles) for n in range(1, 6))


def _chirps(rng, num_samples, rate_hz, direction):
    """Returns a bird's calls, each a glide of the pitch by half an octave to one octave, up or down."""
    lowest_hz, octaves, length_s = _log_uniform(rng, 900.0, 2200.0), rng.uniform(0.6, 1.1), rng.uniform(0.15, 0.4)
    position = np.linspace(0, 1, round(length_s * rate_hz))
    rise = position ** rng.uniform(0.7, 1.4)  # reversed as a whole below, so that both directions are equally bent
    cycles = np.cumsum(lowest_hz * 2 ** (octaves * rise)) / rate_hz
    overtone = rng.uniform(0.0, 0.4)
    call = np.sin(np.pi * position) * (np.sin(2 * np.pi * cycles) + overtone * np.sin(4 * np.pi * cycles))
    pause_s = rng.uniform(0.05, 0.3)
    return _notes(rng, num_samples, rate_hz, lambda: call[::direction], (length_s + pause_s, length_s + 1.3 * pause_s))


def _chirp_up(rng, num_samples, rate_hz):
    return _chirps(rng, num_samples, rate_hz, 1)


def _chirp_down(rng, num_samples, rate_hz):
    return _chirps(rng, num_samples, rate_hz, -1)


def _impact(rng, rate_hz):
    modes_hz = np.exp(rng.uniform(np.log(500.0), np.log(6000.0), rng.integers(3, 6)))
    return _struck(rng, modes_hz, np.exp(rng.uniform(np.log(0.003), np.log(0.02), len(modes_hz))), rate_hz)


def _ticking(rng, num_samples, rate_hz):
    """Returns a clock: two impacts in turn at even intervals."""
    sounds, period_s = (_impact(rng, rate_hz), _impact(rng, rate_hz)), rng.uniform(0.14, 0.3)
    places = np.arange(rng.uniform(0, period_s), num_samples / rate_hz, period_s)
    return _placed([(round(s * rate_hz), sounds[n % 2]) for n, s in enumerate(places)], num_samples)


def _crackle(rng, num_samples, rate_hz):
    """Returns a fire: a few kinds of impacts at random times, few loud and many soft."""
    sounds = [_impact(rng, rate_hz) for _ in range(3)]
    count = max(4, rng.poisson(rng.uniform(15.0, 30.0) * num_samples / rate_hz))
    places, gains = rng.integers(num_samples, size=count), np.exp(rng.normal(0.0, 0.8, count))
    kinds = rng.integers(3, size=count)
    return _placed(
        [(place, gain * sounds[k]) for place, gain, k in zip(places, gains, kinds, strict=True)], num_samples
    )


def _band(rng, num_samples, rate_hz):
    """Returns noise of one or two broad resonances."""
    centers_hz = np.exp(rng.uniform(np.log(200.0), np.log(4000.0), rng.integers(1, 3)))
    widths = rng.uniform(0.4, 1.2, len(centers_hz))

    def spectrum(f_hz):
        octaves = np.log2(np.maximum(f_hz, 1.0)[:, None] / centers_hz) / widths
        return np.exp(-0.5 * octaves**2).sum(1) + 0.01

    return noise(rng, num_samples, spectrum, rate_hz)


def _engine(rng, num_samples, rate_hz):
    """Returns an engine: a burst of noise at each ignition, 14 to 35 a second, of four unequal cylinders."""
    drift = rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, num_samples)
    cycles = np.cumsum(rng.uniform(14.0, 35.0) * (1 + drift)) / rate_hz
    cylinders = rng.uniform(0.6, 1.0, 4)
    envelope = cylinders[cycles.astype(int) % 4] * np.exp(-(cycles % 1) * rng.uniform(2.5, 5.0))
    return envelope * _band(rng, num_samples, rate_hz)


def _sawing(rng, num_samples, rate_hz):
    """Returns a saw: strokes of noise, forth and back, 2.5 to 6 a second."""
    strokes = rng.uniform(2.5, 6.0) * np.arange(num_samples) / rate_hz + rng.uniform()
    envelope = np.sin(np.pi * (strokes % 1)) ** rng.uniform(1.0, 2.5)
    forth = strokes.astype(int) % 2 == 0
    back = rng.uniform(0.5, 1.0) * _band(rng, num_samples, rate_hz)
    return envelope * np.where(forth, _band(rng, num_samples, rate_hz), back)


SYNTHESIZERS = {
    "bell": _bell,
    "chirp_down": _chirp_down,
    "chirp_up": _chirp_up,
    "crackle": _crackle,
    "engine": _engine,
    "pluck": _pluck,
    "sawing": _sawing,
    "siren": _siren,
    "ticking": _ticking,
    "voice": _voice,
}
