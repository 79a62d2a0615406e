"""Opens published data sets by their real tables, and prepares them with synthesized audio.

    python benchmarks/published_tables.py urbansound8k data/UrbanSound8K --out=/tmp/tables
    python benchmarks/published_tables.py fsdkaggle2019 data/fsdkaggle2019 --out=/tmp/tables
    python benchmarks/published_tables.py audioset data/audioset --out=/tmp/tables

The tables are copied to OUT, where every clip becomes a short WAV file of noise that its name determines; of AudioSet,
whose clips are those that a user has, three segments in four do. Prints the counts of clips, classes, folds and labels,
checks that a clip is prepared for each of them, and, where the data set asks for one, writes a submission of random
probabilities in its form. `--tables_only` synthesizes and prepares nothing.
"""

import argparse
import csv
import shutil
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.datasets import fsdkaggle2019, sources  # noqa: E402
from audiotag_jax.datasets.audioset import TEST, TRAIN  # noqa: E402
from audiotag_jax.datasets.records import ClipSource  # noqa: E402
from audiotag_jax.evaluation.submission import check_submission  # noqa: E402

RATE_HZ, LENGTH_S = 4000, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=("urbansound8k", "fsdkaggle2019", "fsd50k", "audioset"))
    parser.add_argument("tables", type=Path, help="folder in the published layout; its audio is not used")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tables_only", action="store_true")
    options = parser.parse_args()
    data = options.out / options.source
    for table in sorted(options.tables.rglob("*.csv")):
        target = data / table.relative_to(options.tables)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table, target)
    if options.source == "audioset":
        for path in audioset_paths(data):
            synthesize(path)
    start = time.monotonic()
    source = sources.open_source(options.source, data, download=False)
    print(f"{options.source}: opened in {time.monotonic() - start:.1f} s")
    print(describe(source))
    if options.source == "fsdkaggle2019" and (data / fsdkaggle2019.SUBMISSION_TABLE).is_file():
        print(submit(source, data))
    if options.tables_only:
        return
    for clip in source.clips:
        synthesize(Path(clip.path))
    start = time.monotonic()
    counts = prepare(source, options.out)
    print(f"prepared {counts} with synthesized audio in {time.monotonic() - start:.0f} s")


def audioset_paths(data: Path) -> list[Path]:
    """Returns files of three in four segments of the tables, named as two kinds of downloaders name them."""
    paths = []
    for name in (*TRAIN, TEST):
        if (data / name).is_file():
            with (data / name).open(newline="") as file:
                rows = [row for row in csv.reader(file, skipinitialspace=True) if not row[0].startswith("#")]
            for n, (video, start, *_) in enumerate(rows):
                if n % 4:
                    stem = f"Y{video}" if n % 4 == 1 else f"{video}_{float(start):.3f}"
                    paths.append(data / name.removesuffix(".csv") / f"{stem}.wav")
    return paths


def synthesize(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(zlib.crc32(path.name.encode()))
        soundfile.write(path, 0.1 * rng.standard_normal(round(LENGTH_S * RATE_HZ)), RATE_HZ, "PCM_16")


def describe(source: ClipSource) -> str:
    splits = Counter(clip.split for clip in source.clips)
    train = source.clips_of("train")
    folds = Counter(clip.fold for clip in train)
    labels = Counter(label for clip in train for label in clip.all_labels)
    verified = sum(clip.verified for clip in train)
    lines = [
        f"{splits['train']:,} training clips ({verified:,} verified), {splits['test']:,} test clips",
        f"{len(source.classes)} classes, {source.classes[0]} to {source.classes[-1]}; "
        f"{min(labels.values())} to {max(labels.values())} training clips each, "
        f"{sum(labels.values()) / len(train):.2f} labels a clip",
        f"{len(folds)} folds of {', '.join(f'{folds[fold]:,}' for fold in sorted(folds))} clips; "
        f"{len({clip.recording or clip.id for clip in train}):,} recordings",
        *source.notes,
    ]
    return "\n".join(f"  {line}" for line in lines)


def submit(source: ClipSource, data: Path) -> str:
    """Writes a submission of random probabilities, checks it, and compares its header with the sample's."""
    from audiotag_jax.training.evaluate import write_submission

    order = fsdkaggle2019.submission_order(data)
    shape = (len(order), len(source.classes))
    predictions = {
        "ids": np.array(sorted(order)),
        "labels": np.full(shape, -1, np.int8),
        "logits": np.random.default_rng(0).normal(size=shape),
    }
    path = data / "submission.csv"
    write_submission(path, predictions, source.classes, order)
    check_submission(path, source.classes, order, has_several_labels=True)
    with path.open() as mine, (data / fsdkaggle2019.SUBMISSION_TABLE).open() as theirs:
        same = mine.readline().strip() == theirs.readline().strip()
    return f"  submission: {shape[0]} rows of {shape[1]} probabilities pass; header as in the sample submission: {same}"


def prepare(source: ClipSource, out: Path) -> str:
    from audiotag_jax.datasets.prepare import prepare_clips
    from audiotag_jax.datasets.prepared import read_metadata
    from audiotag_jax.datasets.reader import read_split
    from audiotag_jax.settings.sections import ClipSettings

    directory = prepare_clips(source, ClipSettings(RATE_HZ, LENGTH_S), out / "prepared")
    if read_metadata(directory)["problems"]:
        raise SystemExit(f"{directory}: recordings with problems")
    found = {}
    for split in ("train", "test"):
        clips = source.clips_of(split)
        if clips:
            examples = read_split(directory, split)
            if examples is None or examples.ids.tolist() != [clip.id for clip in clips]:
                raise SystemExit(f"{directory}: the {split} clips are others than those of the tables")
            found[split] = len(examples)
    return " and ".join(f"{count:,} {split} clips" for split, count in found.items())


if __name__ == "__main__":
    main()
