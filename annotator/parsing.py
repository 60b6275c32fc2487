"""Reading a teacher's reply. It is untrusted text: every size is capped, nothing in it is believed."""

import json
import re
from collections.abc import Iterable
from typing import Any

from core.domain.annotation import Quote, QuotedRelation
from core.errors import ReplyUnreadable

MAX_REPLY = 200_000  # characters
MAX_RELATIONS = 200
MAX_CAUSES = 100  # of one relation
MAX_EDGES = 1_000  # of all relations together
MAX_QUOTE = 2_000  # characters
_MAX_SEGMENT = 1_000_000

REPLY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "relations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "effect": {"$ref": "#/$defs/phrase"},
                    "causes": {"type": "array", "items": {"$ref": "#/$defs/phrase"}},
                },
                "required": ["effect", "causes"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["relations"],
    "additionalProperties": False,
    "$defs": {
        "phrase": {
            "type": "object",
            "properties": {"quote": {"type": "string"}, "segment": {"type": "integer"}},
            "required": ["quote", "segment"],
            "additionalProperties": False,
        }
    },
}

_FENCED = re.compile(r"```[a-zA-Z]*\s*\n(.*?)\n?\s*```", re.DOTALL)


def parse_reply(text: str) -> tuple[QuotedRelation, ...]:
    """The relations of a reply of the form REPLY_SCHEMA; also inside a Markdown fence. A segment may be missing.

    Raises
    ------
    ReplyUnreadable
        When the reply is anything else, or over a cap. `message` tells a model what to mend, without quoting it.
    """
    if len(text) > MAX_REPLY:
        raise _unreadable("too_long", f"the reply has {len(text)} characters, more than {MAX_REPLY}")
    document = _load(text)
    if not isinstance(document, dict) or not isinstance(document.get("relations"), list):
        raise _unreadable("wrong_shape", 'the reply must be a JSON object with a list "relations"')
    values = document["relations"]
    if len(values) > MAX_RELATIONS:
        raise _unreadable("too_many", f"the reply has {len(values)} relations, more than {MAX_RELATIONS}")
    relations = tuple(_relation(value, f"relations[{i}]") for i, value in enumerate(values))
    edges = sum(len(relation.causes) for relation in relations)
    if edges > MAX_EDGES:
        raise _unreadable("too_many", f"the reply has {edges} causes, more than {MAX_EDGES}")
    return relations


def storable(text: str) -> str:
    """The text without what JSON can spell but UTF-8 cannot (a lone surrogate) or databases refuse (NUL)."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def render_reply(relations: Iterable[QuotedRelation]) -> str:
    """The reply that says these relations: inverse of parse_reply, and what demonstrations show."""
    document = {
        "relations": [
            {"effect": _quote_to_json(relation.effect), "causes": [_quote_to_json(cause) for cause in relation.causes]}
            for relation in relations
        ]
    }
    return json.dumps(document, ensure_ascii=False)


def _load(text: str) -> Any:
    body = text.strip()
    fenced = None if body.startswith("{") else _FENCED.search(body)
    if fenced:
        body = fenced[1].strip()
    if not body.startswith("{"):
        raise _unreadable("prose", "the reply must be one JSON object and nothing else")
    try:
        return json.loads(body)
    except ValueError as exc:
        raise _unreadable("broken_json", "the reply is not valid JSON, or stops before its end") from exc
    except RecursionError as exc:
        raise _unreadable("broken_json", "the reply is nested too deeply") from exc


def _relation(value: Any, where: str) -> QuotedRelation:
    if not isinstance(value, dict) or "effect" not in value or not isinstance(value.get("causes"), list):
        raise _unreadable("wrong_shape", f'{where} must be {{"effect": phrase, "causes": [phrase, ...]}}')
    causes = value["causes"]
    if len(causes) > MAX_CAUSES:
        raise _unreadable("too_many", f"{where} has {len(causes)} causes, more than {MAX_CAUSES}")
    return QuotedRelation(
        _quote(value["effect"], f"{where}.effect"),
        tuple(_quote(cause, f"{where}.causes[{i}]") for i, cause in enumerate(causes)),
    )


def _quote(value: Any, where: str) -> Quote:
    if isinstance(value, str):
        value = {"quote": value}
    if not isinstance(value, dict) or not isinstance(value.get("quote"), str):
        raise _unreadable("wrong_shape", f'{where} must be {{"quote": text, "segment": number}}')
    quote, segment = value["quote"], value.get("segment")
    if len(quote) > MAX_QUOTE:
        raise _unreadable("too_long", f"{where} has {len(quote)} characters, more than {MAX_QUOTE}")
    # A segment that makes no sense is no reason to lose the quote: it only narrows where to look.
    usable = type(segment) is int and 0 < segment <= _MAX_SEGMENT
    return Quote(storable(quote), segment if usable else None)


def _quote_to_json(quote: Quote) -> dict[str, Any]:
    return {"quote": quote.quote} if quote.segment is None else {"quote": quote.quote, "segment": quote.segment}


def _unreadable(reason: str, message: str) -> ReplyUnreadable:
    return ReplyUnreadable(message, reason=reason)
