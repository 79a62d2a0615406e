"""What a sound file consists of, by its own bytes: independent of the decoder, which trusts the header."""

from audiotag_jax.audio.byte_view import ByteView
from audiotag_jax.audio.chunked import find_samples
from audiotag_jax.audio.flac import find_flac_streams
from audiotag_jax.audio.mpeg import find_mpeg_streams
from audiotag_jax.audio.ogg import find_ogg_streams
from audiotag_jax.audio.stream import Stream

_MOST_STREAMS = 10_000
# Containers that only FFmpeg reads: they are not searched for frames.
_OTHERS = (b"\x1aE\xdf\xa3", b"0&\xb2u", b"#!AMR", b"wvpk", b"MAC ", b"FLV", b"\x00\x00\x01\xba", b"DSD ", b"TTA1")


def find_streams(view: ByteView) -> list[Stream]:
    """Returns the streams of a file in order; one, the whole file, if none is found. Reads all of it where it must."""
    start = _after_tags(view)
    magic = view.read_at(start, 12)
    if magic.startswith(b"fLaC"):
        streams = find_flac_streams(view, start)
    elif magic.startswith(b"OggS"):
        streams = find_ogg_streams(view)
    elif is_foreign(magic):
        streams = []
    elif start == 0 and find_samples(view):
        streams = _chunked_streams(view)
    else:
        streams = find_mpeg_streams(view, start)
    return streams[:_MOST_STREAMS] or [Stream(0, view.size)]


def is_foreign(magic: bytes) -> bool:
    """Returns whether a file that begins with these 12 bytes is of a kind that libsndfile does not read."""
    return magic.startswith(_OTHERS) or magic[4:8] == b"ftyp"


def _after_tags(view: ByteView) -> int:
    """Returns the offset behind all ID3 tags at the beginning."""
    position = 0
    while (head := view.read_at(position, 10)).startswith(b"ID3") and len(head) == 10:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        position += 10 + size + (10 if head[5] & 0x10 else 0)
    return position


def _chunked_streams(view: ByteView) -> list[Stream]:
    streams: list[Stream] = []
    start: int | None = 0
    while start is not None and len(streams) < _MOST_STREAMS:
        part = view.part(start, view.size)
        samples = find_samples(part)
        if samples is None:
            break
        stop = view.size if samples.next_file is None else start + samples.next_file
        rest_share = 0.0 if samples.next_file or not samples.declared else samples.rest / samples.declared
        streams.append(Stream(start, stop, samples.patches, cut_share=samples.missing_share, rest_share=rest_share))
        start = None if samples.next_file is None else start + samples.next_file
    return streams
