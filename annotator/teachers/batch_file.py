"""The file of questions that becomes a batch: on disk, within the bounds of its endpoint."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class BatchFile:
    """Lines, at most so many and of so many bytes together."""

    def __init__(self, content: IO[bytes], *, most_lines: int, most_bytes: int) -> None:
        self.lines = self.size = 0
        self._content = content
        self._most_lines, self._most_bytes = most_lines, most_bytes

    def add(self, line: bytes) -> bool:
        """Append a line, its newline included; False, and nothing is done, when there is no room for it."""
        if self.lines + 1 > self._most_lines or self.size + len(line) > self._most_bytes:
            return False
        self._content.write(line)
        self.lines += 1
        self.size += len(line)
        return True

    def reread(self) -> IO[bytes]:
        """The file, at its beginning."""
        self._content.seek(0)
        return self._content


@contextmanager
def open_batch_file(folder: Path, *, most_lines: int, most_bytes: int) -> Iterator[BatchFile]:
    """An empty file in `folder`, without a name, gone at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as content:
        yield BatchFile(content, most_lines=most_lines, most_bytes=most_bytes)
