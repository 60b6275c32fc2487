"""A teacher made of a prior and a chat model: render, ask, parse, ask once more if need be, ground."""

from collections.abc import Sequence
from dataclasses import replace

from annotator.parsing import REPLY_SCHEMA
from annotator.teachers.base import ChatEndpoint, Message, ReplyCache
from annotator.teachers.dialogue import (
    cache_key,
    first_question,
    is_kept,
    read_answer,
    second_question,
    total_usage,
)
from core.domain.annotation import Annotation, Demonstration, Example, Prior, Usage


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

    async def label(
        self, example: Example, cache: ReplyCache | None = None, demonstrations: Sequence[Demonstration] = ()
    ) -> Annotation:
        """The endpoint's relations for one example, grounded; an unreadable reply is asked for once more.

        A readable reply is cached, and a cached one costs nothing: its usage is zero.
        """
        messages = first_question(self._prior, example, demonstrations)
        key = cache_key(messages, self._endpoint.model, self._endpoint.parameters)
        cached = await cache.get(key) if cache else None
        if cached is not None:
            annotation = read_answer(replace(cached, usage=Usage()), example)
        else:
            annotation = await self._ask(messages, example, key, cache)
        return replace(annotation, prompt_hash=key)

    async def _ask(self, messages: list[Message], example: Example, key: str, cache: ReplyCache | None) -> Annotation:
        reply = await self._endpoint.ask(messages, REPLY_SCHEMA)
        annotation = read_answer(reply, example)
        again = second_question(messages, reply, annotation)
        if again is not None:
            second = await self._endpoint.ask(again, REPLY_SCHEMA)
            reply = replace(second, usage=total_usage(reply.usage, second.usage))
            annotation = read_answer(reply, example)
        if cache is not None and is_kept(annotation):
            await cache.put(key, reply)
        return annotation
