"""The frames of FLAC files (RFC 9639): streams behind each other, and samples behind the declared end."""

from audiotag_jax.audio.byte_view import ByteView
from audiotag_jax.audio.stream import Stream

_FLAC_STREAM = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")  # the marker, and the header of STREAMINFO


def find_flac_streams(view: ByteView, start: int) -> list[Stream]:
    """Returns the streams of a FLAC file from `start` on; one whose last frame lies behind its declared end is patched.

    The declared number of samples is then replaced by 0, which means unknown.
    """
    starts = [start, *_find_all(view, _FLAC_STREAM, start + 8)]
    streams = []
    for begin, stop in zip(starts, [*starts[1:], view.size], strict=True):
        info = view.read_at(begin + 8, 34)
        if len(info) < 34:
            break
        rate_hz, declared = int.from_bytes(info[10:13]) >> 4, int.from_bytes(info[13:18]) & (2**36 - 1)
        last = _last_flac_sample(view, begin, stop, int.from_bytes(info[2:4]))
        patches = {21: bytes((info[13] & 0xF0,)) + bytes(4)} if last and 0 < declared <= last else {}
        streams.append(Stream(begin, stop, patches, last / rate_hz if last and rate_hz else None))
    return streams


def _find_all(view: ByteView, patterns: tuple[bytes, ...], start: int) -> list[int]:
    found, tail, position = set(), b"", start
    for chunk in view.chunks(start):
        joined = tail + chunk
        for pattern in patterns:
            at = joined.find(pattern)
            while at >= 0:
                found.add(position - len(tail) + at)
                at = joined.find(pattern, at + 1)
        position, tail = position + len(chunk), joined[-7:]
    return sorted(found)


def _last_flac_sample(view: ByteView, begin: int, stop: int, block_samples: int) -> int | None:
    """Returns the number of the first sample of the last frame before `stop`; None if none is found."""
    first = max(begin, stop - (1 << 18))
    data = view.read_at(first, stop - first)
    at = len(data)
    while (at := data.rfind(b"\xff", 0, at)) >= 0:
        if data[at + 1 : at + 2] in (b"\xf8", b"\xf9"):
            number = _flac_frame_number(data[at : at + 16])
            if number is not None:
                return number * block_samples if data[at + 1] == 0xF8 else number
    return None


def _flac_frame_number(head: bytes) -> int | None:
    """Returns the coded number of a frame (or of its first sample) if the header's checksum is right."""
    if len(head) < 16:
        return None
    first = head[4]
    length = 1 if first < 0x80 else 8 - (first ^ 0xFF).bit_length()
    if first >= 0x80 and not 2 <= length <= 7:
        return None
    number = first & (0x7F if length == 1 else (1 << max(0, 7 - length)) - 1)
    for byte in head[5 : 4 + length]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    end = 4 + length + {6: 1, 7: 2}.get(head[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    return number if end < len(head) and _crc8(head[:end]) == head[end] else None


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ (0x107 if crc & 0x80 else 0)
    return crc
