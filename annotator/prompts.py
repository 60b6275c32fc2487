"""The prompt: system text (a versioned file) + prior (instructions, demonstrations as turns) + the item's segments."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from annotator.grounding import ground
from annotator.parsing import render_reply
from annotator.segments import segment_at, segments_of
from annotator.teachers.base import Message
from core.domain.annotation import Demonstration, Example, Prior, Quote, QuotedRelation
from core.domain.relations import Relation
from core.domain.spans import Span

PROMPT_VERSION = "v1"


def render(prior: Prior, example: Example, demonstrations: Sequence[Demonstration] = ()) -> list[Message]:
    """The chat messages that ask a teacher to label `example` by `prior`; `demonstrations` come after its own."""
    item: Message = {"role": "user", "content": render_item(example.input, example.target)}
    return [*_opening(prior), *(turn for shown in demonstrations for turn in _turns(shown)), item]


def render_item(input_: str, target: str) -> str:
    """The numbered segments of one item, its target set apart."""
    text = input_ + target
    lines = ["INPUT"]
    for number, segment in enumerate(segments_of(text, len(input_)), start=1):
        if segment.start == len(input_):
            lines += ["", "TARGET"]
        lines.append(f"[{number}] {segment.of(text).strip()}")
    return "\n".join(lines)


def render_reask(messages: Sequence[Message], reply: str, problem: str) -> list[Message]:
    """The same question once more, after an unreadable reply, with what was wrong with it."""
    return [
        *messages,
        {"role": "assistant", "content": reply},
        {"role": "user", "content": f"That could not be read: {problem}. Reply again, with the JSON object alone."},
    ]


def prompt_hash(
    messages: Sequence[Message], model: str, parameters: Mapping[str, Any], schema: Mapping[str, Any]
) -> str:
    """SHA-256 over all that shapes a reply, as 64 hexadecimal digits: the key of the reply cache."""
    key = [list(messages), model, dict(parameters), dict(schema)]
    document = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(document.encode("ascii")).hexdigest()


@lru_cache(maxsize=64)
def _opening(prior: Prior) -> tuple[Message, ...]:
    """All messages before the item: equal for every item of a job, so endpoints can cache them too."""
    messages: list[Message] = [{"role": "system", "content": _system() + prior.instructions.strip()}]
    for demonstration in prior.demonstrations:
        messages += _turns(demonstration)
    return tuple(messages)


def _turns(demonstration: Demonstration) -> tuple[Message, Message]:
    """A demonstration as a question and the reply we would like to it."""
    return (
        {"role": "user", "content": render_item(demonstration.input, demonstration.target)},
        {"role": "assistant", "content": _answer(demonstration)},
    )


@cache
def _system() -> str:
    return resources.files("annotator").joinpath(f"prompt_{PROMPT_VERSION}.md").read_text(encoding="utf-8")


def _answer(demonstration: Demonstration) -> str:
    """The reply we would like to this demonstration: its relations as the text has them, with their segments."""
    text = demonstration.input + demonstration.target
    relations, _ = ground(text, len(demonstration.input), demonstration.relations)
    segments = segments_of(text, len(demonstration.input))
    return render_reply(quoted(grounded.relation, text, segments) for grounded in relations)


def quoted(relation: Relation, text: str, segments: Sequence[Span]) -> QuotedRelation:
    """A relation in the words of its text, each phrase with the number of its segment."""

    def quote(span: Span) -> Quote:
        return Quote(span.of(text), segment_at(segments, span.start))

    return QuotedRelation(quote(relation.effect), tuple(quote(cause) for cause in relation.causes))
