"""The frames of FLAC files (RFC 9639): streams behind each other, and samples behind the declared end."""

from audiotag_jax.audio.byte_view import ByteView
from audiotag_jax.audio.stream import Stream

_STREAMS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")  # the marker, and the header of STREAMINFO
_RATES_HZ = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)  # by code
_MOST_FRAME_BYTES = 1 << 18  # searched from the end for the last frame
_MOST_METADATA = 1000  # blocks


def find_flac_streams(view: ByteView, start: int) -> list[Stream]:
    """Returns the streams of a FLAC file from `start` on; one whose last frame lies behind its declared end is patched.

    The declared number of samples is then replaced by 0, which means unknown.
    """
    starts = [start, *_find_all(view, _STREAMS, start + 8)]
    streams = []
    for begin, stop in zip(starts, [*starts[1:], view.size], strict=True):
        info = view.read_at(begin + 8, 34)
        if len(info) < 34:
            break
        rate_hz, declared = int.from_bytes(info[10:13]) >> 4, int.from_bytes(info[13:18]) & (2**36 - 1)
        first = _first_frame(view, begin)
        last = _last_sample(view, begin, stop, first, int.from_bytes(info[2:4])) or 0
        patches = {21: bytes((info[13] & 0xF0,)) + bytes(4)} if 0 < declared <= last else {}
        code = first[2] & 15 if len(first) == 4 else 0
        rate_hz = _RATES_HZ[code] if 0 < code < len(_RATES_HZ) else rate_hz  # frames count more than the header
        streams.append(Stream(begin, stop, patches, last / rate_hz if rate_hz else None))
    return streams


def _find_all(view: ByteView, patterns: tuple[bytes, ...], start: int) -> list[int]:
    """Returns the offsets of all `patterns`, of 8 bytes each, from `start` on."""
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


def _first_frame(view: ByteView, begin: int) -> bytes:
    """Returns the first four bytes of the first frame, behind the blocks of metadata."""
    position = begin + 4
    for _ in range(_MOST_METADATA):
        header = view.read_at(position, 4)
        if len(header) < 4 or header[0] == 0xFF:
            return header
        position += 4 + int.from_bytes(header[1:4])
        if header[0] & 0x80:
            break
    return view.read_at(position, 4)


def _last_sample(view: ByteView, begin: int, stop: int, first: bytes, block_samples: int) -> int | None:
    """Returns the number of the first sample of the last frame before `stop`; None if none is found.

    Only frames with the coding of the first count, as other bytes may look like a frame by chance.
    """
    if len(first) < 4 or first[0] != 0xFF or first[1] not in (0xF8, 0xF9):
        return None
    offset = max(begin, stop - _MOST_FRAME_BYTES)
    data = view.read_at(offset, stop - offset)
    at = len(data)
    while (at := data.rfind(first[:2], 0, at)) >= 0:
        head = data[at : at + 16]
        if len(head) > 3 and head[2] & 15 == first[2] & 15 and head[3] & 15 == first[3] & 15:
            number = _frame_number(head)
            if number is not None:
                return number * block_samples if head[1] == 0xF8 else number  # fixed or variable blocks
    return None


def _frame_number(head: bytes) -> int | None:
    """Returns the coded number of a frame, or of its first sample, if the header's checksum is right."""
    if len(head) < 16:
        return None
    first = head[4]
    length = 1 if first < 0x80 else 8 - (first ^ 0xFF).bit_length()
    if first >= 0x80 and not 2 <= length <= 7:
        return None
    number = first & (0x7F if length == 1 else (1 << (7 - length)) - 1)
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
