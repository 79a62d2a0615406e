"""A part of a file as a file of its own, with some bytes replaced; the file on disk stays as it is."""

import io
import os
from collections.abc import Iterator, Mapping

_CHUNK_BYTES = 1 << 20


class ByteView(io.RawIOBase):
    """Reads `header` and behind it bytes `[start, stop)` of an open file, with `patches` (bytes by offset) in place.

    Reads by position, so that several views of a file do not disturb each other.
    """

    def __init__(
        self,
        file_descriptor: int,
        start: int,
        stop: int,
        patches: Mapping[int, bytes] | None = None,
        header: bytes = b"",
    ):
        self._descriptor, self._start, self._position = file_descriptor, start - len(header), 0
        self._num_header, self._patches = len(header), {0: header, **(patches or {})}
        self.size = len(header) + stop - start

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        """Returns up to `num_bytes` from `offset` on; fewer only at the view's end. Raises OSError."""
        num_bytes = max(0, min(num_bytes, self.size - offset))
        found = bytearray(max(0, min(self._num_header - offset, num_bytes)))
        while len(found) < num_bytes:
            part = os.pread(self._descriptor, num_bytes - len(found), self._start + offset + len(found))
            if not part:  # the file became shorter
                break
            found += part
        for at, patch in self._patches.items():
            first, last = max(at, offset), min(at + len(patch), offset + len(found))
            if first < last:
                found[first - offset : last - offset] = patch[first - at : last - at]
        return bytes(found)

    def part(
        self, start: int, stop: int, patches: Mapping[int, bytes] | None = None, header: bytes = b""
    ) -> "ByteView":
        """Returns a view of `[start, stop)` of this view, which has neither header nor patches itself."""
        return ByteView(self._descriptor, self._start + start, self._start + stop, patches, header)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Yields the bytes from `start` on, in pieces of about a megabyte."""
        while piece := self.read_at(start, _CHUNK_BYTES):
            yield piece
            start += len(piece)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        found = self.read_at(self._position, self.size if size is None or size < 0 else size)
        self._position += len(found)
        return found

    def readinto(self, buffer) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
