"""Prepared datasets on disk: where they lie, whether they are complete, their metadata and their records."""

import functools
import json
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

VERSION = "1.0.0"  # of the records' format, the last part of every dataset's path


def version_dir(prepared_dir: Path, name: str, fingerprint: str) -> Path:
    """Returns the folder of a dataset, which need not exist."""
    return prepared_dir / name / fingerprint / VERSION


def is_complete(directory: Path) -> bool:
    """Returns whether the folder contains a complete dataset."""
    return (directory / "dataset_info.json").is_file()


def complete_datasets(prepared_dir: Path, name: str) -> list[Path]:
    """Returns the folders of all complete datasets of one builder, the newest first, then by name."""
    folders = [path.parent for path in prepared_dir.glob(f"{name}/*/{VERSION}/dataset_info.json")]
    return sorted(folders, key=lambda folder: (-(folder / "dataset_info.json").stat().st_mtime_ns, str(folder)))


def read_metadata(directory: Path) -> dict[str, Any]:
    """Returns the metadata that a builder stored: classes, settings, problems, versions, provenance."""
    return json.loads((directory / "metadata.json").read_text(encoding="utf-8"))


def split_sizes(directory: Path) -> dict[str, int]:
    """Returns the number of records by split."""
    return {split: info.num_examples for split, info in tfds.builder_from_directory(directory).info.splits.items()}


@functools.lru_cache(maxsize=64)
def record_source(directory: Path, split: str, names: tuple[str, ...]):
    """Returns a TFDS data source of a split that decodes only the named fields."""
    builder = tfds.builder_from_directory(directory)
    unwanted = {name: tfds.decode.SkipDecoding() for name in builder.info.features if name not in names}
    return builder.as_data_source(split, decoders=unwanted)
