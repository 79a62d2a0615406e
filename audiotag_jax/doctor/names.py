"""Names that look like mistakes: paths that nearly exist, misspelt labels, and labels that look like several tags."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from audiotag_jax.audio.files import readable_suffixes

_SAME_WAY = 0.9  # share of the missing files that a change of the paths must explain to be proposed
_SEPARATORS = ",;|"
_MOST_MISSPELT = 5  # in the report
_MUCH_RARER = 10  # times that a label is rarer than the one of which it may be a misspelling


def near_names(missing: Mapping[str, Path], files: Sequence[Path]) -> dict[str, Path]:
    """Returns for missing files, by clip id, one of `files` with a similar name, if there is one.

    Similar: the same path except for case or Unicode form, else also for the suffix, else the same name elsewhere, with
    any suffix if need be.
    """
    found: dict[str, Path] = {}
    for key in (_same_path, _same_but_suffix, _same_name, _same_stem):
        by_key = {key(path): path for path in reversed(files)}
        for clip_id, path in missing.items():
            if clip_id not in found and key(path) in by_key:
                found[clip_id] = by_key[key(path)]
    return found


def propose_change(found: Mapping[str, str], num_missing: int) -> str:
    """Returns the change of the paths that most of the missing files need, as a sentence; "" if there is none.

    `found` are the paths that exist by those that are missing.
    """
    changes = Counter(_change(wanted, there) for wanted, there in found.items())
    change, count = changes.most_common(1)[0] if changes else (None, 0)
    if change is None or count < 2 or count < _SAME_WAY * num_missing:
        return ""
    wanted, there = next(pair for pair in found.items() if _change(*pair) == change)
    return (
        f"{count} of {num_missing} missing files exist under paths that differ in the same way ({wanted!r} is "
        f"{there!r}): in the table, {', '.join(_instructions(*change))}."
    )


def _change(wanted: str, there: str) -> tuple[str, str, str, str]:
    """Returns beginnings and suffixes of two paths, without what they have in common."""
    suffixes = [_audio_suffix(path) for path in (wanted, there)]
    parts = [path.removesuffix(suffix).split("/") for path, suffix in zip((wanted, there), suffixes, strict=True)]
    while parts[0] and parts[1] and _normalized(parts[0][-1]) == _normalized(parts[1][-1]):
        parts = [each[:-1] for each in parts]
    beginnings = ["/".join(each) + "/" if each else "" for each in parts]
    if suffixes[0] == suffixes[1]:
        suffixes = ["", ""]
    return beginnings[0], beginnings[1], suffixes[0], suffixes[1]


def _instructions(beginning: str, new_beginning: str, suffix: str, new_suffix: str) -> Iterator[str]:
    if beginning and new_beginning:
        yield f"replace {beginning!r} at the beginning by {new_beginning!r}"
    elif beginning:
        yield f"remove {beginning!r} from the beginning"
    elif new_beginning:
        yield f"put {new_beginning!r} before them"
    if suffix and new_suffix:
        yield f"replace {suffix!r} by {new_suffix!r}"
    elif suffix or new_suffix:
        yield f"append {new_suffix!r}" if new_suffix else f"remove {suffix!r}"
    if not (beginning or new_beginning or suffix or new_suffix):
        yield "write them in the case and the Unicode form of the files"


def describe_tag_lists(labels: Sequence[str]) -> Iterator[str]:
    """Yields a line for each separator in labels that look like several tags, as other labels have their parts too."""
    for separator in _SEPARATORS:
        parts = {label: [part.strip() for part in label.split(separator)] for label in labels}
        lists = [label for label in labels if len(parts[label]) > 1]
        counts = Counter(part for label in labels for part in set(parts[label]))
        if any(1 < counts[part] < len(labels) for label in lists for part in parts[label]):
            yield (
                f"SEVERAL TAGS? {len(lists)} of {len(labels)} labels have {separator!r} between words that other "
                f"labels have too, such as {lists[0]!r}: each such list is one class of its own. "
                f"config.dataset.label_separator={separator!r} makes them several tags of a clip listed in a table."
            )


def describe_misspelt(counts: Mapping[str, int]) -> Iterator[str]:
    """Yields a line for each label that may be a misspelling of a more frequent one; `counts` are of their clips."""
    found = misspelt_labels(counts)
    for label, other in found[:_MOST_MISSPELT]:
        clips = f"{counts[label]} clip{'s' * (counts[label] > 1)}"
        yield (
            f"MISSPELT? {label!r} ({clips}) is nearly {other!r} ({counts[other]} clips); "
            "as it is, it is a class of its own."
        )
    if len(found) > _MOST_MISSPELT:
        yield f"MISSPELT? {len(found) - _MOST_MISSPELT} more labels"


def misspelt_labels(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Returns pairs of a label and a much more frequent one that is spelt nearly the same; `counts` are of their clips.

    Nearly: the same first letter, and one other wrong, missing, added or two exchanged, two of these in labels of ten
    letters or more. Labels that differ in digits or in words of one or two letters are meant so (`take 1`, `type II`).
    """
    found = []
    without_digits = {label: re.sub(r"\d+", "", label) for label in counts}
    for label, count in counts.items():
        most = 2 if len(label) >= 10 else 1
        for other, number in counts.items():
            is_rarer = count * _MUCH_RARER <= number and label[:1] == other[:1]
            if is_rarer and without_digits[label] != without_digits[other]:
                words = set(label.split()) ^ set(other.split())
                if min(map(len, words), default=0) > 2 and _distance(label, other, most) <= most:
                    found.append((label, other))
    return found


def _distance(one: str, other: str, most: int) -> int:
    """Returns the number of changes from `one` to `other` (optimal string alignment; above `most` any such number)."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before, row = [], list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, there in enumerate(other, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != there)))
            if last and j > 1 and letter == other[j - 2] and one[i - 2] == there:
                row[j] = min(row[j], last[j - 2] + 1)
    return row[-1]


def _audio_suffix(path: str) -> str:
    suffix = Path(path).suffix
    return suffix if suffix.lower() in readable_suffixes() else ""


def _normalized(text: str) -> str:
    try:
        text = os.fsencode(text).decode()
    except UnicodeDecodeError:
        text = os.fsencode(text).decode("latin-1")  # as old archives leave names
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _same_path(path: Path) -> str:
    return _normalized(str(path))


def _same_but_suffix(path: Path) -> str:
    return _normalized(str(path).removesuffix(_audio_suffix(str(path))))


def _same_name(path: Path) -> str:
    return _normalized(path.name)


def _same_stem(path: Path) -> str:
    return _normalized(path.name.removesuffix(_audio_suffix(path.name)))
