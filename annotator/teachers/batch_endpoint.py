"""The Batch API of an endpoint: a file of questions goes there, and its results are fetched hours later.

Source: https://platform.openai.com/docs/guides/batch. Calls are few, so each stands alone: whoever makes them comes
back later when one fails. A batch carries a mark of ours in its metadata, by which it is found again when the reply to
its creation was lost.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, Any, NoReturn

import httpx2
import openai

from annotator.parsing import storable
from annotator.teachers.batch_lines import MAX_WHY, URL, Result, fault_of, read_result, split_lines
from annotator.teachers.client import client_options, transport_options
from annotator.teachers.retry import retry_after
from core.domain.annotation import TeacherConfig
from core.errors import TeacherRejected, TeacherUnreachable

Call = AbstractContextManager[openai.APIResponse[Any]]
Stop = Callable[[], bool]

_MARK = "causeway_batch"
_ENDED = ("completed", "failed", "expired", "cancelled")
_MOST_PAGES = 100  # of a hundred batches, when one is looked for
_CLOCKS_DIFFER = 3600.0  # seconds, at most, between ours and theirs
_MAX_ANSWER = 2_000_000  # bytes of an answer about a batch
_MAX_RESULTS = 20_000_000_000  # bytes of a file of results
_LONGEST_READ = 3600.0  # seconds for a file of results
_ID = re.compile(r"[\w:=-][\w.:=-]{0,199}")  # of a batch or a file: it becomes part of an address
_CROWDED = re.compile(r"token_limit|enqueued|too[ _](?:large|many|big)|exceeds? the (?:maximum|limit)", re.IGNORECASE)
_LASTING = {401: "it does not accept the key", 402: "it wants payment", 403: "it forbids this key to use batches"}
_NOT_THERE = (404, 405, 410, 501)


class NotAccepted(Exception):
    """The endpoint will not take a file or a batch. `crowded`: it was too much at a time; `fault` as fault_of."""

    def __init__(self, why: str, *, crowded: bool, fault: str | None) -> None:
        super().__init__(why)
        self.why, self.crowded, self.fault = why, crowded, fault


class Gone(Exception):
    """The endpoint does not know, or no longer has, what was asked for."""


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its endpoint tells of it."""

    id: str
    status: str  # validating, failed, in_progress, finalizing, completed, expired, cancelling, cancelled
    files: tuple[str, ...] = ()  # of results: those of answers first, then those of errors
    answered: int = 0
    fault: NotAccepted | None = None  # why it failed as a whole

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in _ENDED


@contextmanager
def open_batch_endpoint(config: TeacherConfig) -> Iterator["BatchEndpoint"]:
    """The Batch API behind a teacher's `base_url`; its connections are closed at the end."""
    transport = openai.DefaultHttpxClient(**transport_options(config))
    with openai.OpenAI(http_client=transport, **client_options(config)) as client:
        yield BatchEndpoint(config, client)


class BatchEndpoint:
    """What can be asked of it. Every method raises, besides what it says:

    TeacherUnreachable
        When this call got no answer, or none that can be read; a later one may. Facts: `retry_after`, in seconds,
        where the endpoint asks for it.
    TeacherRejected
        When no call will ever pass: wrong key, no Batch API.
    """

    def __init__(self, config: TeacherConfig, client: openai.OpenAI) -> None:
        self._config = config
        self._client = client

    def upload(self, lines: IO[bytes], *, name: str) -> str:
        """Send a file of questions, which costs nothing yet; its id.

        Raises
        ------
        NotAccepted
            When it will not have this file.
        """
        files = self._client.files.with_streaming_response
        try:
            answer = self._answer(files.create(file=(f"{name}.jsonl", lines, "application/jsonl"), purpose="batch"))
        except Gone as exc:
            raise self._rejected("it has no Batch API") from exc
        return _id_of(answer.get("id"))

    def create(self, file_id: str, *, mark: str) -> RemoteBatch:
        """Have a file's questions answered. After TeacherUnreachable it may be so all the same: see `find`.

        Raises
        ------
        NotAccepted
            When it will not have this batch.
        """
        batches = self._client.batches.with_streaming_response
        create = batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h", metadata={_MARK: mark})
        try:
            return _batch(self._answer(create))
        except Gone as exc:
            raise self._rejected("it has no Batch API") from exc

    def find(self, mark: str, *, since: float) -> RemoteBatch | None:
        """The batch with this mark, created at `since` (unix seconds) or later; None when there is none."""
        after: str | openai.Omit = openai.omit
        for _ in range(_MOST_PAGES):
            try:
                page = self._answer(self._client.batches.with_streaming_response.list(limit=100, after=after))
            except Gone as exc:
                raise self._rejected("it cannot list its batches, so one may be lost there") from exc
            found = [one for one in page.get("data") or () if isinstance(one, dict)]
            for one in found:
                if isinstance(one.get("metadata"), dict) and one["metadata"].get(_MARK) == mark:
                    return _batch(one)
            if not found or not page.get("has_more") or _number(found[-1], "created_at") < since - _CLOCKS_DIFFER:
                return None
            after = _id_of(found[-1].get("id"))
        return None

    def look(self, batch_id: str) -> RemoteBatch:
        """How a batch is doing. Raises Gone when there is none of that id."""
        return _batch(self._answer(self._client.batches.with_streaming_response.retrieve(batch_id)))

    def cancel(self, batch_id: str) -> None:
        """Stop a batch; one that has ended, or is not there, is left alone."""
        try:
            self._answer(self._client.batches.with_streaming_response.cancel(batch_id))
        except (Gone, NotAccepted):
            return

    def results(self, batch: RemoteBatch, stop: Stop) -> Iterator[Result | None]:
        """The results of a batch that ended, from all its files, until `stop` says so; None for a line that is none.

        Raises
        ------
        Gone
            When a file is not there any more, or is larger than any can be.
        """
        for file_id in batch.files:
            for line, whole in split_lines(self._chunks(file_id, stop)):
                yield read_result(line, whole=whole)

    def _chunks(self, file_id: str, stop: Stop) -> Iterator[bytes]:
        size, until = 0, time.monotonic() + _LONGEST_READ
        with self._translated(), self._client.files.with_streaming_response.content(file_id) as response:
            for chunk in response.iter_bytes():
                if stop():
                    return
                size += len(chunk)
                if size > _MAX_RESULTS:
                    raise Gone
                if time.monotonic() > until:
                    raise self._unreachable("its results take too long to read")
                yield chunk

    def _answer(self, call: Call) -> Mapping[str, Any]:
        """The JSON object that a call is answered with."""
        body, until = bytearray(), time.monotonic() + self._config.deadline
        with self._translated(), call as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER or time.monotonic() > until:
                    raise self._unreachable("its answer is too long, or too slow")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise self._unreachable("its answer is not JSON") from exc
        if not isinstance(document, dict):
            raise self._unreachable("its answer is no JSON object")
        return document

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except openai.APIStatusError as exc:
            self._raise(exc)
        except (openai.APIConnectionError, httpx2.TransportError, httpx2.DecodingError) as exc:
            raise self._unreachable(type(exc.__cause__ or exc).__name__) from exc

    def _raise(self, error: openai.APIStatusError) -> NoReturn:
        status = error.status_code
        if status in _LASTING or 300 <= status < 400 or error.code == "insufficient_quota":
            raise self._rejected(
                _LASTING.get(status, "it redirects" if status < 400 else "its quota is used up")
            ) from error
        if status in _NOT_THERE:
            raise Gone from error
        if status in (408, 409, 425, 429) or status >= 500:
            raise self._unreachable(f"HTTP {status}", retry_after(error.response.headers)) from error
        why = storable(f"HTTP {status}: {error.message}")[:MAX_WHY]
        fault = fault_of({"code": error.code, "param": error.param, "message": error.message})
        raise NotAccepted(why, crowded=status == 413 or bool(_CROWDED.search(f"{error.code} {why}")), fault=fault)

    def _rejected(self, why: str) -> TeacherRejected:
        return TeacherRejected(f"teacher {self._config.name!r} takes no batches: {why}", teacher=self._config.name)

    def _unreachable(self, last: str, wait: float | None = None) -> TeacherUnreachable:
        asks = {} if wait is None else {"retry_after": wait}
        return TeacherUnreachable(
            f"teacher {self._config.name!r} cannot be reached: {last}", teacher=self._config.name, last=last, **asks
        )


def _batch(document: Mapping[str, Any]) -> RemoteBatch:
    counts = document.get("request_counts")
    files = (document.get("output_file_id"), document.get("error_file_id"))
    return RemoteBatch(
        _id_of(document.get("id")),
        storable(str(document.get("status")))[:32].lower(),
        tuple(_id_of(file) for file in files if file),
        _number(counts, "completed") + _number(counts, "failed"),
        _fault(document.get("errors")),
    )


def _fault(errors: Any) -> NotAccepted | None:
    """Why a batch failed as a whole: the first of its errors."""
    listed = errors.get("data") if isinstance(errors, dict) else None
    first = next((one for one in listed or () if isinstance(one, dict)), None) if isinstance(listed, list) else None
    if first is None:
        return None
    words = ": ".join(str(first[name]) for name in ("code", "message") if first.get(name))
    why = storable(words)[:MAX_WHY] or "it does not say why"
    return NotAccepted(why, crowded=bool(_CROWDED.search(why)), fault=fault_of(first))


def _id_of(value: Any) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise TeacherUnreachable("the endpoint answers with an id that is none")
    return value


def _number(document: Any, name: str) -> int:
    value = document.get(name) if isinstance(document, dict) else None
    return value if type(value) is int and 0 <= value < 2**31 else 0
