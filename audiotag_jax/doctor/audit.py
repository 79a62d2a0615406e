"""Measurements of recordings, the problems that they show, and groups of identical ones."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiotag_jax.audio.decode import AudioError, read_blocks, stream_audio
from audiotag_jax.audio.level import CANCELLED_DB, SILENCE_DBFS, Level
from audiotag_jax.audio.stream import Noted
from audiotag_jax.datasets.records import Clip, is_labelled

CLIPPED_RUN = 3  # samples at full scale in a row, the length from which Audacity's Find Clipping counts them
CLIPPED_SHARE = 0.001  # of all samples, in such runs: a smaller share may be single peaks at full scale
DC_OFFSET = 0.01  # mean of a channel relative to full scale: -40 dB
SHORT_S = 0.1  # about one STFT window, 2048 samples at 22,050 Hz: in a shorter clip every frame has padding
LOST = ("missing", "empty", "non_finite", "unreadable")  # kinds of problem of recordings without samples
KINDS = {
    "missing": "The file does not exist.",
    "empty": "The file has no bytes.",
    "non_finite": "Some samples are NaN or infinite.",
    "unreadable": "The file cannot be decoded.",
    "truncated": "Decoding ends before the length in the file's header, or before the end of its frames.",
    "longer": "Behind the end by the file's header there is more, which is not decoded: it may be sound.",
    "cancelling": f"The mono mix of the channels is {-CANCELLED_DB:g} dB or more weaker than that of unrelated ones. "
    "It is used all the same: invert one channel, or keep one.",
    "silent": f"Mixed to mono, all samples are within {SILENCE_DBFS:g} dB of full scale around their mean.",
    "clipped": f"More than {CLIPPED_SHARE:.1%} of the samples are at full scale in runs of {CLIPPED_RUN} or more. "
    "Clipping before lossy encoding or a change of level is not detected.",
    "dc_offset": f"The mean of a channel is {DC_OFFSET:g} of full scale or more away from zero.",
    "too_short": f"Shorter than {SHORT_S:g} s: zeros fill most of a spectrogram's windows.",
    "low_rate": "The sampling rate is below that of training: spectrograms are empty above half of it.",
}
# Largest sample of these formats; for others full scale is that of 16 bits, 32767 / 32768.
_FULL_SCALE = {"PCM_S8": 127 / 128, "PCM_U8": 127 / 128, "ULAW": 32124 / 32768, "ALAW": 32256 / 32768}


@dataclass(frozen=True)
class RecordingAudit:
    """Measurements of a file, or only `loss`, one of `LOST`, and its `reason` if it has no samples."""

    loss: str = ""
    reason: str = ""
    note: str = ""  # of `stream_audio`: what is not decoded, and channels that cancel
    rate_hz: int = 0
    num_channels: int = 0
    subtype: str = ""  # libsndfile's name of the sample format, or FFmpeg's of the codec
    duration_s: float = 0.0  # of what is decoded
    silent: bool = False
    peak_db: float | None = None  # of the mono mix, relative to full scale; None: all samples are zero
    dc_offset: float = 0.0  # of the channel where it is largest
    clipped_share: float = 0.0  # of the samples of all channels
    content: str = ""  # hash of rate and mono samples, "" for digital silence: the same in every lossless format


def measure(path: str | Path, sample_rate_hz: int) -> RecordingAudit:
    """Measures a file decoded as in training, at `sample_rate_hz`, and in its own format; never raises."""
    try:
        level = Level()
        for samples in (stream := Noted(stream_audio(path, sample_rate_hz))):
            level.add(samples)
        peak_db = 20 * math.log10(level.peak) if level.peak else None
        return RecordingAudit(note=stream.note, silent=level.is_silent, peak_db=peak_db, **_scan(path))
    except (AudioError, OSError) as error:
        return RecordingAudit(loss=_kind_of_loss(Path(path), str(error)), reason=str(error))


def findings(audit: RecordingAudit, sample_rate_hz: int) -> dict[str, str]:
    """Returns the kinds of problem (keys of `KINDS`) of a recording, each with a short detail such as "0.090 s"."""
    if audit.loss:
        detailed = audit.loss == "unreadable"
        return {audit.loss: audit.reason if detailed else ""}
    peak_db, duration_s = audit.peak_db, audit.duration_s
    notes = dict(note.split(": ", 1) for note in audit.note.split("; ") if ": " in note)
    checks = {
        "truncated": ("truncated" in notes, notes.get("truncated", "")),
        "longer": ("longer than declared" in notes, notes.get("longer than declared", "")),
        "cancelling": ("channels cancel" in notes, notes.get("channels cancel", "")),
        "silent": (audit.silent, _level(peak_db)),
        "clipped": (audit.clipped_share > CLIPPED_SHARE, f"{audit.clipped_share:.2%} of its samples"),
        "dc_offset": (abs(audit.dc_offset) >= DC_OFFSET, f"{audit.dc_offset:+.3f}"),
        "too_short": (duration_s < SHORT_S, f"{duration_s:.3f} s"),
        "low_rate": (audit.rate_hz < sample_rate_hz, f"{audit.rate_hz} Hz"),
    }
    return {kind: detail for kind, (found, detail) in checks.items() if found}


def _level(peak_db: float | None) -> str:
    return "all zero" if peak_db is None else f"peak {peak_db:.1f} dB"


def _kind_of_loss(path: Path, reason: str) -> str:
    with suppress(OSError):
        if not path.exists():
            return "missing"
        if path.stat().st_size == 0:
            return "empty"
    return "non_finite" if reason.startswith("non-finite") else "unreadable"


def _scan(path: str | Path) -> dict:
    """Returns the fields of a RecordingAudit that need the file's own samples."""
    digest, first, recent = hashlib.blake2b(digest_size=16), None, np.zeros((CLIPPED_RUN, 0), bool)
    sums, num_frames, num_clipped, is_zero = np.zeros(0), 0, 0, True
    frames_by_rate: Counter[int] = Counter()
    for block in read_blocks(path):
        samples = block.samples
        if first is None:
            first, sums, recent = block, np.zeros(samples.shape[1]), np.zeros((CLIPPED_RUN, samples.shape[1]), bool)
            digest.update(str(block.rate_hz).encode())
        frames_by_rate[block.rate_hz] += len(samples)
        mono = samples.mean(axis=1) + 0.0  # turns -0.0 into 0.0, which has other bytes
        is_zero = is_zero and not mono.any()
        digest.update(mono.tobytes())
        if samples.shape[1] == len(sums):  # a later stream may have more or fewer channels
            sums, num_frames = sums + samples.sum(axis=0, dtype=np.float64), num_frames + len(samples)
            count, recent = count_in_runs(recent, _at_full_scale(samples, block.subtype))
            num_clipped += count
    if first is None:
        raise AudioError("no audio frames")
    means = sums / num_frames
    return {
        "rate_hz": first.rate_hz,
        "num_channels": len(sums),
        "subtype": first.subtype,
        "duration_s": sum(count / rate_hz for rate_hz, count in frames_by_rate.items()),
        "dc_offset": float(means[np.abs(means).argmax()]),
        "clipped_share": num_clipped / (num_frames * len(sums)),
        "content": "" if is_zero else digest.hexdigest(),
    }


def _at_full_scale(samples: np.ndarray, subtype: str) -> np.ndarray:
    """Flags samples at full scale or beyond; in float formats only those at it, since these keep what is above."""
    magnitudes = np.abs(samples)
    flags = magnitudes >= _FULL_SCALE.get(subtype, 32767 / 32768)
    return flags & (magnitudes <= 1) if subtype in ("FLOAT", "DOUBLE") else flags


def count_in_runs(recent: np.ndarray, flags: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns by how much the block `flags` `[n, channels]` raises the count of flags in runs of `CLIPPED_RUN` or more.

    `recent` `[CLIPPED_RUN, channels]` are the flags before the block; also returned are those before the next one.
    """
    flags = np.concatenate([recent, flags])
    last = len(flags) - CLIPPED_RUN + 1
    full = np.logical_and.reduce([flags[i : i + last] for i in range(CLIPPED_RUN)])  # windows; the first is of `recent`
    begun = full[1:] & ~full[:-1]  # a run counts in full when it gets long enough, then one sample at a time
    return int(full[1:].sum() + (CLIPPED_RUN - 1) * begun.sum()), flags[-CLIPPED_RUN:]


# Groups of recordings.


@dataclass(frozen=True)
class Group:
    """Clips with the same content or recording, sorted by id, and the folds and splits that they cross."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    crosses_folds: bool  # training clips of several folds
    crosses_splits: bool  # training and test clips

    @property
    def conflicts(self) -> bool:
        """Returns whether the clips have different labels."""
        return len(self.labels) > 1


def group_clips(clips: Sequence[Clip], keys: Mapping[str, Hashable]) -> list[Group]:
    """Returns groups of two or more clips with equal `keys` (by clip id), sorted; absent or false keys form none."""
    members = defaultdict(list)
    for clip in clips:
        if keys.get(clip.id):
            members[keys[clip.id]].append(clip)
    groups = []
    for group in members.values():
        if len(group) > 1:
            folds = {clip.fold for clip in group if clip.split == "train"}
            labels = {"; ".join(clip.all_labels) for clip in group if is_labelled(clip)}
            ids, splits = sorted(clip.id for clip in group), {clip.split for clip in group}
            groups.append(Group(tuple(ids), tuple(sorted(labels)), len(folds) > 1, len(splits) > 1))
    return sorted(groups, key=lambda group: group.ids)
