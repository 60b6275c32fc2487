"""Self-consistency: ask a teacher about the same example several times, and see how far it agrees with itself.

Source: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models", arXiv 2203.11171. Labels
are sets of edges rather than one answer, so the vote nearest to all others takes the place of the majority.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from annotator.annotate import annotate_one
from annotator.quality import score_characters
from annotator.teachers.base import Reply, ReplyCache, Teacher
from core.domain.annotation import Annotation, Demonstration, Example, Outcome, TeacherConfig, Usage

TEMPERATURE = 0.7  # of votes, where a teacher's own is 0: equal votes would tell nothing
_SAID = (Outcome.LABELLED, Outcome.EMPTY)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The vote that agrees best with the others, with the usage of all; and how far they agree, from 0 to 1."""

    annotation: Annotation
    confidence: float


def for_votes(config: TeacherConfig) -> TeacherConfig:
    """The same teacher, sure not to give the same answer every time."""
    return replace(config, temperature=config.temperature or TEMPERATURE)


async def annotate_by_votes(
    teacher: Teacher,
    example: Example,
    *,
    votes: int,
    cache: ReplyCache | None = None,
    demonstrations: Sequence[Demonstration] = (),
) -> Verdict:
    """Label one example `votes` times, one after the other. Raises as annotate_one; votes cast so far are cached."""
    cast = [
        await annotate_one(teacher, example, cache=ballot, demonstrations=demonstrations)
        for ballot in (None if cache is None else _Ballot(cache, number) for number in range(votes))
    ]
    return count_votes(cast)


def count_votes(cast: Sequence[Annotation]) -> Verdict:
    """The verdict of at least one vote.

    Confidence is the mean F1 by characters over all pairs. A vote that cannot be read, was refused or failed agrees
    with none, and is the verdict only where no other was cast.
    """
    others = [[vote for at, vote in enumerate(cast) if at != own] for own in range(len(cast))]
    totals = [sum(_agreement(one, other) for other in rest) for one, rest in zip(cast, others, strict=True)]
    best = max(range(len(cast)), key=lambda at: (cast[at].outcome in _SAID, totals[at], -at))
    pairs = len(cast) * (len(cast) - 1)
    usage = Usage(sum(vote.usage.prompt_tokens for vote in cast), sum(vote.usage.completion_tokens for vote in cast))
    return Verdict(replace(cast[best], usage=usage), sum(totals) / pairs if pairs else 1.0)


def _agreement(one: Annotation, other: Annotation) -> float:
    if one.outcome not in _SAID or other.outcome not in _SAID:
        return 0.0
    ours, theirs = ([grounded.relation for grounded in vote.relations] for vote in (one, other))
    return score_characters(ours, theirs).f1


class _Ballot:
    """A ReplyCache in which each vote has replies of its own; those of the first are those of a job without votes."""

    def __init__(self, cache: ReplyCache, number: int) -> None:
        self._cache = cache
        self._number = number

    async def get(self, prompt_hash: str) -> Reply | None:
        """The reply to this vote, if it was cast before."""
        return await self._cache.get(self._key(prompt_hash))

    async def put(self, prompt_hash: str, reply: Reply) -> None:
        """Store the reply to this vote."""
        await self._cache.put(self._key(prompt_hash), reply)

    def _key(self, prompt_hash: str) -> str:
        if self._number == 0:
            return prompt_hash
        return hashlib.sha256(f"{prompt_hash} vote {self._number}".encode()).hexdigest()
