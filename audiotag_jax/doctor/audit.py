"""What can be said of recordings before any training: of each one alone, and of which belong together."""

import hashlib
import math
import os
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from audiotag_jax.audio.decode import MAX_DURATION_S, AudioError, SequentialFile, load_audio
from audiotag_jax.audio.files import AUDIO_SUFFIXES
from audiotag_jax.audio.level import SILENCE_DBFS, is_silent
from audiotag_jax.datasets.records import Clip

CLIPPED_RUN = 3  # samples at full scale in a row, the length from which Audacity's Find Clipping counts them
CLIPPED_SHARE = 0.001  # of all samples, in such runs: fewer are a peak or two that merely touch the limit
DC_OFFSET = 0.01  # mean of a channel, full scale being 1: 40 dB below it
SHORT_S = 0.1  # about one STFT window, 2048 samples at 22,050 Hz: less gives not one frame free of padding
LOST = ("missing", "empty", "non_finite", "unreadable")  # kinds of problem that leave no samples
KINDS = {
    "missing": "No such file.",
    "empty": "A file of no bytes.",
    "non_finite": "NaN or infinite samples.",
    "unreadable": "Nothing can be decoded.",
    "truncated": "Decoding ends before the end that the file's header promises.",
    "silent": f"Mixed to mono, never further than {SILENCE_DBFS:g} dB of full scale from its mean.",
    "clipped": f"More than {CLIPPED_SHARE:.1%} of the samples lie at full scale in runs of {CLIPPED_RUN} or more. What "
    "was clipped before a lossy encoder or a change of level is not seen.",
    "dc_offset": f"The mean of a channel is {DC_OFFSET:g} of full scale or more away from zero.",
    "too_short": f"Shorter than {SHORT_S:g} s: zeros fill most of a spectrogram's windows.",
    "too_long": f"Longer than {MAX_DURATION_S} s: what comes later is not looked at, neither here nor in training.",
    "low_rate": "Sampled at a lower rate than training's: its spectrogram is empty above half that rate.",
}
_BLOCK_FRAMES = 4096
# The largest sample of these formats; others count from 16 bits' largest positive one, 32767 of 32768.
_FULL_SCALE = {"PCM_S8": 127 / 128, "PCM_U8": 127 / 128, "ULAW": 32124 / 32768, "ALAW": 32256 / 32768}


@dataclass(frozen=True)
class Recording:
    """What was measured of a file: `loss`, one of `LOST`, and why, or else the rest."""

    loss: str = ""
    reason: str = ""
    note: str = ""  # what the samples lack of the file
    rate_hz: int = 0
    num_channels: int = 0
    subtype: str = ""  # the samples' coding, as libsndfile calls it
    duration_s: float = 0.0  # of what is decoded
    silent: bool = False
    peak_db: float | None = None  # of the mono sound, relative to full scale; None: all zero
    dc_offset: float = 0.0  # that of the channel with the largest
    clipped_share: float = 0.0  # of the samples of all channels
    content: str = ""  # hash of rate and mono samples, "" for digital silence: the same in every lossless format


def measure(path: str | Path, sample_rate_hz: int) -> Recording:
    """Decodes a file as training would, at `sample_rate_hz`, then once more as it is, in blocks; never raises."""
    try:
        samples, note = load_audio(path, sample_rate_hz)
        peak = max(float(samples.max()), -float(samples.min()))
        silent = is_silent(samples)
        del samples
        return Recording(note=note, silent=silent, peak_db=20 * math.log10(peak) if peak else None, **_scan(path))
    except (AudioError, soundfile.LibsndfileError, OSError) as error:
        return Recording(loss=_kind_of_loss(Path(path), str(error)), reason=str(error))


def findings(recording: Recording, sample_rate_hz: int) -> dict[str, str]:
    """The kinds of problem, keys of `KINDS`, that a recording has, and of each the particulars in a few words."""
    if recording.loss:
        detailed = recording.loss == "unreadable"
        return {recording.loss: recording.reason if detailed else ""}
    peak_db, duration_s = recording.peak_db, recording.duration_s
    checks = {
        "truncated": (recording.note.startswith("truncated"), recording.note.removeprefix("truncated: ")),
        "silent": (recording.silent, _level(peak_db)),
        "clipped": (recording.clipped_share > CLIPPED_SHARE, f"{recording.clipped_share:.2%} of its samples"),
        "dc_offset": (abs(recording.dc_offset) >= DC_OFFSET, f"{recording.dc_offset:+.3f}"),
        "too_short": (duration_s < SHORT_S, f"{duration_s:.3f} s"),
        "too_long": (recording.note.startswith("long"), recording.note.removeprefix("long: ")),
        "low_rate": (recording.rate_hz < sample_rate_hz, f"{recording.rate_hz} Hz"),
    }
    return {kind: detail for kind, (found, detail) in checks.items() if found}


def _level(peak_db: float | None) -> str:
    return "all zero" if peak_db is None else f"peak {peak_db:.1f} dB"


def _kind_of_loss(path: Path, reason: str) -> str:
    with suppress(OSError):
        if not path.is_file():
            return "missing"
        if path.stat().st_size == 0:
            return "empty"
    return "non_finite" if reason.startswith("non-finite") else "unreadable"


def _scan(path: str | Path) -> dict:
    """The fields of a Recording that need the samples as they are in the file, of its first `MAX_DURATION_S`."""
    with SequentialFile(os.fsencode(path)) as sound:
        full_scale = _FULL_SCALE.get(sound.subtype, 32767 / 32768)
        digest = hashlib.blake2b(str(sound.samplerate).encode(), digest_size=16)
        recent = np.zeros((CLIPPED_RUN, sound.channels), bool)
        sums, num_frames, num_clipped, is_zero = np.zeros(sound.channels), 0, 0, True
        for block in _blocks(sound):
            num_frames += len(block)
            sums += block.sum(axis=0, dtype=np.float64)
            count, recent = count_in_runs(recent, np.abs(block) >= full_scale)
            num_clipped += count
            mono = block.mean(axis=1) + 0.0  # of the two zeros, the positive one
            is_zero = is_zero and not mono.any()
            digest.update(mono.tobytes())
        means = sums / max(num_frames, 1)
        return {
            "rate_hz": sound.samplerate,
            "num_channels": sound.channels,
            "subtype": sound.subtype,
            "duration_s": num_frames / sound.samplerate,
            "dc_offset": float(means[np.abs(means).argmax()]),
            "clipped_share": num_clipped / max(num_frames * sound.channels, 1),
            "content": "" if is_zero else digest.hexdigest(),
        }


def _blocks(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    left = MAX_DURATION_S * sound.samplerate
    buffer = np.empty((_BLOCK_FRAMES, sound.channels), np.float32)
    with suppress(soundfile.LibsndfileError):  # where a damaged file breaks off; its last block is not looked at
        while left > 0 and len(block := sound.read(out=buffer[:left])):
            left -= len(block)
            yield block


def count_in_runs(recent: np.ndarray, flags: np.ndarray) -> tuple[int, np.ndarray]:
    """How many more flags stand in runs of `CLIPPED_RUN` or more with the block `flags` `[n, channels]` than before it.

    `recent` holds the `CLIPPED_RUN` flags before the block, of the same shape; returned are those before the next.
    """
    flags = np.concatenate([recent, flags])
    last = len(flags) - CLIPPED_RUN + 1
    full = np.logical_and.reduce([flags[i : i + last] for i in range(CLIPPED_RUN)])  # windows; the first is the past's
    begun = full[1:] & ~full[:-1]  # a run counts whole once it is long enough, then by one more sample at a time
    return int(full[1:].sum() + (CLIPPED_RUN - 1) * begun.sum()), flags[-CLIPPED_RUN:]


# Recordings together.


@dataclass(frozen=True)
class Group:
    """Clips that belong together, sorted, and where they lie."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    crosses_folds: bool  # training clips of several folds
    crosses_splits: bool  # training and test clips

    @property
    def conflicts(self) -> bool:
        """Whether the clips have different labels."""
        return len(self.labels) > 1


def group_clips(clips: Sequence[Clip], keys: Mapping[str, Hashable]) -> list[Group]:
    """The groups of two or more clips with the same key, by clip id; clips of an absent or false key are alone."""
    members = defaultdict(list)
    for clip in clips:
        if keys.get(clip.id):
            members[keys[clip.id]].append(clip)
    groups = []
    for group in members.values():
        if len(group) > 1:
            folds = {clip.fold for clip in group if clip.split == "train"}
            labels = {clip.label for clip in group if clip.label is not None}
            ids, splits = sorted(clip.id for clip in group), {clip.split for clip in group}
            groups.append(Group(tuple(ids), tuple(sorted(labels)), len(folds) > 1, len(splits) > 1))
    return sorted(groups, key=lambda group: group.ids)


def near_names(missing: Mapping[str, Path], files: Sequence[Path]) -> dict[str, Path]:
    """For each missing file, by clip id, one of `files` whose name is nearly its own, where there is one.

    Nearly: of the same path but for case or Unicode form, else also for the suffix, else of that name elsewhere.
    """
    found: dict[str, Path] = {}
    for key in (_same_path, _same_but_suffix, _same_name):
        by_key = {key(path): path for path in reversed(files)}
        for clip_id, path in missing.items():
            if clip_id not in found and key(path) in by_key:
                found[clip_id] = by_key[key(path)]
    return found


def _same_path(path: Path) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def _same_but_suffix(path: Path) -> str:
    return _same_path(path.with_suffix("") if path.suffix.lower() in AUDIO_SUFFIXES else path)


def _same_name(path: Path) -> str:
    return _same_path(Path(path.name))
