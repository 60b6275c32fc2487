"""The dialogue with a model about one example, as pure functions: what it is asked, and what is made of its answer.

Who carries it out, one call at a time or a file of thousands, is another matter: `prompted.py` does the first.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from annotator.grounding import ground
from annotator.parsing import REPLY_SCHEMA, parse_reply
from annotator.prompts import prompt_hash, render, render_reask
from annotator.teachers.base import Finish, Message, Reply
from core.domain.annotation import Annotation, Demonstration, Example, Outcome, Prior, QuotedRelation, Usage
from core.errors import ReplyUnreadable

MAX_RAW_REPLY = 20_000  # characters of a reply that are kept
_MAX_REASK = 4_000  # characters of an unreadable reply that are shown to its author again

# Some endpoints report a refusal as an ordinary reply in prose.
_REFUSAL = re.compile(
    r"\s*(?:i['’]?m sorry|sorry,|i apologi[sz]e|i (?:can['’]?t|cannot|can not|won['’]?t|am (?:not able|unable))\b"
    r"|as an ai\b|i['’]m (?:not able|unable))",
    re.IGNORECASE,
)
_OUTCOMES = {
    Finish.LENGTH: (Outcome.TRUNCATED, "the reply was cut off at the length limit"),
    Finish.FILTERED: (Outcome.FILTERED, "the endpoint's content filter cut the reply"),
    Finish.REFUSED: (Outcome.REFUSED, "the teacher declined"),
    Finish.OVERSIZED: (Outcome.UNREADABLE, "the reply is too large to read"),
    Finish.INVALID: (Outcome.FAILED, "the endpoint does not accept this item's request"),
}


def first_question(prior: Prior, example: Example, demonstrations: Sequence[Demonstration] = ()) -> list[Message]:
    """The messages that ask for the relations of one example, with `demonstrations` after those of the prior."""
    return render(prior, example, demonstrations)


def cache_key(messages: Sequence[Message], model: str, parameters: Mapping[str, Any]) -> str:
    """Under what the answer to a first question is remembered, whoever carries the dialogue out."""
    return prompt_hash(messages, model, parameters, REPLY_SCHEMA)


def second_question(messages: Sequence[Message], reply: Reply, annotation: Annotation) -> list[Message] | None:
    """What to ask after this reply to the first question; None when it is the last word.

    Only a whole reply that could not be read deserves it: one that was cut off, filtered or declined would be again.
    """
    if annotation.outcome is not Outcome.UNREADABLE or reply.finish is not Finish.COMPLETE:
        return None
    return asked_again(messages, reply.text, annotation.detail)


def asked_again(messages: Sequence[Message], text: str, problem: str) -> list[Message]:
    """The first question once more, after a reply of this text that could not be read because of `problem`."""
    return render_reask(messages, text[:_MAX_REASK], problem)


def is_kept(annotation: Annotation) -> bool:
    """Whether the reply belongs into the cache: it was readable, so asking again would bring nothing better."""
    return annotation.outcome in (Outcome.LABELLED, Outcome.EMPTY)


def read_answer(reply: Reply, example: Example) -> Annotation:
    """A reply as an annotation: failures by how it ended, then parse, then ground. Never raises for what it says."""
    raw = reply.text[:MAX_RAW_REPLY]
    if reply.finish is not Finish.COMPLETE:
        outcome, detail = _OUTCOMES[reply.finish]
        return Annotation(outcome, raw_reply=raw, usage=reply.usage, detail=detail)
    try:
        quoted = parse_reply(reply.text)
    except ReplyUnreadable as exc:
        if exc.facts.get("reason") == "prose" and _REFUSAL.match(reply.text):
            return Annotation(Outcome.REFUSED, raw_reply=raw, usage=reply.usage, detail="the teacher declined in prose")
        return Annotation(Outcome.UNREADABLE, raw_reply=raw, usage=reply.usage, detail=exc.message)
    return _grounded(quoted, example, raw, reply.usage)


def total_usage(first: Usage, second: Usage) -> Usage:
    """What both questions of a dialogue were charged."""
    return Usage(
        first.prompt_tokens + second.prompt_tokens,
        first.completion_tokens + second.completion_tokens,
    )


def _grounded(quoted: tuple[QuotedRelation, ...], example: Example, raw: str, usage: Usage) -> Annotation:
    relations, unresolved = ground(example.text, len(example.input), quoted)
    if relations:
        return Annotation(Outcome.LABELLED, relations, unresolved, raw, usage)
    detail = "the teacher named no relation" if not quoted else "none of the relations could be found in the text"
    return Annotation(Outcome.EMPTY, (), unresolved, raw, usage, detail=detail)
