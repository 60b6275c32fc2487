"""The Range header (RFC 9110, section 14): one range of bytes, which is what resumed downloads ask for."""

import re
from dataclasses import dataclass

from core.errors import InvalidInput

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


class RangeNotSatisfiable(InvalidInput):
    """The range begins after the end. Facts: `size`."""

    code = "range_not_satisfiable"


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes [start, end) of something."""

    start: int
    end: int

    def content_range(self, size: int) -> str:
        """The Content-Range header, whose end is inclusive."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range asked for of `size` bytes; None, for the whole, when there is none or one that we may ignore.

    Raises
    ------
    RangeNotSatisfiable
        When it lies outside.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if found[1]:
        start, end = int(found[1]), min(int(found[2] or size), size - 1) + 1
        if found[2] and int(found[2]) < start:
            return None  # not a range at all, says the RFC
    else:
        start, end = max(size - int(found[2]), 0), size
    if start >= end:
        raise RangeNotSatisfiable(f"there are {size} bytes", size=size)
    return ByteRange(start, end)
