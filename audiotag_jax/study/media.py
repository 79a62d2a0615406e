"""Sounds and pictures of clips, as they are put into a page: encoded, small, and the same bytes every time."""

import base64
import dataclasses
import io
from collections.abc import Mapping

import numpy as np
import PIL.Image
import soundfile

_GREY_LEVELS, _COLOUR_LEVELS = 64, 32  # enough for the eye, and half the bytes of 256
_MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_VIRIDIS = (  # nine of its colours, evenly spaced (van der Walt and Smith, 2015); those between are interpolated
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Media:
    """Waveforms and images of some clips.

    `waveforms[id]` [N] float32 in [-1, 1]; `images[variant][id]` [T, F, C] in [0, 1], frequency ascending, and
    `axes[variant]`, the centres of its bins in Hz: [F], or [C, F] where channels differ. A variant without images
    (a network on waveforms) is in neither.
    """

    sample_rate_hz: int
    duration_s: float
    waveforms: Mapping[str, np.ndarray]
    images: Mapping[str, Mapping[str, np.ndarray]]
    axes: Mapping[str, np.ndarray]


def sound_uri(waveform: np.ndarray, sample_rate_hz: int) -> str:
    """Returns a `data:` URI of the sound [N]: MP3 where libsndfile writes it at this rate, else 16-bit WAV.

    Not Ogg, whose streams carry a random number. What exceeds full scale is clipped, NaN is silence.
    """
    samples = np.clip(np.nan_to_num(np.asarray(waveform, np.float32)), -1.0, 1.0)
    if sample_rate_hz in _MP3_RATES_HZ and "MP3" in soundfile.available_formats():
        options = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.7}
        return _uri("audio/mpeg", _encoded(samples, sample_rate_hz, options))
    return _uri("audio/wav", _encoded(samples, sample_rate_hz, {"format": "WAV", "subtype": "PCM_16"}))


def image_uri(image: np.ndarray) -> str:
    """Returns a `data:` URI of a PNG of the image [T, F, C], time to the right and frequency upwards.

    One channel is drawn in viridis, from 0 to 1; of more the first three as red, green and blue.
    """
    values = np.clip(np.nan_to_num(np.asarray(image, np.float32)), 0.0, 1.0)
    pixels = values.transpose(1, 0, 2)[::-1]
    if pixels.shape[2] == 1:
        indices = np.round(pixels[..., 0] * (_GREY_LEVELS - 1)).astype(np.uint8)
        return _uri("image/png", _png(indices, _palette()))
    colours = np.zeros((*pixels.shape[:2], 3), np.uint8)
    shown = np.round(pixels[..., :3] * (_COLOUR_LEVELS - 1)) * (255 / (_COLOUR_LEVELS - 1))
    colours[..., : shown.shape[2]] = np.round(shown)
    return _uri("image/png", _png(colours))


def _encoded(samples, sample_rate_hz, options):
    with io.BytesIO() as file:
        soundfile.write(file, samples, sample_rate_hz, **options)
        return file.getvalue()


def _uri(kind, data):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _palette():
    """Returns viridis as colours [_GREY_LEVELS, 3] uint8."""
    stops = np.linspace(0.0, 1.0, len(_VIRIDIS))
    at = np.linspace(0.0, 1.0, _GREY_LEVELS)
    channels = [np.interp(at, stops, [colour[i] for colour in _VIRIDIS]) for i in range(3)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)


def _png(pixels, palette=None):
    """Returns a PNG file of [H, W] indices into a palette [n, 3], or of [H, W, 3] colours; all uint8."""
    picture = PIL.Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette.tobytes())
    with io.BytesIO() as file:
        picture.save(file, "PNG", optimize=True)
        return file.getvalue()
