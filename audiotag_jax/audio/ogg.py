"""The pages of Ogg files (RFC 3533): links of a chained file, of which a decoder reads the first, and their lengths."""

import dataclasses
import struct
from collections.abc import Iterator

from audiotag_jax.audio.byte_view import ByteView
from audiotag_jax.audio.stream import Stream


@dataclasses.dataclass(frozen=True)
class _Page:
    begins: bool  # a stream
    position: int  # the stream's samples up to its end
    serial: int  # of the stream
    num_packets: int  # that end in it
    content: bytes  # the first 64 bytes


def find_ogg_streams(view: ByteView) -> list[Stream]:
    """Returns the links of a chained Ogg file, one for an ordinary file, by walking over all pages."""
    links: list[_Link] = []
    in_headers = False
    for offset, page in _ogg_pages(view):
        if page.begins and not in_headers:
            links.append(_Link(offset))
        in_headers = page.begins
        if links:
            links[-1].add(page)
    stops = [*(link.start for link in links[1:]), view.size]
    return [Stream(link.start, stop, {}, link.held_s) for link, stop in zip(links, stops, strict=False)]


@dataclasses.dataclass
class _Link:
    start: int
    serial: int | None = None  # of its sound
    rate_hz: int = 0
    packet_samples: int = 0  # at most
    first: int | None = None  # position, 0 if the sound may begin there, else at the end of the first page
    last: int = 0

    def add(self, page: _Page) -> None:
        if page.begins:
            rate_hz, packet_samples = _ogg_sound(page.content)
            if rate_hz and self.serial is None:
                self.serial, self.rate_hz, self.packet_samples = page.serial, rate_hz, packet_samples
        elif page.serial == self.serial and page.position > 0:
            if self.first is None:
                self.first = 0 if page.position <= page.num_packets * self.packet_samples else page.position
            self.last = page.position

    @property
    def held_s(self) -> float | None:
        return None if self.first is None else max(0, self.last - self.first) / self.rate_hz


def _ogg_sound(packet: bytes) -> tuple[int, int]:
    """Returns by a stream's first packet in what rate it counts samples, and the most in a packet; 0 for no sound."""
    if packet.startswith(b"OpusHead"):
        return 48000, 5760
    if packet.startswith(b"\x01vorbis") and len(packet) >= 29:
        return struct.unpack("<I", packet[12:16])[0], 1 << (packet[28] >> 4) >> 1
    if packet.startswith(b"\x7fFLAC") and len(packet) >= 30:
        return int.from_bytes(packet[27:30]) >> 4, int.from_bytes(packet[19:21])
    if packet.startswith(b"Speex   ") and len(packet) >= 40:
        return struct.unpack("<I", packet[36:40])[0], 6400
    return 0, 0


def _ogg_pages(view: ByteView) -> Iterator[tuple[int, _Page]]:
    """Yields the complete pages with their offsets."""
    buffer, base, position = b"", 0, 0
    while position + 27 <= view.size:
        if position + 70_000 > base + len(buffer) and base + len(buffer) < view.size:
            base, buffer = position, view.read_at(position, 1 << 20)
        offset = position - base
        if offset + 27 > len(buffer):  # the file became shorter
            return
        if buffer[offset : offset + 4] != b"OggS":
            following = buffer.find(b"OggS", offset + 1)
            position = base + following if following >= 0 else max(position + 1, base + len(buffer) - 3)
            continue
        flags, granule, serial = struct.unpack_from("<BqI", buffer, offset + 5)
        num_segments = buffer[offset + 26]
        content = offset + 27 + num_segments
        lacing = buffer[offset + 27 : content]
        num_packets = num_segments - lacing.count(255)
        following = position + 27 + num_segments + sum(lacing)
        if following <= view.size:  # else it is cut
            yield position, _Page(bool(flags & 2), granule, serial, num_packets, buffer[content : content + 64])
        position = following
