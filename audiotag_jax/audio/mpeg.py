"""The frames of MP3 files (and layers I and II): streams behind each other, and their true lengths.

A decoder stops where a Xing header ends the file, and estimates the length where there is none. Joined files, and
headers written before the recording was complete, hold more. Sources: ISO/IEC 11172-3 and 13818-3.
"""

import dataclasses
import struct
from collections.abc import Iterator

from audiotag_jax.audio.byte_view import ByteView
from audiotag_jax.audio.stream import Stream

_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version: 1, 2, 2.5
_KBPS = {  # by version 1 or another, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MOST_PADDING = 3456  # samples that an encoder adds at both ends, and the Xing header declares for removal
_MOST_JUNK = 1 << 20  # bytes searched for a first frame


@dataclasses.dataclass(frozen=True)
class _FrameKind:
    """Frames of one version, layer and rate."""

    lengths: dict[bytes, int]  # bytes of a frame by its first three bytes
    rate_hz: int
    num_samples: int  # of a frame, a channel
    side_bytes: tuple[int, int]  # of side information in stereo and mono


def _frame_kinds() -> dict[bytes, _FrameKind]:
    """Returns the kind of a frame by its first three bytes; free-format frames, which give no length, are left out."""
    kinds: dict[bytes, _FrameKind] = {}
    for version, rates in _RATES_HZ.items():
        for layer in (1, 2, 3):
            num_samples = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
            for rate_index, rate_hz in enumerate(rates):
                lengths = {}
                for bits, kbps in enumerate(_KBPS[version == 3, layer], 1):
                    for low in range(4):  # padding and private bit
                        padding = low >> 1
                        if layer == 1:
                            length = (12_000 * kbps // rate_hz + padding) * 4
                        else:
                            length = num_samples // 8 * 1000 * kbps // rate_hz + padding
                        third = bits << 4 | rate_index << 2 | low
                        for crc in (0, 1):
                            lengths[bytes((0xFF, 0xE0 | version << 3 | (4 - layer) << 1 | crc, third))] = length
                kind = _FrameKind(lengths, rate_hz, num_samples, (32, 17) if version == 3 else (17, 9))
                kinds.update(dict.fromkeys(lengths, kind))
    return kinds


_KINDS = _frame_kinds()


def find_mpeg_streams(view: ByteView, start: int) -> list[Stream]:
    """Returns the streams of an MPEG audio file from `start` on, by walking over all frames; [] if there are none.

    A new stream begins at each Xing or Info header. One whose header declares fewer frames than there are is patched.
    """
    parts: list[_MpegPart] = []
    for position, kind, head in _mpeg_frames(view, start):
        tag = _xing(kind, head)
        if not parts or tag or parts[-1].kind.rate_hz != kind.rate_hz:
            parts.append(_MpegPart(position, kind, head, tag))
        parts[-1].num_frames += tag is None
        parts[-1].end = position + kind.lengths[head[:3]]
    stops = [*(part.start for part in parts[1:]), view.size]
    return [part.stream(stop) for part, stop in zip(parts, stops, strict=False)]


@dataclasses.dataclass
class _MpegPart:
    start: int
    kind: _FrameKind
    head: bytes  # of the first frame
    tag: tuple[int, int | None] | None  # of `_xing`
    num_frames: int = 0
    end: int = 0  # of the last frame

    def stream(self, stop: int) -> Stream:
        frame_s = self.kind.num_samples / self.kind.rate_hz
        held_s, slack_s = self.num_frames * frame_s, 3 * frame_s  # a decoder's delay, and frames that need others
        at, declared = self.tag or (0, None)
        if declared is None:
            header = b"" if self.tag else self._xing_frame()
            is_cut = self.end > stop
            return Stream(self.start, stop, {}, held_s, slack_s, is_estimated=True, header=header, is_cut=is_cut)
        patches = {at: struct.pack(">I", self.num_frames)} if declared < self.num_frames else {}
        return Stream(self.start, stop, patches, held_s, _MOST_PADDING / self.kind.rate_hz)

    def _xing_frame(self) -> bytes:
        """Returns a frame like the first with a Xing header that declares the frames of this part."""
        begin = 4 + self.kind.side_bytes[self.head[3] >> 6 == 3]
        tag = b"Xing" + struct.pack(">II", 1, self.num_frames)
        for bits in range(0x10, 0xF0, 0x10):  # the lowest bit rate that has room for it
            head = bytes((0xFF, self.head[1] | 1, bits | self.head[2] & 0x0C, self.head[3]))
            if self.kind.lengths[head[:3]] >= begin + len(tag):
                return (head + bytes(begin - 4) + tag).ljust(self.kind.lengths[head[:3]], b"\0")
        return b""


def _mpeg_frames(view: ByteView, start: int) -> Iterator[tuple[int, _FrameKind, bytes]]:
    """Yields offset, kind and first bytes of each frame; the last may be cut."""
    buffer, base, kind, junk, position = b"", start, None, 0, start
    while position + 4 <= view.size:
        if position + 8192 > base + len(buffer) and base + len(buffer) < view.size:
            base, buffer = position, view.read_at(position, 1 << 20)
        offset = position - base
        if offset >= len(buffer):  # the file became shorter
            return
        head = buffer[offset : offset + 3]
        length = kind.lengths.get(head) if kind else None
        if (
            kind is None or length is None
        ):  # the first frame, or junk between frames: the next must follow, or the file end
            found = _KINDS.get(head)
            if found is not None:
                end = offset + found.lengths[head]
                if buffer[end : end + 3] in found.lengths or position + found.lengths[head] == view.size:
                    kind, length = found, found.lengths[head]
        if kind is None or length is None:
            following = buffer.find(b"\xff", offset + 1)
            skipped = (following if following >= 0 else len(buffer)) - offset
            junk, position = junk + skipped, position + skipped
            if kind is None and junk > _MOST_JUNK:
                return
            continue
        yield position, kind, buffer[offset : offset + 200]
        position += length


def _xing(kind: _FrameKind, head: bytes) -> tuple[int, int | None] | None:
    """Returns where in a frame a Xing header has its count of frames, and the count (None: it has none)."""
    at = 4 + kind.side_bytes[head[3] >> 6 == 3]
    for begin in (at, at + 2):  # with a checksum
        if head[begin : begin + 4] in (b"Xing", b"Info"):
            has_count = len(head) >= begin + 12 and head[begin + 7] & 1
            return begin + 8, struct.unpack(">I", head[begin + 8 : begin + 12])[0] if has_count else None
    return (50, None) if head[36:40] == b"VBRI" else None
