"""A teacher made of a prior and a chat model: render, ask, parse, ask once more if need be, ground."""

import re
from dataclasses import replace

from annotator.grounding import ground
from annotator.parsing import REPLY_SCHEMA, parse_reply
from annotator.prompts import prompt_hash, render, render_reask
from annotator.teachers.base import ChatEndpoint, Finish, Message, Reply, ReplyCache
from core.domain.annotation import Annotation, Example, Outcome, Prior, QuotedRelation, Usage
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


class PromptedTeacher:
    """Asks a chat endpoint about each example, and believes only what it can find in the text."""

    def __init__(self, name: str, prior: Prior, endpoint: ChatEndpoint) -> None:
        self._name = name
        self._prior = prior
        self._endpoint = endpoint

    @property
    def name(self) -> str:
        """As named in settings."""
        return self._name

    async def label(self, example: Example, cache: ReplyCache | None = None) -> Annotation:
        """The endpoint's relations for one example, grounded; an unreadable reply is asked for once more.

        A readable reply is cached, and a cached one costs nothing: its usage is zero.
        """
        messages = render(self._prior, example)
        key = prompt_hash(messages, self._endpoint.model, self._endpoint.parameters, REPLY_SCHEMA)
        cached = await cache.get(key) if cache else None
        if cached is not None:
            annotation = _read(replace(cached, usage=Usage()), example)
        else:
            annotation = await self._ask(messages, example, key, cache)
        return replace(annotation, prompt_hash=key)

    async def _ask(self, messages: list[Message], example: Example, key: str, cache: ReplyCache | None) -> Annotation:
        reply = await self._endpoint.ask(messages, REPLY_SCHEMA)
        annotation = _read(reply, example)
        if annotation.outcome is Outcome.UNREADABLE and reply.finish is Finish.COMPLETE:
            again = render_reask(messages, reply.text[:_MAX_REASK], annotation.detail)
            second = await self._endpoint.ask(again, REPLY_SCHEMA)
            reply = replace(second, usage=_total(reply.usage, second.usage))
            annotation = _read(reply, example)
        if cache is not None and annotation.outcome in (Outcome.LABELLED, Outcome.EMPTY):
            await cache.put(key, reply)
        return annotation


def _read(reply: Reply, example: Example) -> Annotation:
    """A reply as an annotation: failures by how it ended, then parse, then ground."""
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


def _grounded(quoted: tuple[QuotedRelation, ...], example: Example, raw: str, usage: Usage) -> Annotation:
    relations, unresolved = ground(example.text, len(example.input), quoted)
    if relations:
        return Annotation(Outcome.LABELLED, relations, unresolved, raw, usage)
    detail = "the teacher named no relation" if not quoted else "none of the relations could be found in the text"
    return Annotation(Outcome.EMPTY, (), unresolved, raw, usage, detail=detail)


def _total(first: Usage, second: Usage) -> Usage:
    return Usage(
        first.prompt_tokens + second.prompt_tokens,
        first.completion_tokens + second.completion_tokens,
    )
