"""Label tracks of Audacity and selection tables of Raven: a file a recording, a row for a window's tag or an event."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from audiotag_jax.inference.tables import UNCERTAIN, RecordingPrediction, TagOptions, Window
from audiotag_jax.runtime.errors import UserError

FORMATS = AUDACITY, RAVEN = "audacity", "raven"
TABLES_OF_ALL = ("csv", "json")  # which are always written
_RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin Path",
    "Tag",
    "Probability",
)
_NAME_LENGTH = 200  # bytes of a recording, in that of its files


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Returns this module's formats among those given; raises UserError, listing the choices, on an unknown one."""
    for name in formats:
        if name not in (*FORMATS, *TABLES_OF_ALL):
            listed = ", ".join(FORMATS)
            raise UserError(f"Unknown --format {name!r}; choose from {listed} (CSV and JSON are always written).")
    return tuple(name for name in FORMATS if name in formats)


class LabelTracks:
    """Writes the files of each format to a temporary folder, from where `put_in_place` moves them to `out/FORMAT`.

    Windows that are silent or have none of the tags are left out, as are recordings that cannot be read. Each of
    several tags of a window has a row. `of_events`, the rows are events instead.
    """

    def __init__(
        self, out: Path, formats: Sequence[str], tag_options: TagOptions, sample_rate_hz: int, of_events: bool = False
    ):
        self._out, self._formats, self._options = out, formats, tag_options
        self._of_events = of_events
        self._high_hz = sample_rate_hz / 2  # what a network has seen of a window
        self._taken: set[str] = set()

    def __enter__(self) -> "LabelTracks":
        self._stack = contextlib.ExitStack()
        if self._formats:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(dir=self._out, prefix=".labels-"))
            self._temporary = Path(folder)
            for name in self._formats:
                (self._temporary / name).mkdir()
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def passing(self, predictions: Iterable[Window | RecordingPrediction]) -> Iterator[Window | RecordingPrediction]:
        """Passes predictions on, writing their windows or events."""
        files: dict[str, TextIO] = {}
        row = 0
        with contextlib.ExitStack() as stack:
            for prediction in predictions:
                yield prediction
                if isinstance(prediction, Window) and not files:
                    files = {name: stack.enter_context(self._open(name, prediction.path)) for name in self._formats}
                for label in self._labels(prediction):
                    row += 1
                    for name, file in files.items():
                        file.write(self._row(name, row, prediction.path, *label))
                if not isinstance(prediction, Window):
                    stack.close()
                    files, row = {}, 0

    def put_in_place(self) -> None:
        """Moves all files to their folders; those there of the same names are replaced."""
        for name in self._formats:
            (self._out / name).mkdir(exist_ok=True)
            for path in (self._temporary / name).iterdir():
                path.replace(self._out / name / path.name)

    def _open(self, form: str, recording: str) -> TextIO:
        ending = {AUDACITY: ".txt", RAVEN: ".Table.1.selections.txt"}[form]
        stem, number = os.fsencode(Path(recording).name)[:_NAME_LENGTH].decode(errors="ignore"), 1
        name = f"{stem}{ending}"
        while f"{form}/{name}".lower() in self._taken:
            number += 1
            name = f"{stem}_{number}{ending}"
        self._taken.add(f"{form}/{name}".lower())
        file = (self._temporary / form / name).open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
        if form == RAVEN:
            file.write("\t".join(_RAVEN_COLUMNS) + "\n")
        return file

    def _labels(self, prediction: Window | RecordingPrediction) -> list[tuple[float, float, str, float]]:
        """Returns (start_s, end_s, tag, probability) of each label; empty where there are none."""
        if isinstance(prediction, RecordingPrediction):
            return [(each.onset_s, each.offset_s, each.tag, each.score) for each in prediction.events]
        if self._of_events:
            return []
        window = prediction
        tags = self._options.tags(window.probabilities)
        if self._options.tag(window.probabilities) == UNCERTAIN:
            name, probability = self._options.likeliest(window.probabilities)[0]
            tags = [(f"{UNCERTAIN}: {name}", probability)]
        return [(window.start_s, window.end_s, *each) for each in tags]

    def _row(
        self, form: str, number: int, path: str, start_s: float, end_s: float, tag: str, probability: float
    ) -> str:
        cells = [f"{start_s:.6f}", f"{end_s:.6f}"]
        if form == AUDACITY:
            cells += [f"{tag} {probability:.2f}"]
        else:
            place = ["0.0", f"{self._high_hz:.1f}", path]
            cells = [str(number), "Spectrogram 1", "1", *cells, *place, tag, f"{probability:.4f}"]
        return "\t".join(re.sub(r"[\t\r\n\v\f]+", " ", cell) for cell in cells) + "\n"
