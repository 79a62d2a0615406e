"""Preparing on several machines: TFDS writes a dataset's shards in an Apache Beam pipeline, one shard a task.

The records are those of the local way: the same functions make them, in whatever process they run.
"""

import dataclasses
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from audiotag_jax.runtime.errors import UserError


def download_config(runner: str, options: str) -> tfds.download.DownloadConfig:
    """Returns how TFDS prepares a dataset: by Beam's `runner` with its command line `options`, or here if that is "".

    Options are separated as in a shell. Raises UserError if Beam is not installed, or has no such runner.
    """
    if not runner:
        return tfds.download.DownloadConfig()
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners.runner import create_runner
    except ImportError as error:
        raise UserError(
            "config.dataset.beam_runner needs Apache Beam, in an environment of its own: "
            "pip install -r requirements.txt -r requirements-beam.txt"
        ) from error
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"config.dataset.beam_runner: {str(error).splitlines()[0]}") from error
    try:
        arguments = shlex.split(options)
    except ValueError as error:
        raise UserError(f"config.dataset.beam_options is {options!r}: {error}.") from error
    return tfds.download.DownloadConfig(beam_runner=runner, beam_options=PipelineOptions(arguments))


def write_splits(
    builder: tfds.core.ShardBasedBuilder, shards: dict[str, list[Callable]], write: Callable[[], None]
) -> None:
    """Calls `write` with one split at a time in `shards`, which `builder` reads; then gives it the sizes of all.

    TFDS 4.9 would add a second split to the pipeline of the first, and run that again. It lists the sizes of shards in
    the order of their numbers as text (0, 1, 10, 11, …, 2), so that they are counted again here. A worker's UserError
    is raised as such.
    """
    infos, everything = [], dict(shards)
    for split, makers in everything.items():
        shards.clear()
        shards[split] = makers
        try:
            write()
        except Exception as error:
            if found := user_error_in(error):
                raise found from error
            raise
        info = builder.info.splits[split]
        infos.append(dataclasses.replace(info, shard_lengths=[_count(path) for path in info.filepaths]))
    builder.info.set_splits(tfds.core.SplitDict(infos))
    for leftover in Path(builder.data_dir).glob("*.shard_infos.json"):
        leftover.unlink()


def user_error_in(error: Exception) -> UserError | None:
    """Returns the UserError of a worker, which runners raise again with the step's name, or as text in another one."""
    text, step = str(error), re.compile(r" \[while running .*", re.DOTALL)
    if not isinstance(error, UserError):
        _, found, text = text.rpartition(f"{UserError.__module__}.{UserError.__qualname__}: ")
        if not found:
            return None
    return UserError(step.sub("", text).strip())


def _count(path: Path) -> int:
    reader = array_record_module.ArrayRecordReader(str(path))
    try:
        return reader.num_records()
    finally:
        reader.close()
