"""Digests by which a recording is known under any name, in any folder and data set: whether a network has seen it."""

import hashlib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from audiotag_jax.datasets.reader import Examples
from audiotag_jax.datasets.sources import clip_source
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.sections import DatasetSettings

_PREFIX = "sha256:"  # digests of earlier releases have none: those are of a file's size, beginning and end


def digests(examples: Examples, indices: np.ndarray) -> dict[str, str]:
    """Returns the ids of the clips at `indices` by digest: a hash of the sound, or the id where that is unknown."""
    ids = examples.ids[indices].tolist()
    sounds = [b""] * len(ids) if examples.sounds is None else examples.sounds[indices].tolist()
    return {f"{_PREFIX}{sound.decode()}" if sound else clip: clip for clip, sound in zip(ids, sounds, strict=True)}


def has_earlier_digests(seen: Iterable[str]) -> bool:
    """Returns whether digests of an earlier release are among those `seen`."""
    return any(re.fullmatch(r"[0-9a-f]{16}", digest) for digest in seen)


def earlier_digests(dataset: DatasetSettings, ids: Collection[str]) -> dict[str, str]:
    """Returns the clips `ids` by the digests of earlier releases, which only the recordings themselves give.

    Raises UserError if none of the recordings can be read.
    """
    wanted = set(ids)
    clips = [clip for clip in clip_source(dataset).clips if clip.id in wanted]
    found = {digest: clip.id for clip in clips if (digest := _earlier_digest(Path(clip.path)))}
    if wanted and not found:
        raise UserError(
            "config.model.init_from: its run is of an earlier release, so the recordings are needed to find out which "
            f"clips it has seen; there are none in {dataset.path}."
        )
    return found


def _earlier_digest(path: Path, num_bytes: int = 16384) -> str:
    if not path.is_file():  # opening a named pipe would wait for its other end
        return ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(num_bytes)
            file.seek(max(0, size - num_bytes))
            return hashlib.sha256(b"%d " % size + head + file.read(num_bytes)).hexdigest()[:16]
    except OSError:
        return ""
