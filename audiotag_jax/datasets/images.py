"""The records of a spectrogram dataset, a shard at a time: images that are copied, and images that are computed.

These are functions of their arguments alone, which can be pickled: any process can make any shard.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from audiotag_jax.datasets.copies import Copies
from audiotag_jax.datasets.prepared import record_source
from audiotag_jax.runtime.progress import progress
from audiotag_jax.runtime.threads import ordered_map
from audiotag_jax.spectral.features import SpectralSettings, spectrograms

SPECTROGRAM_BATCH, ACCELERATOR_BATCH = 16, 64  # clips per jitted call, on CPU and on a GPU or TPU
SPECTROGRAM_THREADS = 2  # concurrent calls: the serial parts of one overlap with the other
_FIELDS = ("id", "label", "labels", "fold", "verified")  # a record has either label or labels


def image_examples(
    clips_dir: Path, split: str, indices: range, settings: SpectralSettings, copies: Sequence[Copies]
) -> Iterator[tuple[str, dict]]:
    """Yields id and example of the clips at `indices` of a clips dataset; `copies` are theirs, by channel."""
    absent = np.stack([each.which < 0 for each in copies], axis=1)
    groups: dict[tuple[bool, ...], list[int]] = {}  # clips that lack the same channels go through one program
    for number, lacking in enumerate(map(tuple, absent.tolist())):
        groups.setdefault(lacking, []).append(number)
    make = partial(_make_examples, clips_dir, split, indices, settings, copies)
    streams = {
        lacking: _stream(partial(make, lacking), numbers, batch_size(settings)) for lacking, numbers in groups.items()
    }
    ordered = (next(streams[lacking]) for lacking in map(tuple, absent.tolist()))
    what = "computing" if absent.any() else "copying"
    yield from progress(ordered, len(indices), f"{what} {split} spectrograms", "clips")


def image_example(clip: dict[str, Any], image: np.ndarray) -> tuple[str, dict]:
    """Returns id and example of an image `[T, F, C]` float16 of a clip's record."""
    clip_id = clip["id"].decode()
    return clip_id, {"id": clip_id, "image": image, **{name: clip[name] for name in _FIELDS[1:] if name in clip}}


def compute_images(waveforms: Sequence[np.ndarray], settings: SpectralSettings) -> np.ndarray:
    """Returns images `[n, T, F, C]` float16 of at most `batch_size` waveforms `[N]`."""
    padded = np.zeros((batch_size(settings), *waveforms[0].shape), np.float32)  # one shape: compiled once
    padded[: len(waveforms)] = waveforms
    return np.asarray(spectrograms(padded, settings))[: len(waveforms)].astype(np.float16)


def batch_size(settings: SpectralSettings) -> int:
    """Returns the number of clips per jitted call: exact reassignment, stride 1, needs much memory for each."""
    return SPECTROGRAM_BATCH if jax.default_backend() == "cpu" or settings.stride < 4 else ACCELERATOR_BATCH


def _stream(make, numbers: list[int], size: int) -> Iterator[tuple[str, dict]]:
    chunks = (numbers[i : i + size] for i in range(0, len(numbers), size))
    return (example for chunk in ordered_map(make, chunks, _num_threads()) for example in chunk)


def _num_threads() -> int:
    # On two CPU cores, JAX 0.11.2 was seen to deadlock when two threads call it; 0.10.2 and 0.12.0 were not.
    deadlocks = jax.default_backend() == "cpu" and jax.__version_info__[:2] == (0, 11)
    return 1 if deadlocks else SPECTROGRAM_THREADS


def _make_examples(
    clips_dir: Path,
    split: str,
    indices: range,
    settings: SpectralSettings,
    copies: Sequence[Copies],
    lacking: tuple[bool, ...],
    numbers: list[int],
) -> list[tuple[str, dict]]:
    """Returns the examples of the clips `indices[number]`; computes the channels that are `lacking`."""
    names = (*_FIELDS, "waveform") if any(lacking) else _FIELDS
    clips = record_source(clips_dir, split, names).__getitems__([indices[number] for number in numbers])
    layers: list[Any] = [
        None if is_lacking else _copied(copies[channel], np.array(numbers))
        for channel, is_lacking in enumerate(lacking)
    ]
    if any(lacking):
        missing = tuple(name for name, is_lacking in zip(settings.channels, lacking, strict=True) if is_lacking)
        computed = compute_images([clip["waveform"] for clip in clips], dataclasses.replace(settings, channels=missing))
        for place, channel in enumerate(np.flatnonzero(lacking)):
            layers[channel] = computed[..., place]
    images = np.stack(layers, axis=-1).astype(np.float16)
    return [image_example(clip, image) for clip, image in zip(clips, images, strict=True)]


def _copied(copies: Copies, numbers: np.ndarray) -> np.ndarray:
    """Returns one channel `[n, T, F]` of the images to copy."""
    found: list[Any] = [None] * len(numbers)
    for which in np.unique(copies.which[numbers]):
        origin, places = copies.origins[which], np.flatnonzero(copies.which[numbers] == which)
        source = record_source(origin.directory, origin.split, ("image",))
        records = source.__getitems__(copies.rows[numbers[places]].tolist())
        for place, record in zip(places.tolist(), records, strict=True):
            found[place] = record["image"][..., origin.channel]
    return np.stack(found)
