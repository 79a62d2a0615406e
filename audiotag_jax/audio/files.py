"""Lists the sound files of a folder, and what else there is in it."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from audiotag_jax.audio import ffmpeg

# Of the formats that libsndfile reads.
AUDIO_SUFFIXES: tuple[str, ...] = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")
AUDIO_SUFFIXES += (".aifc", ".bwf", ".caf", ".mp2", ".rf64", ".snd", ".voc", ".w64")
# Of those that need FFmpeg, which PyAV brings along.
PYAV_SUFFIXES = (".m4a", ".aac", ".wma", ".webm", ".mp4", ".m4b", ".mka", ".weba", ".3gp", ".amr", ".ac3", ".ape")
_JUNK = ("__MACOSX",)  # folders that archivers leave behind
_MOST = 3  # names listed in a line


@dataclasses.dataclass(frozen=True)
class Listing:
    """The sound files below a folder, sorted, and what is left out: all but hidden files and folders.

    `others` are files of other types, `unreadable` folders that cannot be listed, `loops` links to a folder that they
    lie in, `special` named pipes, sockets and devices with the suffix of a sound file.
    """

    folder: Path
    files: tuple[Path, ...]
    others: tuple[Path, ...]
    unreadable: tuple[Path, ...]
    loops: tuple[Path, ...]
    special: tuple[Path, ...]


def list_sounds(folder: Path) -> Listing:
    """Lists `folder` and its subfolders, linked ones too. What a link names twice is listed twice."""
    files: list[Path] = []
    others: list[Path] = []
    unreadable: list[Path] = []
    loops: list[Path] = []
    special: list[Path] = []
    suffixes = readable_suffixes()
    stack: list[tuple[Path, frozenset]] = [(Path(folder), frozenset())]
    while stack:
        parent, above = stack.pop()
        try:
            status = parent.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                loops.append(parent)
                continue
            entries = [entry for entry in os.scandir(parent) if not entry.name.startswith(".")]
        except OSError:
            unreadable.append(parent)
            continue
        for entry in entries:
            path = parent / entry.name
            if _is_folder(entry):
                if entry.name not in _JUNK:
                    stack.append((path, above | {identity}))
            elif path.suffix.lower() not in suffixes:
                others.append(path)
            elif _is_regular(entry):
                files.append(path)
            else:
                special.append(path)
    return Listing(Path(folder), *(tuple(sorted(each)) for each in (files, others, unreadable, loops, special)))


def contains_file(folder: Path, suffixes: Sequence[str] = ()) -> bool:
    """Returns whether a file, of one of the `suffixes` if any are given, is below `folder`, as `list_sounds` looks.

    Ends at the first one.
    """
    stack, seen = [folder], set()
    while stack:
        try:
            parent = stack.pop()
            status = parent.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            for entry in os.scandir(parent):
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    stack.append(parent / entry.name)
                elif (not suffixes or Path(entry.name).suffix.lower() in suffixes) and _is_regular(entry):
                    return True
        except OSError:
            continue
    return False


def audio_files(folder: Path) -> list[Path]:
    """Returns all sound files below `folder`, sorted: those with a known suffix in any case that are not hidden."""
    return list(list_sounds(folder).files)


def readable_suffixes() -> tuple[str, ...]:
    """Returns the suffixes of sound files in lower case; more of them where PyAV is installed."""
    return AUDIO_SUFFIXES + (PYAV_SUFFIXES if ffmpeg.is_installed() else ())


def describe_left_out(listing: Listing) -> Iterator[str]:
    """Yields a line for each kind of thing that a listing leaves out, with the number and the first names."""
    place = f"left out in {printable(str(listing.folder))}:"
    if listing.others:
        kinds = count_suffixes(listing.others)
        hint = "; some can be decoded with PyAV: pip install av" if needs_pyav(listing.others) else ""
        yield f"{place} {count_things(len(listing.others), 'file')} of other types ({kinds}){hint}"
    for paths, what in (
        (listing.unreadable, "folder{} that cannot be read"),
        (listing.loops, "link{} to a folder around it"),
        (listing.special, "named pipe{}, or the like"),
    ):
        if paths:
            count = f"{len(paths)} {what.format('s' * (len(paths) > 1))}"
            yield f"{place} {count}: {name_some(paths, listing.folder)}"


def needs_pyav(files: Sequence[Path]) -> bool:
    """Returns whether some of the files could be decoded if PyAV were installed."""
    return not ffmpeg.is_installed() and any(path.suffix.lower() in PYAV_SUFFIXES for path in files)


def count_suffixes(files: Sequence[Path]) -> str:
    """Returns the suffixes of files with their numbers, the most frequent first, as text."""
    counts = Counter(printable(path.suffix.lower()) or "without a suffix" for path in files).most_common()
    shown = ", ".join(f"{count} {suffix}" for suffix, count in counts[:8])
    return shown + (f", {sum(count for _, count in counts[8:])} of other kinds" if len(counts) > 8 else "")


def name_some(paths: Sequence[Path], folder: Path) -> str:
    """Returns the first few paths relative to `folder`, and how many more there are, as text in one line."""
    shown = (path.relative_to(folder) if path.is_relative_to(folder) else path for path in paths[:_MOST])
    more = f" and {len(paths) - _MOST} more" if len(paths) > _MOST else ""
    return ", ".join(printable(str(path)) for path in shown) + more


def printable(text: str) -> str:
    """Returns `text` in one line, with non-printable characters (newlines, controls, surrogates) escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def count_things(count: int, noun: str) -> str:
    """Returns a count with its noun, in the plural where that is right."""
    return f"{count} {noun}" + ("s" if count != 1 else "")


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_regular(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a file, or a broken link: reading reports that."""
    try:
        return entry.is_file() or not Path(entry.path).exists()
    except OSError:
        return True
