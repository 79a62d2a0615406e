"""Records that need not be made again: those of the same sounds in other datasets that were prepared alike."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audiotag_jax.audio import decode
from audiotag_jax.datasets.index import load_index, rows_of
from audiotag_jax.datasets.prepared import complete_datasets, read_metadata
from audiotag_jax.datasets.records import SILENCE, SPLITS
from audiotag_jax.settings.sections import ClipSettings
from audiotag_jax.spectral.features import NO_IMAGES, SpectralSettings, channel_version

FIRST_VERSION = 1  # of every algorithm; datasets of the release that knew no other do not record it


class Origin(NamedTuple):
    """One split of a dataset from which records are copied."""

    directory: Path
    split: str
    channel: int = 0  # of its images


@dataclasses.dataclass(frozen=True)
class Copies:
    """For each of n clips the record that equals it: record `rows[i]` of `origins[which[i]]`; none where `which` is -1.

    `notes` are the notes of copied clips on their recordings, by i.
    """

    origins: tuple[Origin, ...]
    which: np.ndarray
    rows: np.ndarray
    notes: Mapping[int, str]

    def of(self, i: int) -> tuple[Origin, int, str] | None:
        """Returns where clip i is copied from, the number of the record there and its note; None if it is not."""
        if (which := self.which[i]) < 0:
            return None
        return self.origins[which], int(self.rows[i]), self.notes.get(i, "")

    def part(self, start: int, stop: int) -> "Copies":
        """Returns the copies of some of the clips."""
        notes = {i - start: note for i, note in self.notes.items() if start <= i < stop}
        return Copies(self.origins, self.which[start:stop], self.rows[start:stop], notes)

    def used(self) -> set[Path]:
        """Returns the datasets from which something is copied."""
        return {self.origins[number].directory for number in np.unique(self.which[self.which >= 0])}


def find_clips(sounds: pa.ChunkedArray, settings: ClipSettings, prepared_dir: Path, builder: str) -> Copies:
    """Returns the clips of prepared datasets with the given `sounds`, the hashes of their files."""
    datasets = (
        (directory, 0) for directory in complete_datasets(prepared_dir, builder) if clips_alike(directory, settings)
    )
    return _find(sounds, datasets)


def find_images(
    sounds: pa.ChunkedArray,
    channel: str,
    *,
    clips: Mapping[str, Any],
    settings: SpectralSettings,
    prepared_dir: Path,
    builder: str,
) -> Copies:
    """Returns the images of one channel of the given `sounds`, in datasets of any channels.

    `clips` is the metadata of the clips dataset: images of clips that another decoder made are not copied.
    """

    own, decoder = clip_settings(clips), versions(clips)["decoder"]

    def datasets():
        for directory in complete_datasets(prepared_dir, builder):
            if (
                clips_alike(directory, own, decoder)
                and (number := _channel_number(directory, channel, settings)) is not None
            ):
                yield directory, number

    return _find(sounds, datasets())


def versions(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Returns the versions of the decoder and of each channel that made a dataset."""
    made_by = ["decoder", *metadata.get("spectral", {}).get("channels", ())]
    return dict.fromkeys(made_by, FIRST_VERSION) | metadata.get("versions", {})


def clip_settings(metadata: Mapping[str, Any]) -> ClipSettings:
    """Returns the settings of the clips of a dataset."""
    fields = dataclasses.fields(ClipSettings)
    return ClipSettings(**{field.name: metadata[field.name] for field in fields if field.name in metadata})


def clips_alike(directory: Path, settings: ClipSettings, decoder: int | None = None) -> bool:
    """Returns whether clips have these settings and come from this version of the decoder, by default the current."""
    metadata = read_metadata(directory)
    return clip_settings(metadata) == settings and versions(metadata)["decoder"] == (decoder or decode.VERSION)


def _channel_number(directory: Path, channel: str, settings: SpectralSettings) -> int | None:
    """Returns the number of a channel of a dataset whose images are made like those of `settings`."""
    metadata = read_metadata(directory)
    channels = metadata["spectral"]["channels"]
    if metadata["spectral"].keys() - {field.name for field in dataclasses.fields(SpectralSettings)}:
        return None  # of a newer version
    # Without channels, since one of a published network would refuse the sampling rate of other clips.
    stored = SpectralSettings(**metadata["spectral"] | {"channels": NO_IMAGES})
    same = stored == dataclasses.replace(settings, channels=NO_IMAGES) and channel in channels
    same = same and versions(metadata)[channel] == channel_version(channel)
    return channels.index(channel) if same else None


def _find(sounds: pa.ChunkedArray, datasets: Iterable[tuple[Path, int]]) -> Copies:
    wanted = pc.if_else(pc.not_equal(sounds, ""), sounds, None)
    which, rows = np.full(len(sounds), -1, np.int32), np.zeros(len(sounds), np.int64)
    origins: list[Origin] = []
    notes: dict[int, str] = {}
    for directory, channel in datasets:
        if (which >= 0).all():
            break
        if (index := load_index(directory)) is None:
            continue
        problems = read_metadata(directory)["problems"]
        unread = pa.array([each["id"] for each in problems if each["outcome"] == SILENCE], pa.string())
        reasons = {(each["split"], each["id"]): each["reason"] for each in problems}
        for split in SPLITS:
            own = rows_of(index, split)
            known = pc.and_(pc.not_equal(own["sound"], ""), pc.invert(pc.is_in(own["id"], value_set=unread)))
            stored = pc.if_else(known, own["sound"], None)
            places = pc.index_in(wanted, value_set=stored, skip_nulls=True).fill_null(-1).to_numpy()
            new = np.flatnonzero((which < 0) & (places >= 0))
            which[new], rows[new] = len(origins), places[new]
            origins.append(Origin(directory, split, channel))
            if reasons:
                ids = own["id"].take(pa.array(places[new])).to_pylist()
                found = {
                    i: reasons[split, clip]
                    for i, clip in zip(new.tolist(), ids, strict=True)
                    if (split, clip) in reasons
                }
                notes |= found
    return Copies(tuple(origins), which, rows, notes)
