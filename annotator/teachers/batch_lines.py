"""The lines of a batch on the wire: a question in the file that is sent, a result in those that come back.

Format: https://platform.openai.com/docs/api-reference/batch. Results come in any order and are matched by `custom_id`.
Nothing in them is believed: a line in no form we know is told apart, never raised.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from annotator.parsing import REPLY_SCHEMA, storable
from annotator.teachers.base import Finish, Message, Reply
from annotator.teachers.chat_format import (
    RUNGS,
    UNSUPPORTED,
    parameters_of,
    read_document,
    request_parameters,
    response_format,
)
from core.domain.annotation import TeacherConfig

URL: Final = "/v1/chat/completions"
MAX_LINE = 2_100_000  # bytes of a result that are read
MAX_WHY = 500  # characters of an endpoint's error message that are kept

_RESPONSE_FORMAT = "response_format"
_ID = re.compile(rb'"custom_id"\s*:\s*"([\w.-]{1,64})"')
_PASSING = (408, 409, 425, 429)  # statuses that the same request may not meet again; and all from 500 on
_EVERY_CALL = (401, 402, 403, 404)


@dataclass(frozen=True, slots=True)
class Form:
    """How a question is put, besides its words: structured output of which rung, without which parameters."""

    rung: int = 0
    refused: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """For the database."""
        return {"rung": self.rung, "refused": sorted(self.refused)}

    def without(self, fault: str, config: TeacherConfig) -> "Form | None":
        """The form to try after the endpoint objected to `fault`; None when it is no part of this one."""
        if fault == _RESPONSE_FORMAT:
            return replace(self, rung=self.rung + 1) if self.rung < RUNGS - 1 else None
        if fault in request_parameters(parameters_of(config), self.refused):
            return replace(self, refused=self.refused | {fault})
        return None


def form_from_json(value: Mapping[str, Any]) -> Form:
    """Inverse of Form.to_json."""
    return Form(value["rung"], frozenset(value["refused"]))


def request_line(custom_id: str, messages: Sequence[Message], config: TeacherConfig, form: Form) -> bytes:
    """One question as a line of the file that is sent, its newline included."""
    body: dict[str, Any] = {"model": config.model, "messages": list(messages)}
    body |= request_parameters(parameters_of(config), form.refused)
    if (format_ := response_format(form.rung, REPLY_SCHEMA)) is not None:
        body[_RESPONSE_FORMAT] = format_
    line = {"custom_id": custom_id, "method": "POST", "url": URL, "body": body}
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


class Fate(StrEnum):
    """What became of a question."""

    ANSWERED = "answered"
    UNFIT = "unfit"  # this question will never pass as it is
    REFUSED = "refused"  # no question will: wrong key, unknown model
    AGAIN = "again"  # it may pass another time: expired, cancelled, throttled, a server's error


@dataclass(frozen=True, slots=True)
class Result:
    """A line that came back. `reply` is of one that was answered, `why` of the others."""

    custom_id: str
    fate: Fate
    reply: Reply = Reply("")
    why: str = ""
    fault: str | None = None  # the part of the form that made it unfit, where the endpoint names one


def read_result(line: bytes, *, whole: bool = True) -> Result | None:
    """What a line says; None when it says nothing of any question.

    Of one that is not `whole`, because it was too long to be read, the text is what was read.
    """
    if not whole:
        found = _ID.search(line)
        text = storable(line.decode("utf-8", "replace"))
        reply = Reply(text, finish=Finish.OVERSIZED)
        return None if found is None else Result(found[1].decode(), Fate.ANSWERED, reply)
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    custom_id = document.get("custom_id") if isinstance(document, dict) else None
    if not isinstance(custom_id, str):
        return None
    response = document.get("response")
    if isinstance(response, dict):
        return _of_response(custom_id, response.get("status_code"), response.get("body"))
    error = document.get("error")
    return Result(custom_id, Fate.AGAIN, why=_message(error)) if isinstance(error, dict) else None


def split_lines(chunks: Iterable[bytes], longest: int = MAX_LINE) -> Iterator[tuple[bytes, bool]]:
    """The lines of a file that comes in pieces, and whether each is whole: of one over `longest`, the beginning."""
    kept, skipping = bytearray(), False
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            kept += b"" if skipping else part
            if kept.strip():
                yield bytes(kept[:longest]), not skipping and len(kept) <= longest
            kept, skipping = bytearray(), False
        if not skipping:
            kept += rest
            skipping = len(kept) > longest
            del kept[longest + 1 :]
    if kept.strip():
        yield bytes(kept[:longest]), not skipping


def _of_response(custom_id: str, status: Any, body: Any) -> Result | None:
    if type(status) is not int:
        return None
    if status == 200:
        reply = read_document(body)
        return Result(custom_id, Fate.ANSWERED, Reply(storable(json.dumps(body))) if reply is None else reply)
    error = body.get("error") if isinstance(body, dict) else None
    why = f"HTTP {status}: {_message(error)}"[:MAX_WHY]
    if status in _PASSING or status >= 500:
        return Result(custom_id, Fate.AGAIN, why=why)
    if status in _EVERY_CALL or not 400 <= status < 500:
        return Result(custom_id, Fate.REFUSED, why=why)
    return Result(custom_id, Fate.UNFIT, why=why, fault=fault_of(error))


def fault_of(error: Any) -> str | None:
    """The part of a request's form that an error object is about."""
    if not isinstance(error, dict):
        return None
    code, parameter, message = (str(error.get(name) or "") for name in ("code", "param", "message"))
    if parameter.startswith(_RESPONSE_FORMAT) or _RESPONSE_FORMAT in message or "json_schema" in message:
        return _RESPONSE_FORMAT
    return parameter if code in UNSUPPORTED and parameter else None


def _message(error: Any) -> str:
    if not isinstance(error, dict):
        return "it does not say why"
    words = [str(error[name]) for name in ("code", "message") if isinstance(error.get(name), str)]
    return storable(": ".join(words))[:MAX_WHY] or "it does not say why"
