"""The sounds and images of the few clips that a report shows: read where they are prepared, else made of recordings.

A report prepares no dataset: that would compute the images of all clips to show those of a few.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotag_jax.datasets.images import batch_size, compute_images
from audiotag_jax.datasets.prepare import stored_datasets
from audiotag_jax.datasets.reader import read_split
from audiotag_jax.datasets.sources import list_dataset
from audiotag_jax.datasets.waveforms import decode_clip
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import Settings
from audiotag_jax.spectral.features import SpectralSettings, frequencies_hz
from audiotag_jax.study.media import Media


class Shown(NamedTuple):
    """What the clips of one variant are made by: its settings, and the name under which its run knows its dataset."""

    settings: Settings
    dataset: str | None = None


def open_media(variants: Mapping[str, Shown]) -> Callable[[Sequence[str]], Media]:
    """Returns a function of clip ids that gives their sounds and each variant's images of them, where available.

    The sounds are those of the first variant that has any; images of clips of another length or rate are left out.
    """

    def media(ids: Sequence[str]) -> Media:
        first: Settings | None = None
        waveforms: Mapping[str, np.ndarray] = {}
        for each in variants.values():
            if waveforms := _waveforms(each, ids):
                first = each.settings
                break
        first = first or next((each.settings for each in variants.values()), None)
        if first is None:
            return Media(0, 0.0, {}, {}, {})
        images, axes = {}, {}
        for name, each in variants.items():
            seen = each.settings.images if each.settings.clips == first.clips else None
            if seen is not None and (found := _images(each, ids, waveforms)):
                images[name] = found
                axes[name] = np.stack([frequencies_hz(channel, seen) for channel in seen.channels])
        return Media(first.dataset.sample_rate_hz, first.dataset.duration_s, waveforms, images, axes)

    return media


def _waveforms(shown: Shown, ids: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Returns the clips [N] by id: of the prepared dataset, else of the recordings that are there."""
    settings = shown.settings
    clips_dir, _ = stored_datasets(settings, shown.dataset)
    found = _inputs(clips_dir, ids) if clips_dir is not None else _decoded(settings, set(ids))
    first = settings.clips.margin_samples
    return {clip: samples[first : first + settings.clips.length_samples] for clip, samples in found.items()}


def _decoded(settings: Settings, ids: set[str]) -> dict[str, np.ndarray]:
    if not Path(settings.dataset.path).exists():  # the demo would write its sounds there
        return {}
    try:
        clips = list_dataset(settings.dataset, download=False).clips
    except UserError:
        return {}
    there = [clip for clip in clips if clip.id in ids and Path(clip.path).is_file()]
    waveforms = {clip.id: decode_clip(clip, settings.clips)[0] for clip in there}
    return {clip: waveform for clip, waveform in waveforms.items() if waveform is not None}


def _images(shown: Shown, ids: Sequence[str], waveforms: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Returns the images [T, F, C] by id: of the prepared dataset, else computed from the waveforms."""
    _, images_dir = stored_datasets(shown.settings, shown.dataset)
    if images_dir is not None:
        return _inputs(images_dir, ids)
    images = shown.settings.images
    return _computed(waveforms, images) if images is not None else {}


def _computed(waveforms: Mapping[str, np.ndarray], settings: SpectralSettings) -> dict[str, np.ndarray]:
    names, size = list(waveforms), batch_size(settings)
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(names), size):
        chunk = names[start : start + size]
        found |= zip(chunk, compute_images([waveforms[name] for name in chunk], settings), strict=True)
    return found


def _inputs(directory: Path, ids: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Returns the inputs of some clips, of either split, by id."""
    found: dict[str, np.ndarray] = {}
    for examples in (read_split(directory, "train"), read_split(directory, "test")):
        if examples is not None:
            places = np.flatnonzero(np.isin(examples.ids, ids))
            found |= dict(zip(examples.ids[places].tolist(), examples.inputs[places], strict=True))
    return found
