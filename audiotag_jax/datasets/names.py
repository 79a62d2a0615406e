"""What names a dataset: the table, the bytes of the recordings, the settings, and versions of the algorithms.

The text of the code, the libraries, the device and the machine are left out; the metadata records them as provenance.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiotag_jax.audio import decode
from audiotag_jax.datasets.records import Clip, ClipSource
from audiotag_jax.settings.sections import ClipSettings
from audiotag_jax.spectral.features import SpectralSettings, channel_version


def clips_fingerprint(
    source: ClipSource,
    settings: ClipSettings,
    contents: Mapping[str, str],
    version: int | None = None,
    *,
    again_with_pyav: bool = False,
) -> str:
    """Returns a hash of the clips' records, their files' `contents` (hashes by path), settings and decoder version.

    The code's text and the libraries' versions are left out: `decode.VERSION`, the default, changes when decoded
    samples do. `again_with_pyav` marks a dataset that was made again, since the first lacks clips that PyAV decodes.
    """
    clips = source.clips
    files = [[clip.id, _labels(clip), clip.fold, clip.split, clip.verified, contents[clip.path]] for clip in clips]
    named = [source.classes, files, dataclasses.asdict(settings), decode.VERSION if version is None else version]
    return _hash([*named, *(["again with PyAV"] if again_with_pyav else [])])


def _labels(clip: Clip) -> str | list[str] | None:
    return clip.label if clip.labels is None else list(clip.labels)


def spectrograms_fingerprint(clips_dir: Path, settings: SpectralSettings) -> str:
    """Returns a hash of the clips dataset's fingerprint, the settings, and the version of each channel's algorithm.

    The device and the version of JAX that computed the images are left out.
    """
    now = [channel_version(channel) for channel in settings.channels]
    return hash_images(Path(clips_dir).parent.name, settings, now)


def hash_images(clips_name: str, settings: SpectralSettings, channel_versions: Sequence[int]) -> str:
    """Returns the fingerprint of the images of a clips dataset, with the given versions of the channels."""
    fields = dataclasses.fields(settings)
    later = {field.name: field.default for field in fields if not field.metadata.get("named", True)}
    values = dataclasses.asdict(settings).items()
    named = {name: value for name, value in values if name not in later or value != later[name]}
    return _hash([clips_name, named, list(channel_versions)])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
