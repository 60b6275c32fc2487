"""What a job may spend: set aside, settled, written off, never passed."""

import random

import pytest

from core import annotations, budgets, leases
from core.db.models import Job
from core.db.session import Database
from core.domain.lifecycle import JobState
from core.domain.spending import Cost
from core.errors import Conflict, LeaseLost, NotFound
from core.job_store import cancel_job
from core.jobs import JobKind
from core.leases import Claim
from tests import scenes

CALL = Cost(10, 1000)


def _job(database: Database, *, tokens: int | None = 100, usd: float | None = None) -> Job:
    dataset, prior = scenes.dataset(database), scenes.prior(database)
    with database.transaction() as uow:
        return annotations.submit(
            uow,
            tenant_id=scenes.TENANT,
            dataset_id=dataset,
            prior_id=prior,
            teacher="rule",
            splits=["train"],
            budget_tokens=tokens,
            budget_usd=usd,
        )


def _reserved(database: Database, claim: Claim, *costs: Cost) -> list[int | None]:
    with database.transaction() as uow:
        return budgets.reserve(uow, claim, costs)


def _account(database: Database, job: Job) -> tuple[int, int]:
    now = scenes.row(database, job.id)
    return now.spent_tokens, now.reserved_tokens


@pytest.mark.parametrize("bounds", [{"tokens": 100}, {"tokens": None, "usd": 10_000e-9}])
def test_the_call_that_would_pass_the_cap_is_refused(database: Database, bounds: dict) -> None:
    job = _job(database, **bounds)
    claim = scenes.claimed(database, job.id)
    numbers = _reserved(database, claim, *[CALL] * 11)
    assert [number is None for number in numbers] == [False] * 10 + [True]
    assert len(set(numbers)) == 11
    assert _reserved(database, claim, CALL) == [None]
    assert _account(database, job) == (0, 100)


def test_what_a_call_did_not_use_can_be_spent_again(database: Database) -> None:
    job = _job(database)
    claim = scenes.claimed(database, job.id)
    numbers = _reserved(database, claim, *[CALL] * 10)
    assert numbers[0] is not None
    with database.transaction() as uow:
        budgets.settle(uow, claim, {numbers[0]: Cost(3, 300)})
    assert _account(database, job) == (3, 90)
    assert _reserved(database, claim, Cost(7, 0)) != [None]
    assert _reserved(database, claim, Cost(1, 0)) == [None]
    with database.transaction() as uow:  # settled twice, it counts once
        budgets.settle(uow, claim, {numbers[0]: Cost(3, 300)})
    assert _account(database, job) == (3, 97)


def test_a_dear_call_is_not_overtaken(database: Database) -> None:
    claim = scenes.claimed(database, _job(database).id)
    assert _reserved(database, claim, Cost(101, 0), Cost(1, 0)) == [None, None]


def test_what_a_lost_worker_set_aside_is_spent(database: Database) -> None:
    job = _job(database)
    lost = scenes.claimed(database, job.id)
    _reserved(database, lost, *[CALL] * 4)
    scenes.run_out(database, job.id)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        budgets.write_off(uow, claim)
    assert _account(database, job) == (40, 0)
    with pytest.raises(LeaseLost):
        _reserved(database, lost, CALL)
    assert _account(database, job) == (40, 0)


def test_a_paused_job_waits_until_its_budget_is_raised(database: Database) -> None:
    job = _job(database, tokens=5)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        assert budgets.pause(uow, claim, CALL).state == JobState.PAUSED_BUDGET
    with database.reading() as session:
        assert leases.runnable(session, kind=JobKind.ANNOTATION, limit=10) == []
    with database.transaction() as uow:
        assert leases.claim(uow, job_id=job.id, lease=60, max_attempts=3) is None
    before = scenes.promised(database)
    with database.transaction() as uow:
        raised = budgets.change_budget(uow, tenant_id=scenes.TENANT, job_id=job.id, tokens=50)
    assert (raised.state, raised.budget_tokens) == (JobState.QUEUED, 50)
    assert scenes.promised(database) == [*before, job.id]
    assert _reserved(database, scenes.claimed(database, job.id), CALL) != [None]


def test_a_job_whose_budget_was_raised_meanwhile_is_not_paused(database: Database) -> None:
    job = _job(database, tokens=5)
    claim = scenes.claimed(database, job.id)
    assert _reserved(database, claim, CALL) == [None]
    with database.transaction() as uow:
        budgets.change_budget(uow, tenant_id=scenes.TENANT, job_id=job.id, tokens=50)
    with database.transaction() as uow:
        budgets.pause(uow, claim, CALL)
    now = scenes.row(database, job.id)
    assert (now.state, now.lease_until) == (JobState.RUNNING, None)


def test_a_paused_job_can_be_cancelled_and_one_being_cancelled_is_not_paused(database: Database) -> None:
    for pause_first in (True, False):
        job = _job(database, tokens=5)
        claim = scenes.claimed(database, job.id)
        steps = [
            lambda uow, claim=claim: budgets.pause(uow, claim, CALL),
            lambda uow, job=job: cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=job.id),
        ]
        for step in steps if pause_first else reversed(steps):
            with database.transaction() as uow:
                step(uow)
        assert scenes.row(database, job.id).state == JobState.CANCELLED


def test_a_budget_cannot_go_below_what_is_taken_nor_come_late_nor_to_others(database: Database) -> None:
    job = _job(database)
    claim = scenes.claimed(database, job.id)
    _reserved(database, claim, CALL, CALL)

    def change(job: Job, tokens: int, tenant: str = scenes.TENANT) -> None:
        with database.transaction() as uow:
            budgets.change_budget(uow, tenant_id=tenant, job_id=job.id, tokens=tokens)

    with pytest.raises(Conflict):
        change(job, 19)
    change(job, 20)
    with pytest.raises(Conflict):
        change(_job(database, tokens=None), 100)
    with pytest.raises(NotFound):
        change(job, 100, tenant="other")
    with database.transaction() as uow:
        leases.finish(uow, claim, JobState.FAILED)
    with pytest.raises(Conflict):
        change(job, 100)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_cap_holds_and_the_sums_are_right(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    job = _job(database, tokens=200)
    claim = scenes.claimed(database, job.id)
    held: dict[int, Cost] = {}
    for _ in range(60):
        event = chance.random()
        if event < 0.5:
            costs = [Cost(chance.randint(1, 30), 0) for _ in range(chance.randint(1, 4))]
            numbers = _reserved(database, claim, *costs)
            held |= {number: cost for number, cost in zip(numbers, costs, strict=True) if number is not None}
        elif event < 0.9 and held:
            number = chance.choice(sorted(held))
            with database.transaction() as uow:
                budgets.settle(uow, claim, {number: Cost(chance.randint(0, held.pop(number).tokens), 0)})
        else:
            scenes.run_out(database, job.id)
            claim = scenes.claimed(database, job.id, max_attempts=1000)
            with database.transaction() as uow:
                budgets.write_off(uow, claim)
            held = {}
        spent, reserved = _account(database, job)
        assert reserved == sum(cost.tokens for cost in held.values())
        assert spent + reserved <= 200
