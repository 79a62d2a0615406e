"""The streams that a sound file consists of (nearly all have one), and their samples in blocks."""

import dataclasses
from collections.abc import Generator, Iterator, Mapping
from typing import TypeVar

import numpy as np

_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True)
class Stream:
    """One of the streams of a file, and what is known of its length apart from the decoder."""

    start: int  # offset of its first byte
    stop: int
    patches: Mapping[int, bytes] = dataclasses.field(default_factory=dict)  # by offset from `start`
    held_s: float | None = None  # at least that much sound is in it, up to `slack_s`; None: unknown
    slack_s: float = 0.1
    is_estimated: bool = False  # the length that the decoder declares
    header: bytes = b""  # to put before it if the decoder's estimate is too short, since it stops there
    is_cut: bool = False  # in the middle of a frame
    cut_share: float = 1.0  # declared bytes over those that are there
    rest_share: float = 0.0  # bytes behind the declared end over those before it


@dataclasses.dataclass(frozen=True)
class Block:
    """Consecutive samples as a file has them."""

    samples: np.ndarray  # [frames, channels] float32
    rate_hz: int
    subtype: str  # libsndfile's name of the sample format, or FFmpeg's name of the codec


class Noted(Iterator[_Item]):
    """Iterates over a generator; `note` is the text that it has returned at its end, "" before."""

    def __init__(self, items: Generator[_Item, None, str]):
        self._items, self.note = items, ""

    def __next__(self) -> _Item:
        try:
            return next(self._items)
        except StopIteration as end:
            self.note = end.value or self.note
            raise


class AudioError(ValueError):
    """A sound file without usable samples; the message is a one-line reason without the file's name."""


class NoFramesError(AudioError):
    """A file in order, with no samples in it."""
