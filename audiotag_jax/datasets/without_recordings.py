"""Prepared datasets in place of recordings that are not there: on another machine, or deleted since."""

from collections.abc import Callable
from pathlib import Path

from audiotag_jax.audio import decode
from audiotag_jax.audio.files import contains_file, readable_suffixes
from audiotag_jax.datasets.builders import AudiotagClips
from audiotag_jax.datasets.copies import clip_settings, versions
from audiotag_jax.datasets.index import make_index, read_index
from audiotag_jax.datasets.prepared import complete_datasets, read_metadata
from audiotag_jax.datasets.records import LEFT_OUT, ClipSource
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log_once
from audiotag_jax.settings.sections import DatasetSettings
from audiotag_jax.settings.settings import Settings


def has_no_files(dataset: DatasetSettings) -> bool:
    """Returns whether there is neither a table nor a recording at the path; the demo's sounds are always at hand.

    Of a folder of labels only sound files count: a README may have been left there. So they do of AudioSet, whose
    tables alone list no clip.
    """
    if dataset.source == "demo":
        return False
    if dataset.source == "folder" and dataset.table and Path(dataset.table).is_file():
        return False  # a table elsewhere
    only_sounds = dataset.source == "audioset" or (dataset.source == "folder" and not dataset.table)
    return not contains_file(Path(dataset.path), readable_suffixes() if only_sounds else ())


def find_prepared(
    settings: Settings, source: ClipSource | None, name: Callable[[Path], str], recorded: str | None
) -> Path | None:
    """Returns the complete clips dataset that was prepared for these settings, with a note; None if there is none.

    It must have the clips of `source`, or, if there is no table either, come from the same public data set, or from the
    same path, with the same assignment of folds. `name` gives what a run calls a clips dataset and `recorded` what it
    called its own, which decides between several, as does the present version of the decoder. Raises UserError if
    several are left.
    """
    dataset, prepared_dir = settings.dataset, Path(settings.dataset.prepared_dir)
    found = [
        directory
        for directory in complete_datasets(prepared_dir, AudiotagClips.name)
        if clip_settings(read_metadata(directory)) == settings.clips
        and (has_clips(directory, source) if source else _comes_from(directory, dataset) or name(directory) == recorded)
    ]
    found = [directory for directory in found if name(directory) == recorded] or found
    found = [directory for directory in found if _is_from_same_path(directory, dataset)] or found
    found = [directory for directory in found if _decoder(directory) == decode.VERSION] or found
    found = [directory for directory in found if read_metadata(directory).get("again_with_pyav")] or found
    if len(found) > 1:
        listed = ", ".join(map(str, found[:3])) + (", …" if len(found) > 3 else "")
        raise UserError(
            f"There are no recordings in {dataset.path}, and {len(found)} prepared datasets fit them: {listed}.\n"
            "Put the recordings back, or move away the datasets that are not meant."
        )
    if not found:
        return None
    decoder = _decoder(found[0])
    by = f" by version {decoder} of the decoder (now {decode.VERSION})" if decoder != decode.VERSION else ""
    log_once(f"note: there are no recordings in {dataset.path}; using {found[0]}, which was prepared from them{by}")
    return found[0]


def find_stored(settings: Settings, name: Callable[[Path], str], recorded: str | None) -> Path | None:
    """Returns the complete clips dataset of a run, whether its recordings are there or not; None if there is none.

    It is the one for which `name` gives what the run `recorded`, else the newest that comes from the same data.
    """
    found = complete_datasets(Path(settings.dataset.prepared_dir), AudiotagClips.name)
    found = [each for each in found if clip_settings(read_metadata(each)) == settings.clips]
    own = [each for each in found if name(each) == recorded]
    return next(iter(own or [each for each in found if _comes_from(each, settings.dataset)]), None)


def _decoder(directory: Path) -> int:
    return versions(read_metadata(directory))["decoder"]


def _comes_from(directory: Path, dataset: DatasetSettings) -> bool:
    fields = {"name": dataset.source, "num_folds": dataset.num_folds, "fold_seed": dataset.fold_seed}
    same = fields.items() <= read_metadata(directory).get("source", {}).items()
    return same and (dataset.source != "folder" or _is_from_same_path(directory, dataset))


def _is_from_same_path(directory: Path, dataset: DatasetSettings) -> bool:
    source = read_metadata(directory).get("source", {})
    given = dataset.path == source.get("path") or str(Path(dataset.path).absolute()) == source.get("folder")
    same_labels = source.get("label_separator", "") == dataset.label_separator
    return given and same_labels and source.get("table") == dataset.table


def has_clips(directory: Path, source: ClipSource) -> bool:
    """Returns whether the table of the source is that of the dataset; recordings that could not be read are lacking."""
    metadata = read_metadata(directory)
    if (
        metadata["classes"] != list(source.classes)
        or metadata.get("source", {}).get("name", source.name) != source.name
    ):
        return False
    left_out = [each["id"] for each in metadata["problems"] if each["outcome"] == LEFT_OUT]
    index = make_index(source.clips, source.classes, {}, left_out, task=source.task)
    stored = read_index(directory)
    columns = [name for name in index.column_names if name in ("split", "id", "label", "labels", "fold", "verified")]
    return set(columns) <= set(stored.column_names) and stored.select(columns).equals(index.select(columns))
