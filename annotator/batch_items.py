"""An item of a batch: the question that stands in its line, and what the answer makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from annotator.annotate import believed
from annotator.parsing import REPLY_SCHEMA
from annotator.teachers.base import Message, Reply
from annotator.teachers.chat_format import most_tokens, parameters_of
from annotator.teachers.dialogue import (
    asked_again,
    cache_key,
    first_question,
    read_answer,
    second_question,
    total_usage,
)
from core.domain.annotation import Annotation, Demonstration, Example, Outcome, Prior, TeacherConfig, Usage
from core.domain.batches import FirstReply


@dataclass(frozen=True, slots=True)
class Question:
    """What a teacher is asked about an example. `first` is its reply to the first question, when this is the second."""

    example: Example
    messages: list[Message]
    key: str  # of the reply cache
    first: FirstReply | None = None

    def most(self, config: TeacherConfig) -> Usage:
        """The most that asking it may be charged."""
        return most_tokens(self.messages, REPLY_SCHEMA, config.max_tokens)


def question_about(
    example: Example,
    *,
    prior: Prior,
    config: TeacherConfig,
    first: FirstReply | None = None,
    demonstrations: Sequence[Demonstration] = (),
) -> Question:
    """The first question, or the second after a first reply that could not be read."""
    messages = first_question(prior, example, demonstrations)
    key = cache_key(messages, config.model, parameters_of(config))
    if first is not None:
        messages = asked_again(messages, first.text, first.problem)
    return Question(example, messages, key, first)


def read(question: Question, reply: Reply) -> Annotation | FirstReply:
    """What a reply makes of the item; or the reply itself, when it deserves a second question."""
    annotation = believed(read_answer(reply, question.example), question.example)
    if question.first is not None:
        usage = total_usage(question.first.usage, reply.usage)
        return replace(annotation, usage=usage, prompt_hash=question.key)
    if second_question(question.messages, reply, annotation) is not None:
        return FirstReply(annotation.raw_reply, annotation.detail, reply.usage)
    return replace(annotation, prompt_hash=question.key)


def read_cached(question: Question, reply: Reply) -> Annotation:
    """What a remembered reply makes of the item: it costs nothing."""
    annotation = believed(read_answer(replace(reply, usage=Usage()), question.example), question.example)
    return replace(annotation, prompt_hash=question.key)


def given_up(question: Question, why: str) -> Annotation:
    """The item of a question that the endpoint will not take."""
    usage = Usage() if question.first is None else question.first.usage
    detail = f"the endpoint does not accept this item's request: {why}"
    return Annotation(Outcome.FAILED, raw_reply=why, usage=usage, prompt_hash=question.key, detail=detail)
