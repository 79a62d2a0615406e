"""Audio tagging with spectrograms in JAX and Flax; docs/api.md describes the names offered here.

They are imported when they are first asked for, so that importing the package alone loads no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiotag_jax.audio.crop import crop_loudest
    from audiotag_jax.audio.decode import load_audio
    from audiotag_jax.inference.events import EventOptions, find_events, window_scores
    from audiotag_jax.inference.predict import tag_recordings
    from audiotag_jax.inference.tagger import load_tagger
    from audiotag_jax.inference.windows import WindowOptions
    from audiotag_jax.settings.settings import parse_settings
    from audiotag_jax.settings.variants import get_config
    from audiotag_jax.spectral.features import SpectralSettings, frequencies_hz, spectrograms, times_s
    from audiotag_jax.spectral.reassignment import high_resolution_spectrogram, high_resolution_spectrograms

__version__ = "0.1.0"  # the one place; pyproject.toml reads it

__all__ = [
    "EventOptions",
    "SpectralSettings",
    "WindowOptions",
    "__version__",
    "crop_loudest",
    "find_events",
    "frequencies_hz",
    "get_config",
    "high_resolution_spectrogram",
    "high_resolution_spectrograms",
    "load_audio",
    "load_tagger",
    "parse_settings",
    "spectrograms",
    "tag_recordings",
    "times_s",
    "window_scores",
]

_MODULES = {
    "EventOptions": "inference.events",
    "SpectralSettings": "spectral.features",
    "WindowOptions": "inference.windows",
    "crop_loudest": "audio.crop",
    "find_events": "inference.events",
    "frequencies_hz": "spectral.features",
    "get_config": "settings.variants",
    "high_resolution_spectrogram": "spectral.reassignment",
    "high_resolution_spectrograms": "spectral.reassignment",
    "load_audio": "audio.decode",
    "load_tagger": "inference.tagger",
    "parse_settings": "settings.settings",
    "spectrograms": "spectral.features",
    "tag_recordings": "inference.predict",
    "times_s": "spectral.features",
    "window_scores": "inference.events",
}


def __getattr__(name: str) -> Any:
    """Imports a public name from its module (PEP 562); raises AttributeError on any other."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # the next time it is found without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
