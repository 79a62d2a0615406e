"""Writes the tables of the studies' data sets from clones of public repositories; no sound is copied.

    git clone https://github.com/geikha/tidal-drum-machines data/tidal-drum-machines
    git clone https://github.com/skratchdot/philharmonia-samples data/philharmonia-samples
    git clone https://github.com/Jakobovski/free-spoken-digit-dataset data/free-spoken-digit-dataset
    python benchmarks/study_data.py drums data/tidal-drum-machines
    python benchmarks/study_data.py notes data/philharmonia-samples
    python benchmarks/study_data.py digits data/free-spoken-digit-dataset

Each command writes DATASET.csv (path, label, fold, recording) into the clone and prints counts. Licences: the drum
machine one-shots state none, so use them and pass nothing on; the notes, by the Philharmonia Orchestra, are free to use
(CC BY-SA 3.0) but must not be sold or passed on as they are; the digits, by Z. Jackson and others, are CC BY-SA 4.0.
"""

import argparse
import collections
import csv
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

PITCH_CLASSES = ("C", "Cs", "D", "Ds", "E", "F", "Fs", "G", "Gs", "A", "As", "B")
NOT_DRUMS = ("perc", "misc", "fx")  # classes of the collection that name no sound
NOT_NOTES = ("phrase", "long", "very-long")  # lengths of recordings that are more than a note
NUM_DRUM_FOLDS = 5
NOTE = re.compile(r"(?P<name>.+?)_(?P<pitch>[A-G]s?)(?P<octave>\d)_(?P<length>[^_]+)_.+\.mp3")


class Row(NamedTuple):
    """A clip: its file relative to the clone, its class, its fold from 1, and what is resampled together with it."""

    path: str
    label: str
    fold: int
    recording: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(TABLES))
    parser.add_argument("clone", type=Path, help="folder of the cloned repository")
    parser.add_argument("--out", type=Path, help="the table, by default CLONE/DATASET.csv")
    options = parser.parse_args()
    rows = sorted(TABLES[options.dataset](options.clone))
    if not rows:
        sys.exit(f"{options.clone} has no sounds of {options.dataset}; clone the repository named in --help.")
    out = options.out or options.clone / f"{options.dataset}.csv"
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([Row._fields, *rows])
    print(f"{out}: {summary(rows)}")


def summary(rows: Iterable[Row]) -> str:
    """Counts clips, classes, recordings and folds, and the smallest class in a fold; returns a line."""
    rows = list(rows)
    classes, folds = ({getattr(row, name) for row in rows} for name in ("label", "fold"))
    cells = collections.Counter((row.label, row.fold) for row in rows)
    sizes = collections.Counter(row.fold for row in rows)
    smallest = min(cells[label, fold] for label in classes for fold in folds)
    return (
        f"{len(rows):,} clips, {len(classes)} classes, {len({row.recording for row in rows})} recordings, "
        f"folds of {', '.join(str(sizes[fold]) for fold in sorted(folds))}; at least {smallest} of a class in each fold"
    )


def drums(clone: Path) -> list[Row]:
    """Lists `machines/MACHINE/MACHINE-CLASS/*.wav`; a machine is a recording, since its sounds share their maker."""
    files = [path for path in sorted(clone.glob("machines/*/*/*")) if path.suffix.lower() == ".wav"]
    label = {path: path.parent.name.rpartition("-")[2].lower() for path in files}
    files = [path for path in files if label[path] not in NOT_DRUMS]
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for path in files:
        counts[path.parts[-3]][label[path]] += 1
    folds = balanced_folds(counts, NUM_DRUM_FOLDS)
    return [Row(_relative(path, clone), label[path], folds[path.parts[-3]], path.parts[-3]) for path in files]


def notes(clone: Path) -> list[Row]:
    """Lists single notes `audio/INSTRUMENT/NAME_PITCH_LENGTH_….mp3`; a recording is all takes of an instrument's note.

    A fold holds out three neighbouring pitch classes, in all octaves: no note is held out whose octave was trained on.
    """
    rows = []
    for path in sorted(clone.glob("audio/*/*.mp3")):
        found = NOTE.fullmatch(path.name)
        if found and found["length"] not in NOT_NOTES and path.stat().st_size:  # one file is empty
            instrument = path.parent.name
            fold = 1 + PITCH_CLASSES.index(found["pitch"]) // 3
            rows.append(
                Row(_relative(path, clone), instrument, fold, f"{instrument} {found['pitch']}{found['octave']}")
            )
    return rows


def digits(clone: Path) -> list[Row]:
    """Lists `recordings/DIGIT_SPEAKER_TAKE.wav`; a fold is a speaker, a recording all takes of a speaker's digit."""
    files = [path for path in sorted(clone.glob("recordings/*.wav")) if path.name.count("_") == 2]
    split = {path: path.stem.split("_") for path in files}
    speakers = sorted({speaker for _, speaker, _ in split.values()})
    return [
        Row(_relative(path, clone), digit, 1 + speakers.index(speaker), f"{speaker} {digit}")
        for path, (digit, speaker, _) in split.items()
    ]


TABLES = {"drums": drums, "notes": notes, "digits": digits}


def balanced_folds(counts: Mapping[str, Mapping[str, int]], num_folds: int) -> dict[str, int]:
    """Returns the fold, from 1, of each group, given its clips by class: the largest group first, each to the fold
    that keeps the shares of all classes, and of the clips, most even over the folds."""
    totals = collections.Counter()
    for group in counts.values():
        totals.update(group)
    size = sum(totals.values())
    held: list[collections.Counter] = [collections.Counter() for _ in range(num_folds)]
    folds = {}
    for name in sorted(counts, key=lambda name: (-sum(counts[name].values()), name)):
        group = counts[name]

        def cost(fold: int, group: Mapping[str, int] = group) -> float:
            # The growth of the squared shares of every class, and of all clips, in this fold.
            of_classes = sum(
                ((held[fold][label] + n) ** 2 - held[fold][label] ** 2) / totals[label] ** 2
                for label, n in group.items()
            )
            before, added = held[fold].total(), sum(group.values())
            return of_classes / len(totals) + ((before + added) ** 2 - before**2) / size**2

        chosen = min(range(num_folds), key=cost)
        held[chosen].update(group)
        folds[name] = 1 + chosen
    return folds


def _relative(path: Path, clone: Path) -> str:
    return path.relative_to(clone).as_posix()


if __name__ == "__main__":
    main()
