"""Formats the audit of a data folder: the data of `doctor.json` as a summary and as Markdown."""

import re
from collections.abc import Iterator, Mapping, Sequence

from audiotag_jax.audio.files import count_things, printable
from audiotag_jax.doctor.audit import KINDS, LOST

FEWEST = 20  # training clips, from which a label gets a threshold of its own: that of `evaluation.decision`
MOST = 20  # names listed per section; doctor.json has all
_TITLES = {
    "longer": "longer than declared",
    "cancelling": "with channels that cancel",
    "non_finite": "non-finite",
    "dc_offset": "with a DC offset",
    "low_rate": "at a low rate",
}


def escape(text: str) -> str:
    """Escapes `text` for a line of Markdown (CommonMark, GitHub's), so that no character is markup."""
    return re.sub(r"([\\`*_\[\]<>~&#$])", r"\\\1", printable(text))


def code(text: str) -> str:
    """Formats a name as a code span of Markdown."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text or text != text.strip() or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


# The summary.


def summarize_findings(report: Mapping) -> list[str]:
    """Returns the main findings, one line each in plain text: unusable recordings, leaks, absent labels, and fixes."""
    lines = [*_table(report), *_losses(report), *report["notes"], *_leaks(report), *_folds(report)]
    lines += [*_several(report), *_oddities(report)]
    return lines or ["No problems found."]


def stops_training(report: Mapping) -> bool:
    """Returns whether training would stop at once: without a list of clips, or without two folds that can be used."""
    return bool(report["table_error"]) or len(report["usable_folds"]) < 2


def _table(report: Mapping) -> Iterator[str]:
    if report["table_error"]:
        reason = " ".join(report["table_error"].split("\n"))
        yield f"NO LIST OF CLIPS; training would stop with: {reason}"
        yield f"Audited instead: {count_things(_total(report), 'sound file')} of the folder, without labels and folds."


def _losses(report: Mapping) -> Iterator[str]:
    total, num_lost = report["num_recordings"], report["num_lost"]
    missing = report["problems"].get("missing", {})
    if len(missing) == _total(report):
        count = count_things(len(missing), "recording")
        yield f"NO AUDIO: all {count} of the tables are missing from {report['path']}."
        hint = "Copy the recordings there, or set config.dataset.path to their folder."
        yield f"Training would stop. {report['path_change'] or hint}"
        return
    kinds = ", ".join(f"{len(report['problems'][kind])} {_title(kind)}" for kind in LOST if kind in report["problems"])
    if not num_lost:
        yield f"All {count_things(_total(report), 'recording')} can be read."
    else:
        yield f"{count_things(sum(num_lost.values()), 'recording')} of {_total(report)} cannot be used: {kinds}."
    lost, train = num_lost.get("train", 0), total.get("train", 0)
    if lost and lost == train:
        yield f"LEFT OUT: all {count_things(train, 'training recording')}; training would stop."
    elif lost:
        yield f"LEFT OUT of training: {lost} of {count_things(train, 'recording')}. Fix the files or remove their rows."
    if num_lost.get("test"):
        yield f"SILENCE instead of {num_lost['test']} of {count_things(total['test'], 'test recording')}."
    similar = sum(bool(hint) for hint in missing.values())
    if report["path_change"]:
        yield f"ALL IN THE SAME WAY: {report['path_change']}"
    elif similar:
        yield f"{count_things(similar, 'missing file')} may exist under a similar name: correct the table or the name."
    for label, counts in report["labels"].items():
        if counts["lost"] == sum(counts["folds"]) and lost < train:
            yield f"NOTHING LEFT of label {label!r}: none of its training recordings can be read."


def _leaks(report: Mapping) -> Iterator[str]:
    groups, takes = report["duplicates"], report["takes"] or []
    split_leaks = [group for group in groups if group["crosses_splits"]]
    fold_leaks = [group for group in groups if group["crosses_folds"]]
    conflicts = [group for group in groups if group["conflicts"]]
    if split_leaks:
        yield (
            f"LEAK: identical sounds both in training and in test, {count_things(len(split_leaks), 'group')}: the test "
            "looks better than it is. Keep each sound in one of the two."
        )
    if fold_leaks:
        yield (
            f"LEAK: identical training sounds in different folds, {count_things(len(fold_leaks), 'group')}: networks "
            "are tested on what they were trained on. Keep one of each group, or give the group one fold, or one name "
            "in the column recording, in the table."
        )
    if conflicts:
        yield f"CONTRADICTION: identical sounds with different labels, {count_things(len(conflicts), 'group')}."
    if groups and not split_leaks and not fold_leaks:
        yield f"Identical sounds, {count_things(len(groups), 'group')}, none of them across folds or training and test."
    across = [group for group in takes if _crosses(group)]
    if across:
        yield (
            "LEAK: clips of one recording in different folds, or in training and test, "
            f"{count_things(len(across), 'group')}, by the table."
        )
    elif takes:
        yield f"Clips of one recording share a fold: true of all {len(takes)} groups, by the table."


def _folds(report: Mapping) -> Iterator[str]:
    if len(report["usable_folds"]) == 1 and not report["table_error"]:
        yield f"ONE FOLD: only fold {report['usable_folds'][0]} has usable recordings; training would stop."
    if report["absent"]:
        names = ", ".join(repr(entry["label"]) for entry in report["absent"][:5])
        more = f" and {len(report['absent']) - 5} more" if len(report["absent"]) > 5 else ""
        yield f"ABSENT from at least one fold: {names}{more}. Such labels need more recordings, or fewer folds."


def _oddities(report: Mapping) -> Iterator[str]:
    odd = [
        f"{len(clips)} {_title(kind)}"
        for kind, clips in report["problems"].items()
        if kind not in (*LOST, "low_rate") and len(clips)
    ]
    if odd:
        yield f"Used, but check them: {', '.join(odd)}."
    if low := report["problems"].get("low_rate"):
        lowest = min(report["recordings"][clip]["rate_hz"] for clip in low)
        count, rate_hz = count_things(len(low), "recording"), report["sample_rate_hz"]
        yield f"LOW RATE: {count} below the {rate_hz} Hz of config.dataset.sample_rate_hz, the lowest {lowest} Hz."
    if report["extra_files"]:
        count = count_things(len(report["extra_files"]), "sound file")
        yield f"Not used: {count} of the folder that no clip refers to."


def _several(report: Mapping) -> Iterator[str]:
    """Yields what of lists of labels a network cannot learn, or not well."""
    inseparable = report.get("inseparable", ())
    for one, other in inseparable[:MOST]:
        yield f"INSEPARABLE: {one!r} and {other!r} are labels of the very same training clips: make them one."
    if len(inseparable) > MOST:
        yield f"INSEPARABLE: {len(inseparable) - MOST} more pairs of labels; doctor.json lists them."
    if rare := report.get("rare"):
        more = f" and {len(rare) - MOST} more" if len(rare) > MOST else ""
        yield (
            f"RARE: {count_things(len(rare), 'label')} with fewer than {FEWEST} training clips: "
            f"{', '.join(rare[:MOST])}{more}. Their scores have wide intervals; they share one threshold."
        )


def _title(kind: str) -> str:
    return _TITLES.get(kind, kind.replace("_", " "))


def _total(report: Mapping) -> int:
    return sum(report["num_recordings"].values())


# The report.


def format_report(report: Mapping) -> str:
    """Formats the whole report as Markdown; names of files and labels are escaped."""
    lines = [
        "# Audit of the data",
        f"Source {code(report['source'])}, folder {code(report['path'])}. Nothing in it was changed.",
        "## Verdict",
        _bullets(escape(line) for line in report["verdict"]),
        *_problem_sections(report),
        *_group_sections(report),
        *_label_section(report),
        *_format_section(report),
    ]
    return "\n\n".join(lines) + "\n"


def _problem_sections(report: Mapping) -> Iterator[str]:
    total = _total(report)
    for kind, clips in report["problems"].items():
        title = _title(kind)
        yield f"## {title[0].upper()}{title[1:]}: {len(clips)} of {total}"
        yield escape(KINDS[kind])
        if kind != "missing" or len(clips) < total:
            yield _names(
                (code(name) + (f": {escape(detail)}" if detail else "") for name, detail in clips.items()), len(clips)
            )
    if report["extra_files"]:
        yield f"## Not used: {len(report['extra_files'])}"
        yield "Sound files in the folder that no clip refers to; they were not decoded."
        yield _names(map(code, report["extra_files"]), len(report["extra_files"]))


def _group_sections(report: Mapping) -> Iterator[str]:
    yield f"## Identical sounds: {count_things(len(report['duplicates']), 'group')}"
    yield (
        "Equal rate and equal samples when mixed to mono, in any lossless format. Copies that were resampled, cut, "
        "scaled or encoded with loss are not detected. "
        "Digital silence is not compared."
    )
    ranked = sorted(report["duplicates"], key=lambda group: not _crosses(group))
    if ranked:
        yield _names(map(_group_line, ranked), len(ranked))
    across = [group for group in report["takes"] or [] if _crosses(group)]
    if across:
        yield f"## Clips of one recording in different folds or splits: {count_things(len(across), 'group')}"
        yield _names(map(_group_line, across), len(across))


def _crosses(group: Mapping) -> bool:
    return group["crosses_folds"] or group["crosses_splits"]


def _group_line(group: Mapping) -> str:
    marks = [
        ("crosses_splits", "training and test"),
        ("crosses_folds", "different folds"),
        ("conflicts", "labels differ"),
    ]
    marked = ", ".join(text for name, text in marks if group[name])
    ids, labels = group["ids"], ", ".join(map(code, group["labels"])) or "no label"
    shown = ", ".join(map(code, ids[:MOST])) + (f" and {len(ids) - MOST} more" if len(ids) > MOST else "")
    return f"{f'**{marked}**: ' if marked else ''}{shown} ({labels})"


def _label_section(report: Mapping) -> Iterator[str]:
    if not report["labels"]:
        return
    sizes = report["fold_sizes"]
    yield "## Labels and folds"
    names = report["fold_names"] or [str(fold) for fold in range(len(sizes))]
    yield (
        f"Training clips a fold: {', '.join(map(str, sizes))}. {_deviation(report['largest_deviation'], names)} "
        f"Test clips without a label: {report['num_unlabelled_test']}. Counts are those of the tables; *lost* "
        "training clips have no samples."
    )
    rows = [
        [code(label), counts["verified"], counts["unverified"], counts["lost"], counts["test"], *counts["folds"]]
        for label, counts in report["labels"].items()
    ]
    folds = [f"fold {name}".replace("|", "/") for name in names]
    yield _grid(["label", "verified", "unverified", "lost", "test", *folds], rows)
    if "labels_a_clip" in report:
        counts = ", ".join(f"{count} with {number}" for number, count in enumerate(report["labels_a_clip"]) if count)
        yield f"Labels a training clip: {counts}. Pairs that occur together most often:"
        yield _names(
            (f"{code(pair['labels'][0])} and {code(pair['labels'][1])}: {pair['count']}" for pair in report["pairs"]),
            len(report["pairs"]),
        )
        if report["implied"]:
            yield "Labels whose clips all have another one too:"
            pairs = (f"{code(one)}: {code(other)}" for one, other in report["implied"])
            yield _names(pairs, len(report["implied"]))
        if report["unlabelled"]:
            yield "Training clips without a label:"
            yield _names(map(code, report["unlabelled"]), len(report["unlabelled"]))


def _deviation(largest: Mapping, names: Sequence[str]) -> str:
    if abs(largest["count"] - largest["even_share"]) < 1:
        return "Every label is spread evenly over the folds."
    return (
        f"Largest deviation from an even share: {code(largest['label'])} has {largest['count']} clips in fold "
        f"{escape(names[largest['fold']])} instead of {largest['even_share']:.1f}."
    )


def _format_section(report: Mapping) -> Iterator[str]:
    formats = report["formats"]
    if not formats["rates_hz"]:
        return
    seconds = formats["duration_s"]
    yield "## Formats"
    yield (
        f"Duration: shortest {seconds['min']:.2f} s, median {seconds['median']:.2f} s, longest {seconds['max']:.2f} s, "
        f"in all {seconds['total'] / 60:.1f} min."
    )
    columns = (("rate, Hz", "rates_hz"), ("channels", "channels"), ("sample format", "subtypes"))
    rows = [[title, escape(value), count] for title, name in columns for value, count in formats[name].items()]
    yield _grid(["", "value", "recordings"], rows)


def _names(items: Iterator[str], total: int) -> str:
    shown = [item for item, _ in zip(items, range(MOST), strict=False)]
    return _bullets(shown + ([f"… and {total - MOST} more, in `doctor.json`"] if total > MOST else []))


def _bullets(items) -> str:
    return "\n".join(f"- {item}" for item in items)


def _grid(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
