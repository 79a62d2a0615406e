"""The dataset of a run that began before an algorithm had its present version: the run keeps it."""

import os
from collections.abc import Mapping
from pathlib import Path

from audiotag_jax.audio import decode
from audiotag_jax.datasets.builders import AudiotagClips, AudiotagSpectrograms
from audiotag_jax.datasets.contents import content_hashes
from audiotag_jax.datasets.copies import clip_settings, versions
from audiotag_jax.datasets.names import clips_fingerprint, hash_images, spectrograms_fingerprint
from audiotag_jax.datasets.prepared import complete_datasets, is_complete, read_metadata, version_dir
from audiotag_jax.datasets.sources import clip_source
from audiotag_jax.datasets.without_recordings import has_clips, has_no_files
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.settings import Settings
from audiotag_jax.spectral.features import channel_version


def find_of_other_versions(settings: Settings, recorded: str) -> Path | None:
    """Returns, with a note, the dataset that a run of these settings calls `recorded`, if it is of other versions.

    Nothing but the versions of algorithms may set it apart from the dataset of the settings. Where the recordings are
    gone, table and settings are compared, or the settings alone.
    """
    images = settings.stored_images
    if (directory := _find(settings, recorded)) is None:
        return None
    made_by = versions(read_metadata(directory))
    now = {"decoder": decode.VERSION} | {name: channel_version(name) for name in (images.channels if images else ())}
    if made_by == now or made_by.keys() != now.keys() or not _is_of_same_data(settings, directory, recorded, made_by):
        return None
    changed = ", ".join(f"{each} {made_by[each]} (now {now[each]})" for each in now if made_by[each] != now[each])
    log(f"note: {directory} is used, which the run began with; versions of the algorithms: {changed}")
    return directory


def _find(settings: Settings, recorded: str) -> Path | None:
    prepared_dir, images = Path(settings.dataset.prepared_dir), settings.images
    if images and not settings.stored_images:  # computed in the steps: the run knows the images' name alone
        clips = complete_datasets(prepared_dir, AudiotagClips.name)
        return next((each for each in clips if spectrograms_fingerprint(each, images) == recorded), None)
    directory = version_dir(prepared_dir, (AudiotagSpectrograms if images else AudiotagClips).name, recorded)
    return directory if is_complete(directory) else None


def _is_of_same_data(settings: Settings, directory: Path, recorded: str, made_by: Mapping[str, int]) -> bool:
    dataset, images = settings.dataset, settings.images
    if clip_settings(read_metadata(directory)) != settings.clips:
        return False
    if has_no_files(dataset):
        return True
    source = clip_source(dataset)
    if not any(Path(clip.path).is_file() for clip in source.clips):
        return has_clips(directory, source)
    contents = content_hashes({clip.path for clip in source.clips}, Path(dataset.prepared_dir), os.cpu_count() or 1)
    again = read_metadata(directory).get("again_with_pyav", False)
    name = clips_fingerprint(source, settings.clips, contents, made_by["decoder"], again_with_pyav=again)
    if images:
        channels = [made_by.get(channel, channel_version(channel)) for channel in images.channels]
        name = hash_images(name, images, channels)
    return name == recorded
