"""The two TFDS builders, which write all prepared datasets: array_record shards in clip order, in bounded memory.

A shard is written by a function that can be pickled, and that gets all it needs as arguments
(`waveforms.clip_examples`, `images.image_examples`): any process can write any shard.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds

from audiotag_jax.datasets.beam import write_splits
from audiotag_jax.datasets.copies import Copies
from audiotag_jax.datasets.images import image_examples
from audiotag_jax.datasets.index import make_index, read_index, write_index
from audiotag_jax.datasets.prepared import VERSION
from audiotag_jax.datasets.records import LEFT_OUT, SPLITS, ClipSource, is_multi_label
from audiotag_jax.datasets.waveforms import clip_examples
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.sections import ClipSettings
from audiotag_jax.spectral.features import SpectralSettings

SHARD_CLIPS = 512  # at most, per shard, which one process writes


class _Builder(tfds.core.ShardBasedBuilder):
    """Base of both builders: the config name is a fingerprint, the format array_record, and TFDS prints nothing."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, data_dir: Path, fingerprint: str, metadata: dict[str, Any]):
        self._metadata = metadata
        config = tfds.core.BuilderConfig(name=fingerprint, version=VERSION)
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _dataset_info(self, description: str, example: dict[str, Any]) -> tfds.core.DatasetInfo:
        classes = self._metadata["classes"]
        if self._metadata.get("task") == MULTI_LABEL.name:  # 1: has the label; all -1: not scored
            labels = {"labels": tfds.features.Tensor(shape=(len(classes),), dtype=np.int8)}
        else:
            labels = {"label": tfds.features.ClassLabel(names=list(classes))}  # -1: not scored
        features = {
            "id": tfds.features.Text(),
            **example,
            **labels,
            "fold": tfds.features.Scalar(np.int64),  # -1 in the test split
            "verified": tfds.features.Scalar(np.bool_),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(self._metadata),
        )

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        """Writes records and index into the temporary folder that TFDS renames at the end."""
        self._shards = self._make_shards()
        write = partial(super()._download_and_prepare, dl_manager, download_config)
        if download_config is None or download_config.beam_runner is None:
            write()
        else:
            write_splits(self, self._shards, write)
        write_index(Path(self._data_dir), self._make_index())

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, list[Callable]]:
        return self._shards

    def _make_shards(self) -> dict[str, list[Callable]]:
        """Returns for each split the functions that yield the examples of a shard."""
        raise NotImplementedError

    def _make_index(self) -> pa.Table:
        """Returns the index of the records that have been written."""
        raise NotImplementedError

    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


class AudiotagClips(_Builder):
    """Dataset of all readable clips: mono, resampled, cropped around the loudest half second.

    `contents` are hashes of the recordings by path; `copies` are by split, for its clips in the source's order;
    `submission` lists the test clips in the order of a submission.
    """

    def __init__(
        self,
        *,
        source: ClipSource,
        settings: ClipSettings,
        num_threads: int,
        contents: Mapping[str, str],
        copies: Mapping[str, Copies],
        submission: Sequence[str] = (),
        metadata: Mapping[str, Any],
        **kwargs,
    ):
        self._source, self._settings, self._num_threads = source, settings, num_threads
        self._contents, self._copies, self._submission = contents, copies, submission
        own = {"classes": list(source.classes), "problems": [], **dataclasses.asdict(settings)}
        own["fold_names"] = list(source.fold_names)
        if is_multi_label(source):
            own["task"] = source.task
        super().__init__(metadata=own | dict(metadata), **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self._settings.stored_samples,)
        waveform = tfds.features.Tensor(shape=shape, dtype=np.float32, encoding="bytes")
        return self._dataset_info("Mono clips of sound.", {"waveform": waveform})

    def _make_shards(self) -> dict[str, list[Callable]]:
        shards: dict[str, list[Callable]] = {}
        for split in SPLITS:
            clips = self._source.clips_of(split)
            for part in _shards(range(len(clips))):
                make = partial(
                    clip_examples,
                    split,
                    clips[part.start : part.stop],
                    [self._contents[clip.path] for clip in clips[part.start : part.stop]],
                    self._copies[split].part(part.start, part.stop),
                    self._settings,
                    self._source.classes,
                    self._num_threads,
                    Path(self._data_dir) / f"problems.{split}-{part.start:010d}.json",
                    self._source.task,
                )
                shards.setdefault(split, []).append(partial(_emptied, make))
        return shards

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        if self.info.splits["train"].num_examples == 0:
            clip = self._source.clips_of("train")[0]
            reason = next(p["reason"] for p in self.info.metadata["problems"] if p["id"] == clip.id)
            total = len(self._source.clips_of("train"))
            raise UserError(
                f"None of the {total} training recordings could be read; the first is {clip.path}: {reason}.\n"
                "Check that config.dataset.path is the folder of the recordings and their tables; --mode=doctor helps."
            )

    def _make_index(self) -> pa.Table:
        """Collects the problems of all shards, too."""
        problems = self.info.metadata["problems"]
        for file in [
            path for split in SPLITS for path in sorted(Path(self._data_dir).glob(f"problems.{split}-*.json"))
        ]:
            problems += json.loads(file.read_text())
            file.unlink()
        left_out = [problem["id"] for problem in problems if problem["outcome"] == LEFT_OUT]
        source = self._source
        return make_index(source.clips, source.classes, self._contents, left_out, self._submission, source.task)


class AudiotagSpectrograms(_Builder):
    """Dataset of one spectrogram variant of a clips dataset, as float16 images `[T, F, C]` in [0, 1].

    `copies` are, by split, those of each channel, for the clips in the order of the clips dataset. A channel has the
    same bits in every combination of channels.
    """

    def __init__(
        self,
        *,
        clips_dir: Path,
        settings: SpectralSettings,
        copies: Mapping[str, Sequence[Copies]],
        metadata: Mapping[str, Any],
        **kwargs,
    ):
        self._clips_dir, self._settings, self._copies = clips_dir, settings, copies
        self._clips = tfds.builder_from_directory(clips_dir)
        own = dict(self._clips.info.metadata) | {"spectral": dataclasses.asdict(settings)}
        super().__init__(metadata=own | dict(metadata), **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = self._settings.image_shape(self._clips.info.features["waveform"].shape[0])
        image = tfds.features.Tensor(shape=shape, dtype=np.float16, encoding="bytes")
        description = f"Spectrograms of sound: {', '.join(self._settings.channels)}."
        return self._dataset_info(description, {"image": image})

    def _make_shards(self) -> dict[str, list[Callable]]:
        def make(split: str, part: range) -> Callable:
            copies = [each.part(part.start, part.stop) for each in self._copies[split]]
            return partial(_emptied, partial(image_examples, self._clips_dir, split, part, self._settings, copies))

        sizes = {split: info.num_examples for split, info in self._clips.info.splits.items()}
        return {split: [make(split, part) for part in _shards(range(size))] for split, size in sizes.items()}

    def _make_index(self) -> pa.Table:
        return read_index(self._clips_dir)


def _emptied(examples: Callable[[], Iterator[tuple[str, dict]]]) -> Iterator[tuple[str, dict]]:
    """Yields a shard's examples and empties each after use, since TFDS keeps them all until it has counted them."""
    for key, example in examples():
        yield key, example
        example.clear()


def _shards(items: range) -> list[range]:
    return [items[i : i + SHARD_CLIPS] for i in range(0, len(items), SHARD_CLIPS)]
