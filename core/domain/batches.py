"""Batches of questions to a teacher: where one stands, how it ended, and what a job's history of them asks for next."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from core.domain.annotation import Usage


class BatchState(StrEnum):
    """Where a batch stands on our side."""

    PREPARING = "preparing"  # written down; whether the endpoint has it, nobody has seen yet
    SUBMITTED = "submitted"  # the endpoint has it, under its remote id
    ENDED = "ended"  # its items are labelled or free again, its money is settled


class BatchEnding(StrEnum):
    """What a batch that ended was good for."""

    FRUITFUL = "fruitful"  # it settled items, or taught how to ask
    BARREN = "barren"  # nothing came back
    CROWDED = "crowded"  # the endpoint would not take so much at a time


@dataclass(frozen=True, slots=True)
class EndedBatch:
    """One line of a job's history."""

    lines: int
    ending: BatchEnding
    created_at: datetime
    ended_at: datetime


def fruitless_rounds(newest_first: Iterable[EndedBatch], ending: BatchEnding) -> int:
    """How many times in a row a job's batches ended like this. Batches that ran side by side count as one time."""
    rounds = 0
    began: datetime | None = None  # the round counted last
    for batch in newest_first:
        if batch.ending is not ending:
            break
        if began is None or batch.ended_at <= began:
            rounds += 1
            began = batch.created_at
        else:
            began = min(began, batch.created_at)
    return rounds


def room(newest_first: Iterable[EndedBatch]) -> int | None:
    """How many lines the next batch may have; None for as many as the settings allow.

    After the endpoint found one too large, half of it; and from a size that passed, twice that.
    """
    last: EndedBatch | None = None
    for batch in newest_first:
        if last is None and batch.ending is not BatchEnding.BARREN:
            last = batch
        if batch.ending is BatchEnding.CROWDED and last is not None:
            return max(1, last.lines // 2) if last.ending is BatchEnding.CROWDED else 2 * last.lines
    return None


@dataclass(frozen=True, slots=True)
class FirstReply:
    """A reply that could not be read: its author is asked once more, in another batch."""

    text: str
    problem: str  # what was wrong with it
    usage: Usage
