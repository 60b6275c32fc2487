"""Batches in the database: claimed items, money set aside, and writes that only the owner of the job may do."""

from collections.abc import Callable
from typing import Any

import pytest

from core import batch_items, budgets, teacher_batches
from core.db.models import TeacherBatch
from core.db.session import Database, UnitOfWork
from core.domain.annotation import Usage
from core.domain.batches import BatchEnding, FirstReply
from core.domain.spending import Cost
from core.errors import Conflict, LeaseLost
from core.leases import Claim
from tests import scenes

FORM: dict[str, Any] = {"rung": 0, "refused": []}


def claimed_job(database: Database, *, budget_tokens: int | None = 1000) -> Claim:
    dataset_id = scenes.dataset(database, examples=4)
    return scenes.claimed(database, scenes.annotation_job_on(database, dataset_id, budget_tokens=budget_tokens).id)


def free(database: Database, claim: Claim) -> list[int]:
    with database.reading() as session:
        return [item.id for item in batch_items.free_items(session, claim, after=0, limit=100)]


def prepared(database: Database, claim: Claim, items: list[int], most: int = 100) -> TeacherBatch | None:
    with database.transaction() as uow:
        return teacher_batches.prepare(uow, claim, items=items, form=FORM, most=Cost(most))


def sums(database: Database, claim: Claim) -> tuple[int, int]:
    job = scenes.row(database, claim.job_id)
    return job.spent_tokens, job.reserved_tokens


def test_an_item_belongs_to_one_open_batch(database: Database) -> None:
    claim = claimed_job(database)
    items = free(database, claim)
    assert prepared(database, claim, items[:3]) is not None
    assert free(database, claim) == items[3:]
    with pytest.raises(Conflict):
        prepared(database, claim, items[2:])
    assert sums(database, claim) == (0, 100)
    assert free(database, claim) == items[3:]


def test_a_batch_that_does_not_fit_the_budget_is_not_written_down(database: Database) -> None:
    claim = claimed_job(database)
    items = free(database, claim)
    assert prepared(database, claim, items[:2], most=700) is not None
    assert prepared(database, claim, items[2:], most=301) is None
    assert sums(database, claim) == (0, 700)
    assert free(database, claim) == items[2:]


def test_answers_are_paid_out_of_what_was_set_aside(database: Database) -> None:
    claim = claimed_job(database)
    items = free(database, claim)
    batch = prepared(database, claim, items, most=100)
    assert batch is not None
    with database.transaction() as uow:
        teacher_batches.record_submitted(uow, claim, batch.id, remote_id="batch_0", status="validating")
    first = FirstReply("well", "prose", Usage(7, 3))
    with database.transaction() as uow:
        batch_items.store_answers(
            uow,
            claim,
            batch,
            labels={items[0]: scenes.label()},
            unreadable={items[1]: first},
            replies={},
            cost=Cost(30),
        )
    assert sums(database, claim) == (30, 70)
    [again] = [item for item in _free_items(database, claim) if item.first is not None]
    assert (again.id, again.first) == (items[1], first)
    # A teacher that reports more than could have been takes it from nobody else's reservation.
    with database.transaction() as uow:
        budgets.draw(uow, claim, batch.reservation_id, Cost(200))
    assert sums(database, claim) == (230, 0)
    with database.transaction() as uow:
        teacher_batches.end(uow, claim, batch, ending=BatchEnding.FRUITFUL, answered=2)
    assert sums(database, claim) == (230, 0)
    assert free(database, claim) == items[1:]


@pytest.mark.parametrize(("all_known", "spent"), [(True, 40), (False, 100)])
def test_what_is_left_when_a_batch_ends(database: Database, all_known: bool, spent: int) -> None:
    claim = claimed_job(database)
    batch = prepared(database, claim, free(database, claim))
    assert batch is not None
    with database.transaction() as uow:
        budgets.draw(uow, claim, batch.reservation_id, Cost(40))
        teacher_batches.end(uow, claim, batch, ending=BatchEnding.BARREN, all_known=all_known)
    assert sums(database, claim) == (spent, 0)
    with database.reading() as session:
        assert teacher_batches.open_batches(session, claim) == []
        assert [one.id for one in teacher_batches.history(session, claim)] == [batch.id]


Write = Callable[[UnitOfWork, Claim, TeacherBatch], object]
WRITES: dict[str, Write] = {
    "prepare": lambda uow, claim, batch: teacher_batches.prepare(uow, claim, items=[], form=FORM, most=Cost(1)),
    "submitted": lambda uow, claim, batch: teacher_batches.record_submitted(
        uow, claim, batch.id, remote_id="x", status="x"
    ),
    "progress": lambda uow, claim, batch: teacher_batches.record_progress(uow, claim, batch.id, status="x", answered=1),
    "miss": lambda uow, claim, batch: teacher_batches.record_miss(uow, claim, batch.id),
    "failure": lambda uow, claim, batch: teacher_batches.record_failure(uow, claim, batch.id),
    "answers": lambda uow, claim, batch: batch_items.store_answers(
        uow, claim, batch, labels={}, unreadable={}, replies={}, cost=Cost(1)
    ),
    "end": lambda uow, claim, batch: teacher_batches.end(uow, claim, batch, ending=BatchEnding.BARREN),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_stale_claim_cannot_write(sqlite: Database, write: str) -> None:
    claim = claimed_job(sqlite)
    batch = prepared(sqlite, claim, free(sqlite, claim))
    assert batch is not None
    scenes.run_out(sqlite, claim.job_id)
    scenes.claimed(sqlite, claim.job_id)
    with pytest.raises(LeaseLost), sqlite.transaction() as uow:
        WRITES[write](uow, claim, batch)
    assert sums(sqlite, claim) == (0, 100)


def test_a_batch_of_a_job_at_work_is_not_left_behind(database: Database) -> None:
    claim = claimed_job(database)
    batch = prepared(database, claim, free(database, claim))
    assert batch is not None
    with database.transaction() as uow:
        assert teacher_batches.left_by(uow.session, job_id=claim.job_id) == []
        teacher_batches.end_left(uow, batch, cost=Cost(5))
    assert sums(database, claim) == (0, 100)
    with database.reading() as session:
        assert [one.id for one in teacher_batches.open_batches(session, claim)] == [batch.id]


def _free_items(database: Database, claim: Claim) -> list[batch_items.BatchItem]:
    with database.reading() as session:
        return batch_items.free_items(session, claim, after=0, limit=100)
