"""The rule teacher: labelling functions from the prior, no model, no prompt."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence

import regex

from annotator.teachers.base import ReplyCache
from core.domain.annotation import Annotation, Demonstration, Example, GroundedRelation, Outcome, Phrase, Prior, Rule
from core.domain.spans import Grounding, Span
from core.errors import InvalidInput

TIME_LIMIT = 0.5  # seconds of CPU for all patterns on one example: one that explodes costs its item, not the job
MAX_MATCHES = 1000  # of one pattern in one text


class RuleTeacher:
    """Finds causes and effects by the regular expressions of a prior.

    For every rule: each match of `effect` (without one: the whole target) is an effect; its causes are all matches of
    the cause patterns that end at or before it. The span of a match is its first group, where the pattern has one.
    """

    def __init__(self, name: str, prior: Prior) -> None:
        if not prior.rules:
            raise InvalidInput(f"prior {prior.name!r} has no rules, so the rule teacher cannot use it", field="rules")
        self._name = name
        self._rules = prior.rules

    @property
    def name(self) -> str:
        """As named in settings."""
        return self._name

    async def label(
        self,
        example: Example,
        cache: ReplyCache | None = None,  # noqa: ARG002 (protocol)
        demonstrations: Sequence[Demonstration] = (),  # noqa: ARG002 (protocol)
    ) -> Annotation:
        """What the rules say. FAILED when they take longer than TIME_LIMIT, EMPTY when none matches."""
        await asyncio.sleep(0)  # as any teacher, give other tasks (heartbeats) their turn
        clock = _Clock()
        try:
            relations = tuple(relation for rule in self._rules for relation in _apply(rule, example, clock))
        except TimeoutError:
            return Annotation(
                Outcome.FAILED, detail=f"the prior's patterns took longer than {TIME_LIMIT} s on this text"
            )
        if not relations:
            return Annotation(Outcome.EMPTY, detail="no rule matches with a cause before its effect")
        return Annotation(Outcome.LABELLED, relations)


def silent_patterns(prior: Prior, examples: Iterable[Example]) -> tuple[str, ...]:
    """The patterns of a prior that match in none of the examples, by their place: "rules[0].causes[2]"."""
    silent = {f"rules[{i}].causes[{j}]": p for i, rule in enumerate(prior.rules) for j, p in enumerate(rule.causes)}
    silent |= {f"rules[{i}].effect": rule.effect for i, rule in enumerate(prior.rules) if rule.effect is not None}
    for example in examples:
        if not silent:
            break
        clock = _Clock()
        silent = {where: pattern for where, pattern in silent.items() if not _matches_soon(pattern, example, clock)}
    return tuple(silent)


def _matches_soon(pattern: str, example: Example, clock: "_Clock") -> bool:
    try:
        return bool(_matches(pattern, example.text, clock))
    except TimeoutError:
        return False


class _Clock:
    """What is left of the time for one example. CPU time, as `regex` counts too: a busy machine fails no item."""

    def __init__(self) -> None:
        self._end = time.thread_time() + TIME_LIMIT

    @property
    def left(self) -> float:
        left = self._end - time.thread_time()
        if left <= 0:
            raise TimeoutError
        return left


def _apply(rule: Rule, example: Example, clock: _Clock) -> Iterator[GroundedRelation]:
    text = example.text
    effects: Sequence[Span] = (Span(len(example.input), len(text)),)
    if rule.effect is not None:
        effects = _matches(rule.effect, text, clock)
    causes = sorted({span for pattern in rule.causes for span in _matches(pattern, text, clock)})
    for effect in effects:
        before = [cause for cause in causes if cause.precedes(effect)]
        if before:
            yield GroundedRelation(_phrase(effect, text), tuple(_phrase(cause, text) for cause in before))


def _matches(pattern: str, text: str, clock: _Clock) -> list[Span]:
    compiled = regex.compile(pattern)
    group = 1 if compiled.groups else 0
    spans = []
    for match in compiled.finditer(text, timeout=clock.left):
        start, end = match.span(group)
        if start < end:
            spans.append(Span(start, end))
        if len(spans) == MAX_MATCHES:
            break
    return spans


def _phrase(span: Span, text: str) -> Phrase:
    return Phrase(span, span.of(text), Grounding.EXACT)
