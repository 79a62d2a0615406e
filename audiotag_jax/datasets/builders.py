"""The two TFDS builders, which write all prepared datasets: array_record shards in clip order, in bounded memory."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from audiotag_jax.audio.clip import load_clip
from audiotag_jax.audio.decode import AudioError
from audiotag_jax.datasets.records import Clip, ClipSource
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import progress
from audiotag_jax.settings.sections import ClipSettings
from audiotag_jax.spectral.features import SpectralSettings, spectrograms

SHARD_CLIPS = 2048  # at most, per shard
SPECTROGRAM_BATCH = 16  # clips per jitted call
SPECTROGRAM_THREADS = 2  # concurrent calls: the serial parts of one overlap with the other


@dataclasses.dataclass(frozen=True)
class Problem:
    """A defect of a recording, and how the clips dataset treats that recording."""

    id: str
    split: str
    reason: str
    outcome: str  # LEFT_OUT, SILENCE or KEPT


LEFT_OUT, SILENCE, KEPT = "left out", "kept as silence", "kept"


def decode_clip(clip: Clip, settings: ClipSettings) -> tuple[np.ndarray | None, Problem | None]:
    """Returns a clip's waveform `[stored_samples]` float32, and the problem of its recording, None if it has none.

    An unreadable training clip has no waveform (None); an unreadable test clip is silence, so that a submission stays
    complete.
    """
    try:
        waveform, note = load_clip(clip.path, settings.sample_rate_hz, settings.length_samples, settings.margin_samples)
    except AudioError as error:
        if clip.split == "train":
            return None, Problem(clip.id, clip.split, str(error), LEFT_OUT)
        return np.zeros(settings.stored_samples, np.float32), Problem(clip.id, clip.split, str(error), SILENCE)
    return waveform, Problem(clip.id, clip.split, note, KEPT) if note else None


class _Builder(tfds.core.ShardBasedBuilder):
    """Base of both builders: the config name is a fingerprint, the format array_record, and TFDS prints nothing."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, data_dir: Path, fingerprint: str, metadata: dict[str, Any]):
        self._metadata = metadata
        config = tfds.core.BuilderConfig(name=fingerprint, version=str(self.VERSION))
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _dataset_info(self, description: str, example: dict[str, Any], classes: Iterable[str]) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            **example,
            "label": tfds.features.ClassLabel(names=list(classes)),  # -1: not scored
            "fold": tfds.features.Scalar(np.int64),  # -1 in the test split
            "verified": tfds.features.Scalar(np.bool_),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(self._metadata),
        )

    def _shard(self, split: str, items: Sequence) -> Iterator[tuple[str, dict]]:
        """Yields a shard's examples and empties each after use, since TFDS keeps them all until it has counted them."""
        for key, example in self._examples(split, items):
            yield key, example
            example.clear()

    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


class AudiotagClips(_Builder):
    """Dataset of all readable clips: mono, resampled, cropped around the loudest half second."""

    def __init__(self, *, source: ClipSource, settings: ClipSettings, num_threads: int, **kwargs):
        self._source, self._settings, self._num_threads = source, settings, num_threads
        metadata = {"classes": list(source.classes), "problems": [], **dataclasses.asdict(settings)}
        super().__init__(metadata=metadata, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self._settings.stored_samples,)
        waveform = tfds.features.Tensor(shape=shape, dtype=np.float32, encoding="bytes")
        return self._dataset_info("Mono clips of sound.", {"waveform": waveform}, self._source.classes)

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, list[Callable]]:
        splits = {split: [clip for clip in self._source.clips if clip.split == split] for split in ("train", "test")}
        return {
            split: [partial(self._shard, split, part) for part in _shards(clips)]
            for split, clips in splits.items()
            if clips
        }

    def _examples(self, split: str, clips: list[Clip]) -> Iterator[tuple[str, dict]]:
        labels = {name: i for i, name in enumerate(self._source.classes)}
        decoded = ordered_map(partial(decode_clip, settings=self._settings), clips, self._num_threads)
        pairs = zip(clips, decoded, strict=True)
        for clip, (waveform, problem) in progress(pairs, len(clips), f"decoding {split} clips", "clips"):
            if problem:
                self.info.metadata["problems"].append(dataclasses.asdict(problem))
            if waveform is not None:
                yield (
                    clip.id,
                    {
                        "id": clip.id,
                        "waveform": waveform,
                        "label": -1 if clip.label is None else labels[clip.label],
                        "fold": clip.fold,
                        "verified": clip.verified,
                    },
                )

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        if self.info.splits["train"].num_examples == 0:
            clip = next(clip for clip in self._source.clips if clip.split == "train")
            reason = next(p["reason"] for p in self.info.metadata["problems"] if p["id"] == clip.id)
            total = sum(clip.split == "train" for clip in self._source.clips)
            raise UserError(
                f"None of the {total} training recordings could be read; the first is {clip.path}: {reason}.\n"
                "Check that config.dataset.path is the folder of the recordings and their tables."
            )


class AudiotagSpectrograms(_Builder):
    """Dataset of one spectrogram variant of a clips dataset, as float16 images `[T, F, C]` in [0, 1].

    `stored` maps channels to their single-channel datasets of the same clips and otherwise equal settings: these are
    copied, and the other channels computed. A channel has the same bits in every combination of channels.
    """

    def __init__(self, *, clips_dir: Path, settings: SpectralSettings, stored: Mapping[str, Path], **kwargs):
        self._clips, self._settings = tfds.builder_from_directory(clips_dir), settings
        self._stored = {channel: tfds.builder_from_directory(directory) for channel, directory in stored.items()}
        metadata = dict(self._clips.info.metadata) | {"spectral": dataclasses.asdict(settings)}
        super().__init__(metadata=metadata, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self._settings.num_frames, self._settings.num_bins, len(self._settings.channels))
        image = tfds.features.Tensor(shape=shape, dtype=np.float16, encoding="bytes")
        description = f"Spectrograms of sound: {', '.join(self._settings.channels)}."
        return self._dataset_info(description, {"image": image}, self._clips.info.features["label"].names)

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, list[Callable]]:
        sizes = {split: info.num_examples for split, info in self._clips.info.splits.items()}
        return {
            split: [partial(self._shard, split, part) for part in _shards(range(size))] for split, size in sizes.items()
        }

    def _examples(self, split: str, indices: range) -> Iterator[tuple[str, dict]]:
        source = self._clips.as_data_source(split)
        stored = {channel: builder.as_data_source(split) for channel, builder in self._stored.items()}
        chunks = (indices[i : i + SPECTROGRAM_BATCH] for i in range(0, len(indices), SPECTROGRAM_BATCH))
        computed = ordered_map(partial(self._compute, source, stored), chunks, SPECTROGRAM_THREADS)
        clips = (clip for chunk in computed for clip in chunk)
        yield from progress(clips, len(indices), f"computing {split} spectrograms", "clips")

    def _compute(self, source, stored: Mapping, indices: range) -> list[tuple[str, dict]]:
        records, channels = source.__getitems__(list(indices)), self._settings.channels
        images = np.empty((len(records), *self.info.features["image"].shape), np.float16)
        for channel, single in stored.items():
            copies = single.__getitems__(list(indices))
            if [copy["id"] for copy in copies] != [record["id"] for record in records]:
                raise UserError(
                    f"{self._stored[channel].data_dir} contains other clips than expected: delete it and run again."
                )
            images[..., channels.index(channel)] = [copy["image"][..., 0] for copy in copies]
        if missing := tuple(channel for channel in channels if channel not in stored):
            waveforms = np.zeros((SPECTROGRAM_BATCH, *records[0]["waveform"].shape), np.float32)
            waveforms[: len(records)] = [record["waveform"] for record in records]
            computed = spectrograms(waveforms, dataclasses.replace(self._settings, channels=missing))
            images[..., [channels.index(channel) for channel in missing]] = computed[: len(records)]
        examples = []
        for record, image in zip(records, images, strict=True):
            kept = {name: record[name] for name in ("label", "fold", "verified")}
            clip_id = record["id"].decode()
            examples.append((clip_id, {"id": clip_id, "image": image, **kept}))
        return examples


def ordered_map(function: Callable, items: Iterable, num_threads: int) -> Iterator:
    """Yields `function(item)` in order, computed by a thread pool that runs a bounded number of items ahead."""
    with ThreadPoolExecutor(num_threads) as pool:
        pending: deque = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 4 * num_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _shards(items):
    return [items[i : i + SHARD_CLIPS] for i in range(0, len(items), SHARD_CLIPS)]
