"""One line of an upload, checked and made ready to be stored."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from annotator.grounding import ground
from annotator.importer import read_important
from annotator.wire import unresolved_to_json
from api.errors import dotted
from api.schemas.datasets import ExampleIn, LooseExampleIn, RelationIn
from api.spans import check_number, read_relations
from core.datasets import NewExample
from core.domain.annotation import Unresolved
from core.domain.ids import new_id
from core.domain.relations import Relation, relation_to_json
from core.errors import InvalidInput

_KEY_LENGTH = 200
_FIX = 'write one JSON object a line, such as {"input": "...", "target": "..."}'


@dataclass(frozen=True, slots=True)
class ReadLine:
    """An example as it will be stored, and what was found out about its relations."""

    example: NewExample
    relations: int
    unresolved: tuple[Unresolved, ...] = ()
    malformed: int = 0


class LineReader:
    """Reads the lines of one upload, all meant for one split."""

    def __init__(self, split: str, *, most_relations: int, loose: bool) -> None:
        self._split = split
        self._most_relations = most_relations
        self._shape: type[ExampleIn] = LooseExampleIn if loose else ExampleIn

    def read(self, number: int, line: bytes) -> ReadLine:
        """The example of line `number`.

        Raises
        ------
        InvalidInput
            When it cannot be accepted; the facts name the `line` and, where there is one, the `field`.
        """
        try:
            sent = self._shape.model_validate_json(line)
            return self._checked(number, sent)
        except ValidationError as exc:
            raise _explained(number, exc) from exc
        except InvalidInput as exc:
            raise type(exc)(f"line {number}: {exc.message}", **{**exc.facts, "line": number}) from exc

    def _checked(self, number: int, sent: ExampleIn) -> ReadLine:
        key = _key(sent.id)
        _check_texts(sent)
        unresolved: tuple[Unresolved, ...] = ()
        malformed = 0
        if sent.important is None:
            relations = read_relations(sent.relations or (), sent.input + sent.target, most=self._most_relations)
        elif sent.relations is None:
            relations, unresolved, malformed = self._grounded(sent)
        else:
            raise InvalidInput("send relations or important, not both", field="important")
        if sent.gold:
            _check_gold(sent, unresolved)
        asked = [_plain(relation) for relation in sent.relations or ()]
        content = [self._split, sent.input, sent.target, sent.choices, asked, sent.important]
        if sent.gold:  # said only then, so that digests are what they were before there was gold
            content.append("gold")
        example = NewExample(
            line=number,
            key=key,
            digest=hashlib.sha256(_json(content).encode()).hexdigest(),
            input=sent.input,
            target=sent.target,
            choices=_json(sent.choices),
            relations=_json([relation_to_json(relation) for relation in relations]),
            unresolved=_json([unresolved_to_json(edge) for edge in unresolved]),
            gold=sent.gold,
        )
        return ReadLine(example, len(relations), unresolved, malformed)

    def _grounded(self, sent: ExampleIn) -> tuple[list[Relation], tuple[Unresolved, ...], int]:
        quoted, malformed = read_important(sent.important)
        check_number(sum(len(relation.causes) for relation in quoted), "important", most=self._most_relations)
        found, unresolved = ground(sent.input + sent.target, len(sent.input), quoted)
        return [one.relation for one in found], unresolved, malformed


def _key(sent: str | int | None) -> str:
    if sent is None:
        return new_id("ex")
    key = str(sent)
    if not 1 <= len(key) <= _KEY_LENGTH:
        raise InvalidInput(f"id must have 1 to {_KEY_LENGTH} characters", field="id")
    return key


def _check_texts(sent: ExampleIn) -> None:
    for field, text in (("input", sent.input), ("target", sent.target)):
        if text.isspace():
            raise InvalidInput(f"{field} must not be blank", field=field)
    if sent.choices and (sent.target not in sent.choices or len(set(sent.choices)) != len(sent.choices)):
        raise InvalidInput("choices must be different from each other and contain the target", field="choices")
    if _has_nul([sent.id, sent.important]):
        raise InvalidInput("the character NUL cannot be stored", field="important" if sent.important else "id")


def _check_gold(sent: ExampleIn, unresolved: Sequence[Unresolved]) -> None:
    if sent.relations is None and sent.important is None:
        raise InvalidInput("gold needs relations; an empty list says that there are none", field="relations")
    if unresolved:
        raise InvalidInput(
            f"gold must be found whole, and {len(unresolved)} of its edges are not: {unresolved[0].reason}",
            field="important",
            unresolved=[unresolved_to_json(edge) for edge in unresolved],
        )


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(part) for key, part in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def _explained(number: int, error: ValidationError) -> InvalidInput:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = dotted(first["loc"])
    if first["type"] == "json_invalid":
        place = first["msg"].removeprefix("Invalid JSON: ").replace(" at line 1 column ", " at character ")
        return InvalidInput(f"line {number} is not valid JSON: {place}; {_FIX}", line=number)
    if not field:
        return InvalidInput(f"line {number} is not a JSON object: {_FIX}", line=number)
    if first["type"] == "extra_forbidden":
        message = f"unknown field {field!r}; leave it out, or post with ?extra=ignore"
    elif first["type"] == "missing":
        message = f"the field {field!r} is missing"
    elif first["type"] == "string_too_short":
        message = f"{field} must not be empty"
    elif first["type"] == "string_type":
        message = f"{field} must be text: put it in quotes"
    else:
        message = f"{field}: {first['msg']}"
    return InvalidInput(f"line {number}: {message}", field=field, line=number)


def _plain(relation: RelationIn) -> list[Any]:
    return [
        [relation.effect.start, relation.effect.end],
        [[cause.start, cause.end] for cause in relation.causes],
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
