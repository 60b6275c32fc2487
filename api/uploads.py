"""An upload on its way: read line by line, checked, and spooled to disk, so that memory stays flat."""

import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

from api.example_lines import LineReader
from api.lines import Lines
from core.datasets import NewExample
from core.errors import CausewayError, InvalidInput, Unavailable

_CHUNK = 1 << 18  # bytes handed to the checking thread at a time
_DRAINED = 1 << 26  # bytes of a refused upload that are read and dropped, so that its sender hears the answer


class Upload:
    """Examples on disk, all of them good. A context manager: leaving it removes the spool."""

    def __init__(self, lines: Lines, reader: LineReader, folder: Path) -> None:
        self._lines = lines
        self._reader = reader
        folder.mkdir(parents=True, exist_ok=True)
        self._spool = tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder)  # noqa: SIM115 (closed in __exit__)
        self.rows = 0
        self.relations = 0
        self.malformed = 0
        self.unresolved: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # on a full disk closing fails too, and what is in there is not wanted any more
            self._spool.close()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body. Raises as api.lines.Lines.feed and api.example_lines.LineReader.read."""
        self._take(self._lines.feed(chunk))

    def finish(self) -> None:
        """The body has ended. Raises as feed, and InvalidInput when it had no example."""
        self._take(self._lines.finish())
        if self.rows == 0:
            raise InvalidInput('the body has no example: send one JSON object a line, {"input", "target"}')
        with _spooling():
            self._spool.flush()

    def examples(self) -> Iterator[NewExample]:
        """All examples, in the order of their lines."""
        self._spool.seek(0)
        for line in self._spool:
            yield NewExample(*json.loads(line))

    def _take(self, lines: Iterator[tuple[int, bytes]]) -> None:
        for number, line in lines:
            read = self._reader.read(number, line)
            self.rows += 1
            self.relations += read.relations
            self.malformed += read.malformed
            self.unresolved.update(edge.reason.value for edge in read.unresolved)
            with _spooling():
                self._spool.write(json.dumps(read.example) + "\n")


async def receive(
    request: Request, upload: Upload, seen: Callable[[bytes], object], *, first: Callable[[], object]
) -> None:
    """Feed the body of `request` to `upload`, in a thread, and show it to `seen`; run `first` before that.

    Raises
    ------
    CausewayError
        What `first` and `upload` raise, once the sender has been given the chance to finish his sentence.
    """
    try:
        await to_thread.run_sync(first)
        async for chunk in _chunks(request):
            seen(chunk)
            await to_thread.run_sync(upload.feed, chunk)
        await to_thread.run_sync(upload.finish)
    except CausewayError:
        await _drain(request)
        raise


@contextmanager
def _spooling() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise Unavailable("the upload cannot be spooled: the disk is full or broken") from exc


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces that are worth a trip to a thread."""
    pending: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        pending.append(chunk)
        size += len(chunk)
        if size >= _CHUNK:
            yield b"".join(pending)
            pending, size = [], 0
    if pending:
        yield b"".join(pending)


async def _drain(request: Request) -> None:
    """Read on for a while: closing at once would reset the connection before its answer was read."""
    dropped = 0
    with suppress(ClientDisconnect, RuntimeError):  # RuntimeError: it was read to its end before the error
        async for chunk in request.stream():
            dropped += len(chunk)
            if dropped > _DRAINED:
                return
