import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.quality import confidence
from annotator.teachers.base import Reply, ReplyCache
from annotator.votes import TEMPERATURE, annotate_by_votes, count_votes, for_votes
from core.domain.annotation import (
    Annotation,
    Demonstration,
    Example,
    GroundedRelation,
    Outcome,
    Phrase,
    TeacherConfig,
    Usage,
)
from core.domain.spans import Grounding, Span
from core.errors import TeacherUnreachable

EXAMPLE = Example("sun and rain, warm? ", "yes")
YES = Phrase(Span(20, 23), "yes", Grounding.EXACT)


def vote(*causes: tuple[int, int], outcome: Outcome = Outcome.LABELLED) -> Annotation:
    if not causes:
        outcome = Outcome.EMPTY if outcome is Outcome.LABELLED else outcome
        return Annotation(outcome, usage=Usage(10, 2))
    phrases = tuple(Phrase(Span(*at), "x", Grounding.EXACT) for at in causes)
    return Annotation(outcome, (GroundedRelation(YES, phrases),), usage=Usage(10, 2))


SUN, BOTH, RAIN = vote((0, 3)), vote((0, 3), (8, 12)), vote((8, 12))
UNREADABLE = vote(outcome=Outcome.UNREADABLE)


@dataclass
class Memory:
    replies: dict[str, Reply] = field(default_factory=dict)

    async def get(self, prompt_hash: str) -> Reply | None:
        return self.replies.get(prompt_hash)

    async def put(self, prompt_hash: str, reply: Reply) -> None:
        self.replies[prompt_hash] = reply


@dataclass
class Fickle:
    """Says something else each time it is asked, and remembers what it said."""

    answers: list[Annotation]
    asked: int = 0
    name: str = "fickle"

    async def label(
        self, example: Example, cache: ReplyCache | None = None, demonstrations: Sequence[Demonstration] = ()
    ) -> Annotation:
        assert cache is not None
        known = await cache.get("prompt")
        if known is None:
            if self.asked == len(self.answers):
                raise TeacherUnreachable("gone")
            known = Reply(str(self.asked))
            self.asked += 1
            await cache.put("prompt", known)
        return self.answers[int(known.text)]


def test_each_vote_is_a_call_of_its_own_and_paid_once() -> None:
    teacher, cache = Fickle([SUN, BOTH, RAIN]), Memory()
    first, second = (asyncio.run(annotate_by_votes(teacher, EXAMPLE, votes=3, cache=cache)) for _ in range(2))
    assert teacher.asked == 3
    assert first == second
    assert first.annotation.relations == BOTH.relations  # nearest to the two others
    assert first.annotation.usage == Usage(30, 6)
    assert "prompt" in cache.replies  # the first vote is what a job without votes would have asked
    assert len(cache.replies) == 3


def test_votes_cast_before_the_teacher_is_gone_are_kept() -> None:
    teacher, cache = Fickle([SUN, BOTH]), Memory()
    with pytest.raises(TeacherUnreachable):
        asyncio.run(annotate_by_votes(teacher, EXAMPLE, votes=3, cache=cache))
    teacher.answers.append(RAIN)
    asyncio.run(annotate_by_votes(teacher, EXAMPLE, votes=3, cache=cache))
    assert teacher.asked == 3


def test_what_cannot_be_read_agrees_with_nothing() -> None:
    assert count_votes([UNREADABLE, SUN, SUN]).annotation.relations == SUN.relations
    assert count_votes([UNREADABLE, SUN, SUN]).confidence == pytest.approx(1 / 3)
    assert count_votes([UNREADABLE, UNREADABLE]).confidence == 0.0
    assert count_votes([UNREADABLE, UNREADABLE]).annotation.outcome is Outcome.UNREADABLE
    assert count_votes([vote(), vote()]).confidence == 1.0


def test_a_single_vote_is_its_own_verdict() -> None:
    assert count_votes([SUN]).annotation == SUN
    assert count_votes([SUN]).confidence == 1.0


@given(st.lists(st.sampled_from([SUN, BOTH, RAIN, vote()]), min_size=2, max_size=6))
def test_confidence_is_the_mean_over_pairs_whatever_their_order(cast: list[Annotation]) -> None:
    verdict = count_votes(cast)
    relations = [[grounded.relation for grounded in one.relations] for one in cast]
    assert verdict.confidence == pytest.approx(confidence(relations))
    assert verdict.confidence == pytest.approx(count_votes(cast[::-1]).confidence)


def test_votes_are_sampled() -> None:
    assert for_votes(TeacherConfig("t", "openai")).temperature == TEMPERATURE
    assert for_votes(TeacherConfig("t", "openai", temperature=0.3)).temperature == 0.3
