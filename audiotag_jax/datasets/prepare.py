"""Mode `prepare`: settings to prepared datasets. A dataset's folder is named by a hash of all its inputs."""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from audiotag_jax.audio import decode
from audiotag_jax.datasets import builders
from audiotag_jax.datasets.builders import AudiotagClips, AudiotagSpectrograms
from audiotag_jax.datasets.contents import content_hashes
from audiotag_jax.datasets.fsdkaggle2018 import submission_order
from audiotag_jax.datasets.reader import read_metadata
from audiotag_jax.datasets.records import ClipSource, check_recordings
from audiotag_jax.datasets.sources import open_source
from audiotag_jax.runtime.files import locked
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.sections import ClipSettings, DatasetSettings
from audiotag_jax.settings.settings import Settings
from audiotag_jax.spectral.features import CHANNELS, SpectralSettings


def run(settings: Settings, workdir: Path) -> None:
    """Prepares the missing datasets and logs the recordings with problems; `workdir` is not used."""
    del workdir
    directory = prepare(settings)
    report_problems(read_metadata(directory)["problems"], directory)
    log(f"dataset: {directory}")


def prepare(settings: Settings) -> Path:
    """Returns the folder of the dataset that a run trains on, and prepares it if it is missing.

    It contains spectrograms, or clips if the spectrograms are computed on the fly or the network reads waveforms.
    """
    clips_dir = prepare_run_clips(settings)
    if settings.stored_images is None:
        return clips_dir
    return prepare_spectrograms(clips_dir, settings.stored_images, Path(settings.dataset.prepared_dir))


def dataset_name(settings: Settings) -> str:
    """Returns the fingerprint of the network's inputs; prepares the clips for it, but no images."""
    clips_dir = prepare_run_clips(settings)
    return spectrograms_fingerprint(clips_dir, settings.images) if settings.images else clips_dir.parent.name


def prepare_run_clips(settings: Settings) -> Path:
    """Returns the folder of a run's clips dataset, and prepares it if it is missing."""
    dataset = settings.dataset
    return prepare_clips(clip_source(dataset), settings.clips, Path(dataset.prepared_dir), dataset.num_threads)


def clip_digests(dataset: DatasetSettings) -> dict[str, str]:
    """Returns by clip id a hash of the recording's size, beginning and end, which identifies it at any path.

    For a missing recording it is the clip id.
    """
    return {clip.id: _digest(Path(clip.path)) or clip.id for clip in clip_source(dataset).clips}


def _digest(path: Path, num_bytes: int = 16384) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(num_bytes)
            file.seek(max(0, size - num_bytes))
            return hashlib.sha256(b"%d " % size + head + file.read(num_bytes)).hexdigest()[:16]
    except OSError:
        return ""


def recordings_of_clips(dataset: DatasetSettings) -> dict[str, str]:
    """Returns by clip id the name of the recording it was cut from, for clips that have one."""
    return {clip.id: clip.recording for clip in clip_source(dataset).clips if clip.recording}


def test_order(dataset: DatasetSettings) -> tuple[str, ...]:
    """Returns the ids of the test clips in the order of the challenge's sample submission if it exists, else sorted."""
    if dataset.source == "fsdkaggle2018":
        return submission_order(dataset.path)
    return tuple(sorted(clip.id for clip in clip_source(dataset).clips if clip.split == "test"))


def clip_source(dataset: DatasetSettings) -> ClipSource:
    """Lists the clips of a data set, downloading it if needed and possible; reads no audio."""
    source = open_source(
        dataset.source,
        dataset.path,
        table=dataset.table,
        num_folds=dataset.num_folds,
        seed=dataset.fold_seed,
        download=dataset.download,
    )
    return check_recordings(source) if dataset.source == "folder" else source


def prepare_clips(source: ClipSource, settings: ClipSettings, prepared_dir: Path, num_threads: int = 0) -> Path:
    """Returns the folder of the clips dataset of `source`, and prepares it if it is missing."""
    threads = num_threads or os.cpu_count() or 1
    make = functools.partial(AudiotagClips, source=source, settings=settings, num_threads=threads)
    contents = content_hashes({clip.path for clip in source.clips}, prepared_dir, threads)
    return _prepared(make, AudiotagClips.name, prepared_dir, clips_fingerprint(source, settings, contents))


def prepare_spectrograms(clips_dir: Path, settings: SpectralSettings, prepared_dir: Path) -> Path:
    """Returns the folder of the spectrogram dataset of a clips dataset, and prepares it if it is missing."""

    def make(**kwargs) -> AudiotagSpectrograms:
        stored = _single_channels(clips_dir, settings, prepared_dir)
        return AudiotagSpectrograms(clips_dir=clips_dir, settings=settings, stored=stored, **kwargs)

    return _prepared(make, AudiotagSpectrograms.name, prepared_dir, spectrograms_fingerprint(clips_dir, settings))


def _single_channels(clips_dir: Path, settings: SpectralSettings, prepared_dir: Path) -> dict[str, Path]:
    """Returns the existing single-channel datasets of a variant with several channels, by channel."""
    stored = {}
    for channel in settings.channels if len(settings.channels) > 1 else ():
        fingerprint = spectrograms_fingerprint(clips_dir, dataclasses.replace(settings, channels=(channel,)))
        directory = _version_dir(prepared_dir, AudiotagSpectrograms.name, fingerprint)
        if _is_complete(directory):
            stored[channel] = directory
    return stored


def clips_fingerprint(source: ClipSource, settings: ClipSettings, contents: dict[str, str]) -> str:
    """Returns a hash of the clips' records, their files' `contents` (hashes by path), settings and decoder version.

    The code's text and the libraries' versions are left out: `decode.VERSION` changes when decoded samples do.
    """
    files = [[clip.id, clip.label, clip.fold, clip.split, clip.verified, contents[clip.path]] for clip in source.clips]
    return _hash([source.classes, files, dataclasses.asdict(settings), decode.VERSION])


def spectrograms_fingerprint(clips_dir: Path, settings: SpectralSettings) -> str:
    """Returns a hash of the clips dataset's fingerprint, the settings, and the version of each channel's algorithm.

    The device and the version of JAX that computed the images are left out.
    """
    versions = [CHANNELS[channel].version for channel in settings.channels]
    return _hash([Path(clips_dir).parent.name, dataclasses.asdict(settings), versions])


def report_problems(problems: list[dict[str, str]], dataset_dir: Path, most: int = 20) -> None:
    """Logs up to `most` recordings with problems and their treatment, and the counts of all."""
    for problem in problems[:most]:
        log(f"{problem['split']} clip {problem['id']}: {problem['reason']}; {problem['outcome']}")
    if len(problems) > most:
        log(f"… and {len(problems) - most} more, listed in {dataset_dir / 'metadata.json'}")
    outcomes = [problem["outcome"] for problem in problems]
    counts = [f"{outcomes.count(kind)} {kind}" for kind in (builders.LEFT_OUT, builders.SILENCE, builders.KEPT)]
    log(f"recordings with problems: {len(problems)} ({', '.join(counts)})")


def _prepared(make: Callable, name: str, prepared_dir: Path, fingerprint: str) -> Path:
    """Returns the dataset's folder; prepares a missing one under a lock, in a temporary folder, and renames that."""
    directory = _version_dir(prepared_dir, name, fingerprint)
    folder = directory.parent
    if _is_complete(directory):  # no lock: the folder may be read-only
        return directory
    with locked(folder, "preparing", wait=True):
        for path in folder.iterdir():  # TFDS takes any folder of the right name as a complete dataset
            if path.name.startswith("incomplete.") or (path.is_dir() and not _is_complete(path)):
                shutil.rmtree(path)
        tfds.disable_progress_bar()
        builder = make(data_dir=prepared_dir, fingerprint=fingerprint)
        if not _is_complete(directory):  # else another process has prepared it meanwhile
            log(f"preparing {directory}")
            builder.download_and_prepare(download_dir=folder / "incomplete.downloads")
            shutil.rmtree(folder / "incomplete.downloads", ignore_errors=True)
            counts = (f"{info.num_examples} {split} clips" for split, info in builder.info.splits.items())
            log(f"prepared {', '.join(counts)}")
        return directory


def _version_dir(prepared_dir: Path, name: str, fingerprint: str) -> Path:
    return prepared_dir / name / fingerprint / str(AudiotagClips.VERSION)


def _is_complete(directory: Path) -> bool:
    return (directory / "dataset_info.json").is_file()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
