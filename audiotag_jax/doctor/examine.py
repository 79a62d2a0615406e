"""Mode `doctor`: audits a data folder before training; changes and downloads no data."""

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from audiotag_jax.audio.files import Listing, audio_files, describe_left_out, list_sounds, printable
from audiotag_jax.datasets.demo import VERSION
from audiotag_jax.datasets.records import SPLITS, Clip, ClipSource, is_labelled, is_multi_label
from audiotag_jax.datasets.sources import SOURCE_NAMES, list_dataset
from audiotag_jax.doctor.audit import (
    KINDS,
    Group,
    RecordingAudit,
    findings,
    group_clips,
    measure,
)
from audiotag_jax.doctor.names import describe_misspelt, describe_tag_lists, near_names, propose_change
from audiotag_jax.doctor.report import FEWEST, format_report, stops_training, summarize_findings
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_atomic, write_json
from audiotag_jax.runtime.progress import log, progress
from audiotag_jax.runtime.threads import ordered_map
from audiotag_jax.settings.sections import DatasetSettings
from audiotag_jax.settings.settings import Settings

UNLISTED = ""  # the split of files that no table lists
_MOST_PAIRS = 50  # of labels that occur together, in the report


def run(settings: Settings, workdir: Path) -> bool:
    """Writes `doctor.md` and `doctor.json` to `workdir` and logs the summary, also if there are problems.

    Returns whether training could begin. Raises UserError if there is nothing to audit: neither a table of clips nor a
    sound file in the folder.
    """
    report = examine(settings.dataset)
    workdir.mkdir(parents=True, exist_ok=True)
    text = format_report(report)
    write_json(workdir / "doctor.json", report)
    write_atomic(workdir / "doctor.md", lambda file: file.write(text.encode()))
    for line in report["verdict"]:
        log(printable(line))
    log(printable(f"report: {workdir / 'doctor.md'}"))
    return not stops_training(report)


def examine(dataset: DatasetSettings) -> dict:
    """Returns the report as plain data, the content of `doctor.json`. Raises UserError as `run` does."""
    rate_hz = dataset.sample_rate_hz
    root, source, table_error = list_clips(dataset)
    clips, listing = source.clips, list_sounds(root)
    threads = dataset.num_threads or os.cpu_count() or 1
    measured = ordered_map(lambda clip: measure(clip.path, rate_hz), clips, threads)
    shown = progress(zip(clips, measured, strict=True), len(clips), "measuring", "recordings")
    audits = {clip.id: audit for clip, audit in shown}
    found = {clip_id: findings(audit, rate_hz) for clip_id, audit in audits.items()}
    named = {os.path.realpath(clip.path) for clip in clips}
    extra = [path for path in listing.files if os.path.realpath(path) not in named]
    missing = {clip.id: Path(clip.path) for clip in clips if "missing" in found[clip.id]}
    near = near_names(missing, extra)
    for clip_id, path in near.items():
        found[clip_id]["missing"] = f"but {_inside(path, root)} exists"
    paths = {_inside(missing[clip_id], root): _inside(path, root) for clip_id, path in near.items()}
    duplicates = group_clips(clips, {clip_id: audit.content for clip_id, audit in audits.items()})
    report = {
        "source": dataset.source,
        "path": str(root),
        "table_error": table_error,
        "notes": list(_notes(dataset, source, listing)),
        "path_change": propose_change(paths, len(missing)),
        "sample_rate_hz": rate_hz,
        "num_recordings": _by_split(clips),
        "num_lost": _by_split([clip for clip in clips if audits[clip.id].loss]),
        "problems": _by_kind(found),
        "duplicates": [_group(group) for group in duplicates],
        "takes": _takes(clips),
        "extra_files": [_inside(path, root) for path in extra],
        "fold_names": list(source.fold_names),
        **describe_labels(clips, audits),
        **(describe_several(clips) if is_multi_label(source) else {}),
        "formats": describe_formats([audit for audit in audits.values() if not audit.loss]),
        "recordings": {clip_id: _measures(audit) for clip_id, audit in audits.items()},
    }
    return {"verdict": summarize_findings(report), **report}


def _notes(dataset: DatasetSettings, source: ClipSource, listing: Listing) -> Iterator[str]:
    """Yields what preparing would log, and what of the folder cannot be looked at."""
    if dataset.source != "folder" or dataset.table or not source.classes:  # else the source's own notes have it
        is_table = dataset.source != "folder" or dataset.table
        yield from describe_left_out(replace(listing, others=()) if is_table else listing)
    yield from source.notes
    if dataset.source == "folder":  # published classes may be spelled so: AudioSet's "Domestic sounds, home sounds"
        yield from describe_tag_lists(source.classes)
        yield from describe_misspelt(Counter(label for clip in source.clips_of("train") for label in clip.all_labels))


def list_clips(dataset: DatasetSettings) -> tuple[Path, ClipSource, str]:
    """Returns the data folder, its clips and the error of its table; with an error, the clips are all sound files.

    Raises UserError for an unknown source, and if neither a table nor a sound file is found.
    """
    root = Path(dataset.path)
    if dataset.source == "demo":
        root /= f"demo_v{VERSION}_seed{dataset.fold_seed}"
        if not root.is_dir():  # opening it would write the sounds
            raise UserError(f"The demo's sounds are not in {dataset.path} yet.\nWrite them first with --mode=prepare.")
    try:
        return root, list_dataset(dataset, download=False), ""
    except UserError as error:
        files = audio_files(root) if root.is_dir() and dataset.source in SOURCE_NAMES else []
        if not files:
            raise
        clips = [Clip(_inside(path, root), str(path), None, -1, UNLISTED, verified=False) for path in files]
        return root, ClipSource(dataset.source, (), tuple(clips)), str(error)


def describe_labels(clips: Sequence[Clip], audits: Mapping[str, RecordingAudit]) -> dict:
    """Counts clips by label, and training clips by label and fold, with the largest deviation from an even share.

    Counts are those of the tables; `lost` is the number of training clips without samples.
    """
    train = [clip for clip in clips if clip.split == "train"]
    num_folds = 1 + max((clip.fold for clip in train), default=-1)
    cells = Counter((label, clip.fold) for clip in train for label in clip.all_labels)
    verified = Counter((label, clip.verified) for clip in train for label in clip.all_labels)
    test = Counter(label for clip in clips if clip.split == "test" for label in clip.all_labels)
    lost = Counter(label for clip in train if audits[clip.id].loss for label in clip.all_labels)
    labels: dict[str, dict[str, Any]] = {}
    for label in sorted({label for clip in train for label in clip.all_labels}):
        folds = [cells[label, fold] for fold in range(num_folds)]
        counts = {"verified": verified[label, True], "unverified": verified[label, False], "test": test[label]}
        labels[label] = {**counts, "lost": lost[label], "folds": folds}
    return {
        "labels": labels,
        "usable_folds": sorted({clip.fold for clip in train if not audits[clip.id].loss}),
        "num_unlabelled_test": sum(clip.split == "test" and not is_labelled(clip) for clip in clips),
        "fold_sizes": [sum(clip.fold == fold and is_labelled(clip) for clip in train) for fold in range(num_folds)],
        "largest_deviation": _largest_deviation(labels),
        "absent": [
            {"label": label, "folds": [fold for fold, count in enumerate(counts["folds"]) if count == 0]}
            for label, counts in labels.items()
            if 0 in counts["folds"]
        ],
    }


def describe_several(clips: Sequence[Clip]) -> dict:
    """Counts, of training clips with any number of labels, how many have 0, 1, 2, …, and the pairs that occur most.

    Also lists clips without a label, labels of the very same clips, labels whose clips all have another one too, and
    those with fewer clips than a threshold of their own takes.
    """
    clips = [clip for clip in clips if clip.split == "train"]
    train = [clip.all_labels for clip in clips]
    numbers = Counter(map(len, train))
    counts = Counter(label for labels in train for label in labels)
    pairs = Counter(pair for labels in train for pair in itertools.combinations(sorted(labels), 2))
    both_ways = [(pair, count) for pair, count in sorted_counts(pairs) for pair in (pair, pair[::-1])]
    implied = [(a, b) for (a, b), count in both_ways if count == counts[a] > 1]
    return {
        "labels_a_clip": [numbers[number] for number in range(1 + max(numbers, default=0))],
        "pairs": [{"labels": list(pair), "count": count} for pair, count in sorted_counts(pairs)[:_MOST_PAIRS]],
        "unlabelled": [clip.id for clip in clips if not clip.all_labels],
        "inseparable": [[a, b] for a, b in implied if (b, a) in implied and a < b],
        "implied": [[a, b] for a, b in implied if (b, a) not in implied],
        "rare": sorted(label for label, count in counts.items() if count < FEWEST),
    }


def sorted_counts(counts: Mapping[tuple[str, str], int]) -> list[tuple[tuple[str, str], int]]:
    """Returns the items, the most frequent first, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _largest_deviation(labels: Mapping[str, dict]) -> dict | None:
    """Returns the label and fold with the largest deviation from an even share of the label's clips, if any."""
    cells = [
        {"label": label, "fold": fold, "count": count, "even_share": sum(counts["folds"]) / len(counts["folds"])}
        for label, counts in labels.items()
        for fold, count in enumerate(counts["folds"])
    ]
    return max(cells, key=lambda cell: abs(cell["count"] - cell["even_share"]), default=None)


def describe_formats(audits: Sequence[RecordingAudit]) -> dict:
    """Counts rates, channels and sample formats, and summarizes durations, of the decoded recordings."""
    durations_s = [audit.duration_s for audit in audits]
    spread = {}
    if durations_s:
        spread = {"min": min(durations_s), "median": median(durations_s), "max": max(durations_s)}
    return {
        "rates_hz": _counts(audit.rate_hz for audit in audits),
        "channels": _counts(audit.num_channels for audit in audits),
        "subtypes": _counts(audit.subtype for audit in audits),
        "duration_s": spread | {"total": sum(durations_s)},
    }


def _takes(clips: Sequence[Clip]) -> list[dict] | None:
    """Returns the groups of clips cut from one recording; None if no table names recordings."""
    if not any(clip.recording for clip in clips):
        return None
    return [_group(group) for group in group_clips(clips, {clip.id: clip.recording for clip in clips})]


def _by_kind(found: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Returns, for each kind of problem that occurs, its clips with their details."""
    kinds = {kind: {clip_id: kinds[kind] for clip_id, kinds in found.items() if kind in kinds} for kind in KINDS}
    return {kind: clips for kind, clips in kinds.items() if clips}


def _by_split(clips: Sequence[Clip]) -> dict[str, int]:
    counts = Counter(clip.split for clip in clips)
    return {split or "unlisted": counts[split] for split in (*SPLITS, UNLISTED) if counts[split]}


def _counts(values) -> dict[str, int]:
    return {str(value): count for value, count in Counter(values).most_common()}


def _group(group: Group) -> dict:
    return {**dataclasses.asdict(group), "conflicts": group.conflicts}


def _measures(audit: RecordingAudit) -> dict:
    """Returns the measurements of a recording, or only the loss if it has no samples."""
    if audit.loss:
        return {"loss": audit.loss, "reason": audit.reason}
    return {name: value for name, value in dataclasses.asdict(audit).items() if name not in ("loss", "reason")}


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
