"""The audit of a data folder in words: from the plain data of `doctor.json` to a verdict and to Markdown."""

import re
from collections.abc import Iterator, Mapping, Sequence

from audiotag_jax.doctor.audit import KINDS, LOST

MOST = 20  # names listed of one kind; doctor.json has them all
_WORDS = {"non_finite": "non-finite", "dc_offset": "with a DC offset", "low_rate": "at a low rate"}


def printable(text: str) -> str:
    """`text` in one line, with an escape for each character that cannot be printed: newlines, controls, surrogates."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape(text: str) -> str:
    """Words for a line of Markdown (CommonMark, GitHub's), in which no character of theirs is markup."""
    return re.sub(r"([\\`*_\[\]<>~&#$])", r"\\\1", printable(text))


def code(text: str) -> str:
    """A name as a code span of Markdown."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text or text != text.strip() or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


# The verdict.


def verdict(report: Mapping) -> list[str]:
    """What a person should know first, a line each: what training leaves out, what leaks, what to do; plain text."""
    lines = [*_table(report), *_losses(report), *_leaks(report), *_folds(report), *_oddities(report)]
    return lines or ["Nothing stands out."]


def _table(report: Mapping) -> Iterator[str]:
    if report["table_error"]:
        reason = " ".join(report["table_error"].split("\n"))
        yield f"NO LIST OF CLIPS; training would stop with: {reason}"
        yield f"Looked at instead: {_many(_total(report), 'sound file')} of the folder, without labels and folds."


def _losses(report: Mapping) -> Iterator[str]:
    total, num_lost = report["num_recordings"], report["num_lost"]
    missing = report["problems"].get("missing", {})
    if len(missing) == _total(report):
        yield f"NO AUDIO: all {_many(len(missing), 'recording')} of the tables are missing from {report['path']}."
        yield "Training would stop. Bring the recordings there, or name their folder in config.dataset.path."
        return
    kinds = ", ".join(f"{len(report['problems'][kind])} {_words(kind)}" for kind in LOST if kind in report["problems"])
    if not num_lost:
        yield f"All {_many(_total(report), 'recording')} can be read."
    else:
        yield f"{_many(sum(num_lost.values()), 'recording')} of {_total(report)} cannot be used: {kinds}."
    lost, train = num_lost.get("train", 0), total.get("train", 0)
    if lost and lost == train:
        yield f"LEFT OUT: all {_many(train, 'training recording')}; training would stop."
    elif lost:
        yield f"LEFT OUT of training: {lost} of {_many(train, 'recording')}. Mend the files or drop their rows."
    if num_lost.get("test"):
        yield f"SILENCE in the place of {num_lost['test']} of {_many(total['test'], 'test recording')}."
    similar = sum(bool(hint) for hint in missing.values())
    if similar:
        yield f"{_many(similar, 'missing file')} may be there under a similar name: correct the table or the name."
    for label, counts in report["labels"].items():
        if counts["lost"] == sum(counts["folds"]) and lost < train:
            yield f"NOTHING LEFT of label {label!r}: none of its training recordings can be read."


def _leaks(report: Mapping) -> Iterator[str]:
    groups, takes = report["duplicates"], report["takes"] or []
    across = [group for group in groups if group["crosses_splits"]]
    folds = [group for group in groups if group["crosses_folds"]]
    conflicts = [group for group in groups if group["conflicts"]]
    if across:
        yield (
            f"LEAK: identical sounds both in training and in test, {_many(len(across), 'group')}: the test looks "
            "better than it is. Keep each sound in one of the two."
        )
    if folds:
        yield (
            f"LEAK: identical training sounds in different folds, {_many(len(folds), 'group')}: networks are tested on "
            "what they were trained on. Keep one of each group, or give the group one fold, or one name in "
            "the column recording, in the table."
        )
    if conflicts:
        yield f"CONTRADICTION: identical sounds with different labels, {_many(len(conflicts), 'group')}."
    if groups and not across and not folds:
        yield f"Identical sounds, {_many(len(groups), 'group')}, none of them across folds or training and test."
    apart = [group for group in takes if group["crosses_folds"]]
    if apart:
        yield f"LEAK: takes of one recording in different folds, {_many(len(apart), 'group')}, by the table."
    elif takes:
        yield f"Folds keep takes of one recording together: true of all {len(takes)} groups, by the table."


def _folds(report: Mapping) -> Iterator[str]:
    if report["absent"]:
        names = ", ".join(repr(entry["label"]) for entry in report["absent"][:5])
        more = f" and {len(report['absent']) - 5} more" if len(report["absent"]) > 5 else ""
        yield f"ABSENT from at least one fold: {names}{more}. Such labels need more recordings, or fewer folds."


def _oddities(report: Mapping) -> Iterator[str]:
    odd = [
        f"{len(clips)} {_words(kind)}" for kind, clips in report["problems"].items() if kind not in LOST and len(clips)
    ]
    if odd:
        yield f"Worth a look, though they are used: {', '.join(odd)}."
    if report["extra_files"]:
        yield f"Not used: {_many(len(report['extra_files']), 'sound file')} of the folder that no clip names."


def _words(kind: str) -> str:
    return _WORDS.get(kind, kind.replace("_", " "))


def _total(report: Mapping) -> int:
    return sum(report["num_recordings"].values())


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")


# The report.


def format_report(report: Mapping) -> str:
    """The whole report as Markdown; names of files and labels are escaped."""
    lines = [
        "# The data, audited",
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
        words = _words(kind)
        yield f"## {words[0].upper()}{words[1:]}: {len(clips)} of {total}"
        yield escape(KINDS[kind])
        if kind != "missing" or len(clips) < total:
            yield _names(
                (code(name) + (f": {escape(detail)}" if detail else "") for name, detail in clips.items()), len(clips)
            )
    if report["extra_files"]:
        yield f"## Not used: {len(report['extra_files'])}"
        yield "Sound files in the folder that belong to no clip; they were not decoded."
        yield _names(map(code, report["extra_files"]), len(report["extra_files"]))


def _group_sections(report: Mapping) -> Iterator[str]:
    yield f"## Identical sounds: {_many(len(report['duplicates']), 'group')}"
    yield (
        "Of one rate and the same samples when mixed to mono, in whatever lossless format; of long recordings the "
        "first ten minutes count. Copies that were resampled, cut, scaled or encoded with loss are not recognized. "
        "Digital silence is not compared."
    )
    loud_first = sorted(report["duplicates"], key=lambda group: not (group["crosses_folds"] or group["crosses_splits"]))
    if loud_first:
        yield _names(map(_group_line, loud_first), len(loud_first))
    apart = [group for group in report["takes"] or [] if group["crosses_folds"]]
    if apart:
        yield f"## Takes of one recording in different folds: {_many(len(apart), 'group')}"
        yield _names(map(_group_line, apart), len(apart))


def _group_line(group: Mapping) -> str:
    marks = [
        ("crosses_splits", "training and test"),
        ("crosses_folds", "different folds"),
        ("conflicts", "labels differ"),
    ]
    said = ", ".join(words for name, words in marks if group[name])
    ids, labels = group["ids"], ", ".join(map(code, group["labels"])) or "no label"
    shown = ", ".join(map(code, ids[:MOST])) + (f" and {len(ids) - MOST} more" if len(ids) > MOST else "")
    return f"{f'**{said}**: ' if said else ''}{shown} ({labels})"


def _label_section(report: Mapping) -> Iterator[str]:
    if not report["labels"]:
        return
    sizes = report["fold_sizes"]
    yield "## Labels and folds"
    yield (
        f"Training clips a fold: {', '.join(map(str, sizes))}. {_deviation(report['largest_deviation'])} "
        f"Test clips without a label: {report['num_unlabelled_test']}. Counts are those of the tables; *lost* are "
        "training clips that leave no samples."
    )
    rows = [
        [code(label), counts["verified"], counts["unverified"], counts["lost"], counts["test"], *counts["folds"]]
        for label, counts in report["labels"].items()
    ]
    folds = [f"fold {fold}" for fold in range(len(sizes))]
    yield _grid(["label", "verified", "unverified", "lost", "test", *folds], rows)


def _deviation(farthest: Mapping) -> str:
    if abs(farthest["count"] - farthest["even_share"]) < 1:
        return "Every label is spread evenly over them."
    return (
        f"Farthest from an even share is {code(farthest['label'])}: {farthest['count']} clips in fold "
        f"{farthest['fold']}, where {farthest['even_share']:.1f} would be even."
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
    columns = (("rate, Hz", "rates_hz"), ("channels", "channels"), ("coding", "subtypes"))
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
