"""A stream of bytes as numbered lines, within limits, unpacked when it was gzipped."""

import zlib
from collections.abc import Iterator

from core.errors import InvalidInput, PayloadTooLarge
from core.settings import LimitSettings

_BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 20  # bytes unpacked at a time, so that a bomb is noticed before it has filled the memory
_GZIP = 16 + zlib.MAX_WBITS


class Lines:
    """Cuts what it is fed at "\\n". Lines count from 1; blank ones count too but are not passed on."""

    def __init__(self, limits: LimitSettings, *, gzipped: bool = False) -> None:
        self._limits = limits
        self._unpack = zlib.decompressobj(_GZIP) if gzipped else None
        self._fed = False
        self._bytes = 0
        self._number = 0
        self._rows = 0
        self._open = b""  # the line that has not ended yet

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """The lines, with their numbers, that end in `chunk`.

        Raises
        ------
        PayloadTooLarge
            When a line, their number or the whole is over its limit. Facts: `line`.
        InvalidInput
            When what claims to be gzip is not.
        """
        self._fed = self._fed or bool(chunk)
        for piece in self._unpacked(chunk):
            yield from self._cut(piece)

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """The last line, when it does not end in "\\n". Raises as feed."""
        if self._unpack is not None and self._fed and not self._unpack.eof:
            raise InvalidInput("the gzip stream ends too early", field="Content-Encoding")
        last, self._open = self._open, b""
        yield from self._numbered([last])

    def _unpacked(self, chunk: bytes) -> Iterator[bytes]:
        if self._unpack is None:
            yield chunk
            return
        try:
            while chunk:
                if self._unpack.eof:  # files may be several streams, one after the other
                    self._unpack = zlib.decompressobj(_GZIP)
                yield self._unpack.decompress(chunk, _PIECE)
                chunk = self._unpack.unconsumed_tail or self._unpack.unused_data
        except zlib.error as exc:
            raise InvalidInput("the body is not gzip", field="Content-Encoding") from exc

    def _cut(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        self._bytes += len(piece)
        if self._bytes > self._limits.upload_bytes:
            limit = self._limits.upload_bytes
            raise PayloadTooLarge(f"an upload may have {limit} bytes: send it in parts", limit=limit)
        *ended, self._open = (self._open + piece).split(b"\n")
        yield from self._numbered(ended)
        self._check_length(self._number + 1, self._open)

    def _numbered(self, lines: list[bytes]) -> Iterator[tuple[int, bytes]]:
        for line in lines:
            self._number += 1
            self._check_length(self._number, line)
            content = line.removeprefix(_BOM) if self._number == 1 else line
            if not content or content.isspace():
                continue
            self._rows += 1
            if self._rows > self._limits.upload_rows:
                limit = self._limits.upload_rows
                raise PayloadTooLarge(
                    f"an upload may have {limit} examples: send it in parts", line=self._number, limit=limit
                )
            yield self._number, content

    def _check_length(self, number: int, line: bytes) -> None:
        limit = self._limits.line_bytes
        if len(line) > limit:
            raise PayloadTooLarge(f"line {number} is longer than {limit} bytes", line=number, limit=limit)
