"""From a configuration to prepared datasets. A dataset's folder is named by the fingerprint of all that made it."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import soundfile
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from audiotag_jax.audio import decode
from audiotag_jax import spectral
from audiotag_jax.datasets import builders
from audiotag_jax.datasets.builders import AudiotagClips, AudiotagSpectrograms, ClipSettings
from audiotag_jax.datasets.contents import content_hashes
from audiotag_jax.datasets.records import ClipSource, check_recordings
from audiotag_jax.datasets.sources import open_source
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked
from audiotag_jax.runtime.progress import log
from audiotag_jax.spectral.features import SpectralSettings

WAVEFORM = ("waveform",)  # the channels of a configuration without spectrograms


def prepare(config: ConfigDict) -> Path:
    """The folder of the dataset that the configuration trains on, made if it is not there yet.

    It holds spectrograms, or clips where they become spectrograms on the fly, or stay waveforms.
    """
    clips_dir = _clips(config)
    if trains_on_clips(config):
        return clips_dir
    return prepare_spectrograms(clips_dir, spectral_settings(config), Path(config.dataset.prepared_dir))


def dataset_fingerprint(config: ConfigDict) -> str:
    """Of all that makes what the configuration's network sees; clips are prepared for it, images are not."""
    clips_dir, settings = _clips(config), spectral_settings(config)
    return spectrograms_fingerprint(clips_dir, settings) if settings else clips_dir.parent.name


def _clips(config: ConfigDict) -> Path:
    dataset = config.dataset
    return prepare_clips(_source(config), clip_settings(config), Path(dataset.prepared_dir), dataset.num_threads)


def clip_digests(config: ConfigDict) -> dict[str, str]:
    """By clip id, what tells a recording from all others wherever it lies: a hash of its size, beginning and end.

    Where the recording is gone, its id must do.
    """
    return {clip.id: _digest(Path(clip.path)) or clip.id for clip in _source(config).clips}


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


def recordings_of_clips(config: ConfigDict) -> dict[str, str]:
    """By clip id, the name of the recording it was cut from; clips that stand alone are left out."""
    return {clip.id: clip.recording for clip in _source(config).clips if clip.recording}


def _source(config: ConfigDict) -> ClipSource:
    dataset = config.dataset
    source = open_source(
        dataset.source,
        dataset.path,
        table=dataset.table,
        num_folds=dataset.num_folds,
        seed=dataset.fold_seed,
        download=dataset.download,
    )
    return check_recordings(source) if dataset.source == "folder" else source


def trains_on_clips(config: ConfigDict) -> bool:
    """Whether a configuration's steps take waveforms, and not images."""
    return config.dataset.on_the_fly or tuple(config.spectral.channels) == WAVEFORM


def clip_settings(config: ConfigDict) -> ClipSettings:
    """The settings of a configuration's clips dataset; raises UserError on a bad value."""
    dataset = config.dataset
    margin_s = dataset.margin_s if trains_on_clips(config) else 0.0
    fields = {"sample_rate_hz": dataset.sample_rate_hz, "duration_s": dataset.duration_s, "margin_s": margin_s}
    return _settings(ClipSettings, **fields)


def spectral_settings(config: ConfigDict) -> SpectralSettings | None:
    """The spectral settings of a configuration, None for plain waveforms; raises UserError on a bad value."""
    if tuple(config.spectral.channels) == WAVEFORM:
        return None
    fields = {**config.spectral, "channels": tuple(config.spectral.channels)}
    return _settings(SpectralSettings, sample_rate_hz=config.dataset.sample_rate_hz, **fields)


def prepare_clips(source: ClipSource, settings: ClipSettings, prepared_dir: Path, num_threads: int = 0) -> Path:
    """The folder of the clips dataset of `source`, decoded now if it is not there yet."""
    threads = num_threads or os.cpu_count() or 1
    make = functools.partial(AudiotagClips, source=source, settings=settings, num_threads=threads)
    contents = content_hashes({clip.path for clip in source.clips}, prepared_dir, threads)
    return _prepared(make, AudiotagClips.name, prepared_dir, clips_fingerprint(source, settings, contents))


def prepare_spectrograms(clips_dir: Path, settings: SpectralSettings, prepared_dir: Path) -> Path:
    """The folder of the spectrogram dataset of a clips dataset, computed now if it is not there yet."""

    def make(**kwargs) -> AudiotagSpectrograms:
        stored = _single_channels(clips_dir, settings, prepared_dir)
        return AudiotagSpectrograms(clips_dir=clips_dir, settings=settings, stored=stored, **kwargs)

    return _prepared(make, AudiotagSpectrograms.name, prepared_dir, spectrograms_fingerprint(clips_dir, settings))


def _single_channels(clips_dir: Path, settings: SpectralSettings, prepared_dir: Path) -> dict[str, Path]:
    """Of several channels, the datasets of each alone that are there already."""
    stored = {}
    for channel in settings.channels if len(settings.channels) > 1 else ():
        fingerprint = spectrograms_fingerprint(clips_dir, dataclasses.replace(settings, channels=(channel,)))
        directory = _version_dir(prepared_dir, AudiotagSpectrograms.name, fingerprint)
        if _is_whole(directory):
            stored[channel] = directory
    return stored


def clips_fingerprint(source: ClipSource, settings: ClipSettings, contents: dict[str, str]) -> str:
    """Hash of the clips' records, what their files hold (by path), the settings, the code and the decoders."""
    files = [[clip.id, clip.label, clip.fold, clip.split, clip.verified, contents[clip.path]] for clip in source.clips]
    libraries = [importlib.metadata.version("soxr"), soundfile.__libsndfile_version__]
    code = _code_of(decode, builders)
    return _hash([source.classes, files, dataclasses.asdict(settings), libraries, code])


def spectrograms_fingerprint(clips_dir: Path, settings: SpectralSettings) -> str:
    """Hash of the clips dataset's own fingerprint, the settings, the code and the JAX that computes them."""
    folder = Path(spectral.__file__).parent
    code = [path.read_text() for path in sorted(folder.glob("*.py"))] + _code_of(builders)
    return _hash(
        [Path(clips_dir).parent.name, dataclasses.asdict(settings), jax.__version__, jax.default_backend(), code]
    )


def report_problems(problems: list[dict[str, str]], dataset_dir: Path, most: int = 20) -> None:
    """Prints the recordings that were left out, replaced or cut, and a line that counts them."""
    for problem in problems[:most]:
        log(f"{problem['split']} clip {problem['id']}: {problem['reason']}; {problem['outcome']}")
    if len(problems) > most:
        log(f"… and {len(problems) - most} more, listed in {dataset_dir / 'metadata.json'}")
    outcomes = [problem["outcome"] for problem in problems]
    counts = [f"{outcomes.count(kind)} {kind}" for kind in (builders.LEFT_OUT, builders.SILENCE, builders.KEPT)]
    log(f"recordings with problems: {len(problems)} ({', '.join(counts)})")


def _prepared(make: Callable, name: str, prepared_dir: Path, fingerprint: str) -> Path:
    """The dataset's folder; written under a lock into a folder of its own, and renamed when whole."""
    directory = _version_dir(prepared_dir, name, fingerprint)
    folder = directory.parent
    if _is_whole(directory):  # no lock: it may lie where nothing can be written
        return directory
    with locked(folder, "preparing", wait=True):
        for path in folder.iterdir():  # TFDS would take any folder of the right name for a whole dataset
            if path.name.startswith("incomplete.") or (path.is_dir() and not _is_whole(path)):
                shutil.rmtree(path)
        tfds.disable_progress_bar()
        builder = make(data_dir=prepared_dir, fingerprint=fingerprint)
        if not _is_whole(directory):  # else another process made it meanwhile
            log(f"preparing {directory}")
            builder.download_and_prepare(download_dir=folder / "incomplete.downloads")
            shutil.rmtree(folder / "incomplete.downloads", ignore_errors=True)
            counts = (f"{info.num_examples} {split} clips" for split, info in builder.info.splits.items())
            log(f"prepared {', '.join(counts)}")
        return directory


def _version_dir(prepared_dir: Path, name: str, fingerprint: str) -> Path:
    return prepared_dir / name / fingerprint / str(AudiotagClips.VERSION)


def _is_whole(directory: Path) -> bool:
    return (directory / "dataset_info.json").is_file()


def _settings(kind: type, **fields: Any):
    try:
        return kind(**fields)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


def _code_of(*modules) -> list[str]:
    return [inspect.getsource(module) for module in modules]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
