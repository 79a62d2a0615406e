"""The three frequency axes, each given by its band edges.

An axis of F bands is F + 2 ascending edges in Hz: band i peaks at edge i + 1 and reaches to its neighbours' peaks, so
the centres are `edges[1:-1]`. The outermost edges of the linear and log axes lie outside [0, Nyquist].
"""

import librosa  # loads its parts when they are first used: 0.25 s for this one, in processes that see a mel axis
import numpy as np

# The grid of the high-resolution spectrograms (Gardner & Magnasco, PNAS 2006), in fractions of the sampling rate.
# The authors count bins down from the top, b = round(-noct * log2(f / maxf) + 1) with maxf = 0.5, as far as
# ceil(-noct * log2(minf / maxf) + 1) = 224 for minf = 1.4e-3 and noct = 26.2.
MAX_FREQUENCY = 0.5
BINS_PER_OCTAVE = 26.2
REFERENCE_BINS = 224
_REFERENCE_LOWEST = 1.4e-3


def bins_per_octave(num_bins: int) -> float:
    """Returns the density of the log axis: 26.2 for 224 bins; any other number of bins spans the same octaves."""
    return BINS_PER_OCTAVE * ((num_bins - 1) / (REFERENCE_BINS - 1))


def lowest_frequency(num_bins: int) -> float:
    """Returns `minf` of a high-resolution grid of `num_bins`, a fraction of the sampling rate: 1.4e-3 for 224 bins."""
    bins_down = BINS_PER_OCTAVE * np.log2(MAX_FREQUENCY / _REFERENCE_LOWEST)  # 222.19: the last of 224 bins stays empty
    bins_down += num_bins - REFERENCE_BINS
    return float(MAX_FREQUENCY * 2.0 ** (-bins_down / bins_per_octave(num_bins)))


def linear_edges_hz(num_bins: int, sample_rate_hz: int) -> np.ndarray:
    """Returns edges [F + 2] whose centres are evenly spaced from 0 to Nyquist, both included."""
    return np.arange(-1, num_bins + 1) * (sample_rate_hz / 2 / (num_bins - 1))


def log_edges_hz(num_bins: int, sample_rate_hz: int) -> np.ndarray:
    """Returns edges [F + 2] with the high-resolution grid as centres, 30.2 Hz to Nyquist at 22,050 Hz and 224 bins."""
    bins_below_max = np.arange(num_bins, -2, -1)  # the authors' b - 1, turned round to ascend in frequency
    return MAX_FREQUENCY * sample_rate_hz * 2.0 ** (-bins_below_max / bins_per_octave(num_bins))


def mel_edges_hz(num_bins: int, sample_rate_hz: int) -> np.ndarray:
    """Returns edges [F + 2] evenly spaced on Slaney's mel scale (Auditory Toolbox, 1998), 0 and Nyquist included."""
    return librosa.mel_frequencies(num_bins + 2, fmin=0.0, fmax=sample_rate_hz / 2, htk=False)


EDGES_HZ = {"linear": linear_edges_hz, "log": log_edges_hz, "mel": mel_edges_hz}
