"""Where the samples lie in WAV, RF64, W64, AIFF, CAF, AU and NIST files, and how many their headers declare.

Recorders that lose power, streaming writers and files past 4 GiB leave lengths in the header that are zero, a
placeholder, or modulo 2**32; decoders that trust them read nothing or a part.
"""

import dataclasses
import re
import struct
from collections.abc import Iterator

from audiotag_jax.audio.byte_view import ByteView

_PLACEHOLDER_BYTES = 0x7FFF0000  # streaming writers put 2**31 - 1, 2**32 - 1 or slightly less as length
_SLACK_BYTES = 1 << 16  # of metadata behind the samples of a file past 4 GiB
_MOST_CHUNKS = 10_000  # zeros are chunks too, of eight bytes
_W64_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")


@dataclasses.dataclass(frozen=True)
class _Container:
    first_chunk: int  # offset
    id_bytes: int
    size_format: str  # of `struct`
    alignment: int  # chunks begin at multiples of it
    data_id: bytes
    data_prefix: int = 0  # bytes of the data chunk before the samples
    size_includes_header: bool = False

    @property
    def header_bytes(self) -> int:
        return self.id_bytes + struct.calcsize(self.size_format)


_CONTAINERS = {
    b"RIFF": _Container(12, 4, "<I", 2, b"data"),
    b"RIFX": _Container(12, 4, ">I", 2, b"data"),
    b"RF64": _Container(12, 4, "<I", 2, b"data"),
    b"BW64": _Container(12, 4, "<I", 2, b"data"),
    b"FORM": _Container(12, 4, ">I", 2, b"SSND", data_prefix=8),
    b"caff": _Container(8, 4, ">Q", 1, b"data", data_prefix=4),
    b"riff": _Container(40, 16, "<Q", 8, b"data" + _W64_GUID_TAIL, size_includes_header=True),
}
_FILE_IDS = {b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"}  # of a file behind the file, not of a chunk


@dataclasses.dataclass(frozen=True)
class Samples:
    """The samples in a file: where they are and how many bytes the header declares."""

    start: int  # offset of the first
    declared: int | None  # bytes; None: the header leaves it open
    held: int  # bytes from `start` to the end of the file
    rest: int  # bytes behind the declared samples that belong to no chunk
    next_file: int | None  # offset of another file of this kind behind this one
    patches: dict[int, bytes]  # what to replace in the header, so that libsndfile reads them to the end of the file

    @property
    def missing_share(self) -> float:
        """The declared bytes over those in the file, above 1 if the file is cut."""
        return max(1.0, self.declared / self.held) if self.declared and self.held > 0 else 1.0


def find_samples(view: ByteView) -> Samples | None:
    """Returns where the samples are, by the chunks of the file; None for other kinds of files or damaged ones."""
    magic = view.read_at(0, 4)
    if magic in (b".snd", b"dns."):
        return _find_in_au(view, ">" if magic == b".snd" else "<")
    if magic == b"NIST":
        return _find_in_nist(view)
    container = _CONTAINERS.get(magic)
    if container is None:
        return None
    ds64 = None
    for offset, chunk_id, size in _chunks(view, container, container.first_chunk):
        if chunk_id == b"ds64" and magic in (b"RF64", b"BW64"):
            ds64 = offset
        if chunk_id == container.data_id:
            return _describe(view, container, magic, offset, size, ds64)
    return None


def _chunks(view: ByteView, container: _Container, offset: int) -> Iterator[tuple[int, bytes, int]]:
    """Yields offset, id and declared size of the content of each chunk, as far as they follow each other."""
    for _ in range(_MOST_CHUNKS):
        header = view.read_at(offset, container.header_bytes)
        if len(header) < container.header_bytes:
            return
        chunk_id = header[: container.id_bytes]
        (size,) = struct.unpack(container.size_format, header[container.id_bytes :])
        if container.size_includes_header:
            size = max(0, size - container.header_bytes)
        yield offset, chunk_id, size
        offset += container.header_bytes + size
        offset += -offset % container.alignment


def _describe(view: ByteView, container: _Container, magic: bytes, offset: int, size: int, ds64: int | None) -> Samples:
    start = offset + container.header_bytes + container.data_prefix
    held = view.size - start
    size_at, size_format = offset + container.id_bytes, container.size_format
    if ds64 is not None and size >= _PLACEHOLDER_BYTES:
        size_at, size_format = ds64 + 16, "<Q"
        (size,) = struct.unpack(size_format, view.read_at(size_at, 8).ljust(8, b"\0"))
    field_max = 2 ** (8 * struct.calcsize(size_format)) - 1
    declared = max(0, size - container.data_prefix)
    is_open = size >= _PLACEHOLDER_BYTES if field_max < 2**33 else size > 2**62
    if size <= container.data_prefix:
        is_open = not _is_chunk_list(view, container, start)
    wraps = field_max < 2**33 and held > field_max and (held - declared) % 2**32 < _SLACK_BYTES
    is_open = (is_open and held > 0) or wraps
    if not is_open:  # libsndfile reads W64 to the end of the file
        rest, next_file = _behind(view, container, start + declared) if magic != b"riff" else (0, None)
        return Samples(start, declared, held, rest, next_file, {})
    patches = {}
    if held > field_max or magic not in (b"RIFF", b"RIFX", b"FORM", b"riff") or size < _PLACEHOLDER_BYTES:
        patches = {size_at: _pack_size(container, size_format, held + container.data_prefix)}
    if magic in (b"RIFF", b"RIFX") and held > field_max:  # so libsndfile recognizes a file that was never closed
        patches = {4: struct.pack(size_format, 8), size_at: struct.pack(size_format, 0)}
    return Samples(start, None, held, 0, None, patches)


def _pack_size(container: _Container, size_format: str, size: int) -> bytes:
    size += container.header_bytes if container.size_includes_header else 0
    return struct.pack(size_format, min(size, 2 ** (8 * struct.calcsize(size_format)) - 1))


def _behind(view: ByteView, container: _Container, end: int) -> tuple[int, int | None]:
    """Returns how many bytes behind the samples are in no chunk, and the offset of another file there, if any."""
    for begin in sorted({end + -end % container.alignment, end}, reverse=True):  # padding may have been forgotten
        if view.read_at(begin, 4) in _FILE_IDS:
            return view.size - begin, begin
        if _is_chunk_list(view, container, begin):
            return 0, None
    return max(0, view.size - end), None


def _is_chunk_list(view: ByteView, container: _Container, offset: int) -> bool:
    """Returns whether chunks with printable ids fill the view from `offset` on, or nothing is left."""
    for begin, chunk_id, size in _chunks(view, container, offset):
        if not all(32 <= byte < 127 for byte in chunk_id[:4]) or begin + size > view.size:
            return False
        if chunk_id in _FILE_IDS:
            return False
    return True


def _find_in_au(view: ByteView, order: str) -> Samples | None:
    header = view.read_at(4, 8)
    if len(header) < 8:
        return None
    start, size = struct.unpack(f"{order}II", header)
    held = view.size - start
    if size == 0xFFFFFFFF or (size == 0 and held > 0):
        patches = {8: b"\xff" * 4} if size == 0 else {}
        return Samples(start, None, held, 0, None, patches)
    return Samples(start, size, held, max(0, held - size), None, {})


def _find_in_nist(view: ByteView) -> Samples | None:
    """Returns where the samples of a NIST SPHERE file are, as of TIMIT's; libsndfile reads to the end of the file."""
    header = view.read_at(0, 1024).decode("latin-1")
    fields = {name: int(value) for name, value in re.findall(r"^(\w+) -(?:i|s\d+) (\d{1,18})$", header, re.MULTILINE)}
    begin = re.match(r"NIST_1A\n *(\d{1,9})\n", header)
    if begin is None:
        return None
    declared = fields.get("sample_count", 0) * fields.get("channel_count", 1) * fields.get("sample_n_bytes", 0)
    return Samples(int(begin[1]), declared or None, view.size - int(begin[1]), 0, None, {})
