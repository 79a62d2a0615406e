"""Mode `prepare`: settings to prepared datasets. A dataset's folder is named by a hash of all its inputs.

They are the table, the bytes of the recordings, the settings, and versions of the decoder and of each channel. Records
that another dataset already contains, as after a changed label, are copied from it.
"""

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import tensorflow_datasets as tfds

from audiotag_jax.audio import decode, ffmpeg
from audiotag_jax.audio.files import printable
from audiotag_jax.datasets import fsdkaggle2018, fsdkaggle2019
from audiotag_jax.datasets.beam import download_config
from audiotag_jax.datasets.builders import AudiotagClips, AudiotagSpectrograms
from audiotag_jax.datasets.contents import content_hashes
from audiotag_jax.datasets.copies import Copies, find_clips, find_images
from audiotag_jax.datasets.index import (
    copies_across_folds,
    hash_notes,
    make_index,
    read_index,
    rows_of,
    save_index,
    stored_notes,
)
from audiotag_jax.datasets.names import clips_fingerprint, spectrograms_fingerprint
from audiotag_jax.datasets.other_versions import find_of_other_versions
from audiotag_jax.datasets.prepared import is_complete, read_metadata, version_dir
from audiotag_jax.datasets.records import KEPT, LEFT_OUT, SILENCE, SPLITS, ClipSource
from audiotag_jax.datasets.sources import clip_source
from audiotag_jax.datasets.without_recordings import find_prepared, find_stored, has_no_files
from audiotag_jax.runtime.environment import environment
from audiotag_jax.runtime.files import locked
from audiotag_jax.runtime.progress import log, log_once
from audiotag_jax.settings.sections import ClipSettings, DatasetSettings
from audiotag_jax.settings.settings import Settings
from audiotag_jax.spectral.features import SpectralSettings, channel_version

# Of the sources whose challenge gives an order of the test clips.
_SUBMISSION_ORDERS = {
    "fsdkaggle2018": fsdkaggle2018.submission_order,
    "fsdkaggle2019": fsdkaggle2019.submission_order,
}


def run(settings: Settings, workdir: Path) -> None:
    """Prepares the missing datasets and logs the recordings with problems; `workdir` is not used."""
    del workdir
    directory = prepare(settings)
    report_problems(read_metadata(directory)["problems"], directory)
    warn_of_copies(directory)
    log(f"dataset: {directory}")


def prepare(settings: Settings, recorded: str | None = None) -> Path:
    """Returns the folder of the dataset that a run trains on, and prepares it if it is missing.

    It contains spectrograms, or clips if the spectrograms are computed on the fly or the network reads waveforms.
    `recorded` is the name of the dataset in the record of a run of these settings: that dataset is used as long as it
    differs in nothing but the versions of algorithms, and decides if the recordings are gone and several would do.
    """
    dataset = settings.dataset
    how = download_config(dataset.beam_runner, dataset.beam_options)  # first: an unknown runner costs no download
    if recorded and (directory := find_of_other_versions(settings, recorded)):
        return directory
    clips_dir = prepare_run_clips(settings, recorded)
    if settings.stored_images is None:
        return clips_dir
    return prepare_spectrograms(clips_dir, settings.stored_images, Path(dataset.prepared_dir), how)


def dataset_name(settings: Settings) -> str:
    """Returns the fingerprint of the network's inputs; prepares the clips for it, but no images."""
    return _name_of_inputs(settings, prepare_run_clips(settings))


def prepare_run_clips(settings: Settings, recorded: str | None = None) -> Path:
    """Returns the folder of a run's clips dataset, and prepares it if it is missing.

    If none of the recordings is there, it is the dataset that was prepared from them, if there is one.
    """
    dataset, name = settings.dataset, functools.partial(_name_of_inputs, settings)
    if has_no_files(dataset) and (found := find_prepared(settings, None, name, recorded)):
        return found
    source = clip_source(dataset)
    if not any(Path(clip.path).is_file() for clip in source.clips) and (
        found := find_prepared(settings, source, name, recorded)
    ):
        return found
    order = _SUBMISSION_ORDERS.get(dataset.source)
    submission = order(dataset.path) if order else ()
    return prepare_clips(
        source,
        settings.clips,
        Path(dataset.prepared_dir),
        dataset.num_threads,
        dataset=dataset,
        submission=submission,
        keeps=lambda clips_dir: name(clips_dir) == recorded,
    )


def stored_datasets(settings: Settings, recorded: str | None = None) -> tuple[Path | None, Path | None]:
    """Returns the folders of a run's clips and of its images as far as they are there; prepares nothing.

    `recorded` is the name of the dataset in the run's record.
    """
    clips_dir = find_stored(settings, functools.partial(_name_of_inputs, settings), recorded)
    if clips_dir is None or settings.stored_images is None:
        return clips_dir, None
    fingerprint = spectrograms_fingerprint(clips_dir, settings.stored_images)
    images_dir = version_dir(Path(settings.dataset.prepared_dir), AudiotagSpectrograms.name, fingerprint)
    return clips_dir, images_dir if is_complete(images_dir) else None


def prepare_clips(
    source: ClipSource,
    settings: ClipSettings,
    prepared_dir: Path,
    num_threads: int = 0,
    *,
    dataset: DatasetSettings | None = None,
    submission: Sequence[str] = (),
    keeps: Callable[[Path], bool] = lambda _: False,
) -> Path:
    """Returns the folder of the clips dataset of `source`, and prepares it if it is missing.

    `dataset` are the settings that `source` comes from, `submission` its test clips in the order of a submission.
    A dataset that lacks clips, since PyAV was not installed, is made again once it is, unless a run `keeps` it.
    """
    threads = num_threads or os.cpu_count() or 1
    contents = content_hashes({clip.path for clip in source.clips}, prepared_dir, threads)
    name = functools.partial(clips_fingerprint, source, settings, contents)
    again, first = False, version_dir(prepared_dir, AudiotagClips.name, name())
    if is_complete(first) and _lacks_pyav(first) and not keeps(first):
        made_again = version_dir(prepared_dir, AudiotagClips.name, name(again_with_pyav=True))
        again = ffmpeg.is_installed() or is_complete(made_again)

    def make(**kwargs) -> AudiotagClips:
        sounds = {
            split: pa.array([contents[clip.path] for clip in source.clips_of(split)], pa.string()) for split in SPLITS
        }
        copies = {split: find_clips(each, settings, prepared_dir, AudiotagClips.name) for split, each in sounds.items()}
        made_by = _made_by(list(copies.values()), "clips")
        metadata = {
            "source": {"name": source.name, **_source_settings(dataset)},
            "versions": {"decoder": decode.VERSION},
            "provenance": {"clips": made_by},
            **({"again_with_pyav": True} if again else {}),
        }
        return AudiotagClips(
            source=source,
            settings=settings,
            num_threads=threads,
            contents=contents,
            copies=copies,
            submission=submission,
            metadata=metadata,
            **kwargs,
        )

    how = download_config(dataset.beam_runner, dataset.beam_options) if dataset else None
    directory = _prepared(make, AudiotagClips.name, prepared_dir, name(again_with_pyav=again), how)
    if stored_notes(directory) != hash_notes(source.clips, submission):  # no index yet, or another table or submission
        left_out = [each["id"] for each in read_metadata(directory)["problems"] if each["outcome"] == LEFT_OUT]
        index = make_index(source.clips, source.classes, contents, left_out, submission, source.task)
        save_index(directory, index)
    return directory


def prepare_spectrograms(
    clips_dir: Path,
    settings: SpectralSettings,
    prepared_dir: Path,
    how: tfds.download.DownloadConfig | None = None,
) -> Path:
    """Returns the folder of the spectrogram dataset of a clips dataset; prepares it, with options `how`, if missing."""
    name = AudiotagSpectrograms.name

    def make(**kwargs) -> AudiotagSpectrograms:
        index = read_index(clips_dir)
        for channel in settings.channels:  # datasets of earlier releases have no index, which copying needs
            single = spectrograms_fingerprint(clips_dir, dataclasses.replace(settings, channels=(channel,)))
            if is_complete(folder := version_dir(prepared_dir, name, single)):
                _copy_index(clips_dir, folder)
        clips, sounds = read_metadata(clips_dir), {split: rows_of(index, split)["sound"] for split in SPLITS}
        find = functools.partial(find_images, clips=clips, settings=settings, prepared_dir=prepared_dir, builder=name)
        copies = {split: [find(each, channel) for channel in settings.channels] for split, each in sounds.items()}
        made_by = _made_by([each for split in SPLITS for each in copies[split]], "images")
        metadata = {
            "clips": clips_dir.parent.name,
            "versions": clips.get("versions", {})
            | {channel: channel_version(channel) for channel in settings.channels},
            "provenance": clips.get("provenance", {}) | {"images": made_by},
        }
        return AudiotagSpectrograms(clips_dir=clips_dir, settings=settings, copies=copies, metadata=metadata, **kwargs)

    directory = _prepared(make, name, prepared_dir, spectrograms_fingerprint(clips_dir, settings), how)
    _copy_index(clips_dir, directory)
    return directory


def _lacks_pyav(clips_dir: Path) -> bool:
    return any(ffmpeg.HINT in problem["reason"] for problem in read_metadata(clips_dir)["problems"])


def _made_by(copies: Sequence[Copies], kind: str) -> list[dict[str, str]]:
    """Returns the environments in which records of a `kind` are made: here, and those of what is copied."""
    total, missing = sum(len(each.which) for each in copies), sum(int((each.which < 0).sum()) for each in copies)
    environments = [environment()] if missing else []
    for directory in sorted({directory for each in copies for directory in each.used()}):
        environments += read_metadata(directory).get("provenance", {}).get(kind, [])
    if missing < total:
        log(f"copying {total - missing} of {total} {kind} from earlier datasets")
    return [each for number, each in enumerate(environments) if each not in environments[:number]]


def _source_settings(dataset: DatasetSettings | None) -> dict[str, Any]:
    """Returns what a dataset records of where its clips come from."""
    if dataset is None:
        return {}
    where = {"path": dataset.path, "folder": str(Path(dataset.path).absolute()), "table": dataset.table}
    separator = {"label_separator": dataset.label_separator} if dataset.label_separator else {}
    return where | {"num_folds": dataset.num_folds, "fold_seed": dataset.fold_seed} | separator


def _copy_index(clips_dir: Path, directory: Path) -> None:
    """Gives a dataset of images the index of its clips if it has another one, or none."""
    if (notes := stored_notes(clips_dir)) is None or stored_notes(directory) != notes:
        save_index(directory, read_index(clips_dir))


def _name_of_inputs(settings: Settings, clips_dir: Path) -> str:
    return spectrograms_fingerprint(clips_dir, settings.images) if settings.images else clips_dir.parent.name


def report_problems(problems: list[dict[str, str]], dataset_dir: Path, most: int = 20) -> None:
    """Logs up to `most` recordings with problems and their treatment, and the counts of all; nothing without any."""
    if not problems:
        return
    for problem in problems[:most]:
        log(printable(f"{problem['split']} clip {problem['id']}: {problem['reason']}; {problem['outcome']}"))
    if len(problems) > most:
        log(f"… and {len(problems) - most} more, listed in {dataset_dir / 'metadata.json'}")
    outcomes = [problem["outcome"] for problem in problems]
    counts = [f"{outcomes.count(kind)} {kind}" for kind in (LEFT_OUT, SILENCE, KEPT)]
    log(f"recordings with problems: {len(problems)} ({', '.join(counts)})")


def warn_of_copies(dataset_dir: Path) -> None:
    """Logs, once for the same data, that identical sounds lie in different folds or in training and test."""
    if groups := copies_across_folds(dataset_dir):
        log_once(
            f"warning: identical sounds in different folds or splits, {len(groups)} in all, such as "
            f"{' = '.join(map(printable, groups[0][:2]))}: held-out scores are too good; mode doctor lists them"
        )


def _prepared(
    make: Callable,
    name: str,
    prepared_dir: Path,
    fingerprint: str,
    how: tfds.download.DownloadConfig | None = None,
) -> Path:
    """Returns the dataset's folder; prepares a missing one under a lock, in a temporary folder, and renames that."""
    directory = version_dir(prepared_dir, name, fingerprint)
    folder = directory.parent
    if is_complete(directory):  # no lock: the folder may be read-only
        return directory
    with locked(folder, "preparing", wait=True):
        for path in folder.iterdir():  # TFDS takes any folder of the right name as a complete dataset
            if path.name.startswith("incomplete.") or (path.is_dir() and not is_complete(path)):
                shutil.rmtree(path)
        tfds.disable_progress_bar()
        builder = make(data_dir=prepared_dir, fingerprint=fingerprint)
        if not is_complete(directory):  # else another process has prepared it meanwhile
            log(f"preparing {directory}")
            builder.download_and_prepare(download_dir=folder / "incomplete.downloads", download_config=how)
            shutil.rmtree(folder / "incomplete.downloads", ignore_errors=True)
            counts = (f"{info.num_examples} {split} clips" for split, info in builder.info.splits.items())
            log(f"prepared {', '.join(counts)}")
        return directory
