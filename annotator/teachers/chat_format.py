"""The OpenAI chat format on the wire: what we ask for, and what a body says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotator.parsing import storable
from annotator.teachers.base import Finish, Message, Reply
from core.domain.annotation import TeacherConfig, Usage

_FINISHES = {"length": Finish.LENGTH, "content_filter": Finish.FILTERED}
_FRAME = 8  # tokens that a chat template may put around a message
RUNGS = 3  # of the structured-output ladder: JSON schema, JSON mode, plain text


UNSUPPORTED = ("unsupported_parameter", "unsupported_value")  # codes of an error that names a parameter


def parameters_of(config: TeacherConfig) -> dict[str, Any]:
    """All that shapes a teacher's replies besides the prompt."""
    return {"temperature": config.temperature, "max_tokens": config.max_tokens}


def request_parameters(parameters: Mapping[str, Any], refused: frozenset[str]) -> dict[str, Any]:
    """The parameters of a request to a model that refuses some: reasoning models take no temperature, and know
    `max_tokens` by another name.
    """
    offered = dict(parameters)
    if "max_tokens" in refused:
        offered["max_completion_tokens"] = parameters["max_tokens"]
    return {name: value for name, value in offered.items() if name not in refused}


def response_format(rung: int, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `response_format` of a request on one rung of the ladder; None on the last, plain text."""
    if rung == 0:
        return {"type": "json_schema", "json_schema": {"name": "relations", "schema": dict(schema), "strict": True}}
    return {"type": "json_object"} if rung == 1 else None


def read_completion(body: bytes) -> Reply:
    """The reply in the body of a 200, its text fit to be stored. A body in any other format is itself that text."""
    try:
        reply = read_document(json.loads(body))
    except (ValueError, RecursionError):
        reply = None
    return Reply(storable(body.decode("utf-8", "replace"))) if reply is None else reply


def read_document(document: Any) -> Reply | None:
    """The reply in a completion, its text fit to be stored; None for a document in any other format."""
    try:
        choice = document["choices"][0]
        message = dict(choice["message"])
    except (ValueError, LookupError, TypeError):
        return None
    usage = _usage(document.get("usage"))
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        return Reply(storable(message["refusal"]), usage, Finish.REFUSED)
    text = message.get("content")
    finish = _FINISHES.get(str(choice.get("finish_reason")), Finish.COMPLETE)
    return Reply(storable(text) if isinstance(text, str) else "", usage, finish)


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """About how many tokens a prompt and its reply will take."""

    prompt: int
    reply: int


def estimate_tokens(messages: Sequence[Message]) -> TokenEstimate:
    """Tokens before anybody has counted them.

    Four characters of ASCII a token, one token for any other character, and a reply half as long as the item.
    """
    sizes = [_tokens(message["content"]) + 4 for message in messages]
    return TokenEstimate(sum(sizes), max(20, sizes[-1] // 2))


def most_tokens(messages: Sequence[Message], schema: Mapping[str, Any], max_tokens: int) -> Usage:
    """The most that a call may be charged. No tokenizer makes more tokens of a text than it has bytes."""
    texts = [json.dumps(schema), *(message["content"] for message in messages)]
    return Usage(sum(len(text.encode()) + _FRAME for text in texts), max_tokens)


def _tokens(text: str) -> int:
    others = 0 if text.isascii() else sum(not character.isascii() for character in text)
    return (len(text) - others) // 4 + others


def _usage(value: Any) -> Usage:
    if not isinstance(value, dict):
        return Usage()
    return Usage(*(_count(value.get(name)) for name in ("prompt_tokens", "completion_tokens")))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0
