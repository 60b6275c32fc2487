"""The engine as its callers see it: open a teacher, label examples with it, one call each, as many at once as you like.

async with open_teacher(config, prior) as teacher:
    annotation = await annotate_one(teacher, example, cache=cache)
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from annotator.teachers.base import Purse, ReplyCache, Teacher
from annotator.teachers.health import EndpointHealth
from annotator.teachers.openai import open_endpoint
from annotator.teachers.pacing import Allowance
from annotator.teachers.prompted import PromptedTeacher
from annotator.teachers.rule import RuleTeacher
from core.domain.annotation import Annotation, Demonstration, Example, Outcome, Prior, TeacherConfig
from core.errors import InvalidInput


@asynccontextmanager
async def open_teacher(
    config: TeacherConfig, prior: Prior, *, health: EndpointHealth | None = None, purse: Purse | None = None
) -> AsyncIterator[Teacher]:
    """A teacher that labels by `prior`, ready for any number of concurrent `annotate_one` calls in this event loop.

    `config.concurrency` bounds the calls in flight; the rest wait inside. Pass the same `health` again to carry what
    was learned about the endpoint (working concurrency, breaker, structured output) from one slice to the next. Calls
    are paid from `purse`, if there is one.

    Raises
    ------
    InvalidInput
        When `config.kind` is unknown, or is "rule" and the prior has no rules.
    """
    if config.kind == "rule":
        yield RuleTeacher(config.name, prior)
    elif config.kind == "openai":
        async with open_endpoint(config, health or new_health(config), purse) as endpoint:
            yield PromptedTeacher(config.name, prior, endpoint)
    else:
        raise InvalidInput(f"teacher {config.name!r} has kind {config.kind!r}: use rule or openai", field="kind")


def new_health(config: TeacherConfig) -> EndpointHealth:
    """What is known of an endpoint before the first call: its configured bounds."""
    return EndpointHealth(
        most=config.concurrency,
        requests=Allowance(config.requests_per_minute) if config.requests_per_minute else None,
        tokens=Allowance(config.tokens_per_minute) if config.tokens_per_minute else None,
    )


async def annotate_one(
    teacher: Teacher,
    example: Example,
    *,
    cache: ReplyCache | None = None,
    demonstrations: Sequence[Demonstration] = (),
) -> Annotation:
    """Label one example. Whatever the teacher says becomes an Annotation with an outcome; nothing is dropped.

    A teacher that reads prompts is shown `demonstrations` after those of its prior.

    The relations of the result lie inside `example.text`, each cause before its effect. Their phrases' spans count
    code points of `example.text`. Only an Outcome.LABELLED annotation has relations.

    Raises
    ------
    TeacherUnreachable
        When the endpoint cannot be reached after all retries: the job should fail or pause, the item is not spent.
    TeacherRejected
        When the endpoint refuses every call (wrong key, unknown model): the job should fail.
    BudgetExhausted
        When the purse does not hold what the call may cost: the item is not spent.
    """
    if (unfit := unfit_to_ask(example)) is not None:
        return unfit
    return believed(await teacher.label(example, cache, demonstrations), example)


def unfit_to_ask(example: Example) -> Annotation | None:
    """What becomes of an example that no teacher need be asked about; None for all others."""
    return None if example.target else Annotation(Outcome.FAILED, detail="the example has an empty target")


def believed(annotation: Annotation, example: Example) -> Annotation:
    """An annotation whose relations are sure to lie inside the text, in their order.

    Raises
    ------
    InvalidSpan
        When they do not: a bug, no teacher's doing.
    """
    for grounded in annotation.relations:
        grounded.relation.check_against(example.text)
    if annotation.outcome is Outcome.LABELLED and not annotation.relations:
        return replace(annotation, outcome=Outcome.EMPTY)
    return annotation
