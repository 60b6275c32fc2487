"""Guarantee 11 in batch mode: what a batch may cost is set aside before it is sent."""

from typing import Any

import pytest

from core import budgets, teacher_batches
from core.db.models import Job
from core.domain.annotation import TeacherConfig, Usage
from core.domain.lifecycle import JobState
from core.domain.spending import Cost, cost_of, in_batches
from tests import scenes
from tests.fake_batches import FakeBatches
from tests.worker.batch_scenes import CALL_TOKENS, batches, job_in_batches, slice_of, taught_by, until_it_stops
from worker.batches import sending
from worker.runtime import Runtime


def _nobody_says(batch: int, item: str, body: dict[str, Any]) -> str:
    return "nousage"


def _raise(runtime: Runtime, job: Job, calls: int) -> None:
    with runtime.database.transaction() as uow:
        budgets.change_budget(uow, tenant_id=scenes.TENANT, job_id=job.id, tokens=calls * CALL_TOKENS)


def test_what_fits_is_sent_then_the_job_pauses_and_goes_on_when_its_budget_is_raised(runtime: Runtime) -> None:
    job = job_in_batches(runtime, 10, budget_tokens=6 * CALL_TOKENS + 1)
    with FakeBatches(fate=_nobody_says, looks=1).serving() as fake:
        taught = taught_by(runtime, fake, batch_lines=4)
        sent = slice_of(taught, job)
        assert [batch.lines for batch in batches(runtime, job)] == [4, 2]
        assert (sent.state, sent.reserved_tokens) == (JobState.RUNNING, 6 * CALL_TOKENS)
        paused = until_it_stops(taught, job)
        assert (paused.state, paused.done) == (JobState.PAUSED_BUDGET, 6)
        assert (paused.spent_tokens, paused.reserved_tokens) == (6 * CALL_TOKENS, 0)
        assert len(fake.asked) == 6
        _raise(runtime, job, 10)
        ended = until_it_stops(taught, job)
        assert (ended.state, ended.spent_tokens) == (JobState.SUCCEEDED, 10 * CALL_TOKENS)
        assert set(fake.asked.values()) == {1}


def test_what_the_teacher_reports_is_what_counts_and_the_rest_is_free_again(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 8, budget_tokens=4 * CALL_TOKENS)
    with FakeBatches().serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
        assert (ended.state, ended.spent_tokens, ended.reserved_tokens) == (JobState.SUCCEEDED, 8 * 120, 0)
        assert len(fake.batches) > 2


@pytest.mark.parametrize(("fate", "spent"), [("expire", 0), ("junk", CALL_TOKENS)])
def test_what_never_came_costs_nothing_and_what_cannot_be_read_all_that_it_may_have(
    sqlite_runtime: Runtime, fate: str, spent: int
) -> None:
    job = job_in_batches(sqlite_runtime, 1, budget_tokens=100 * CALL_TOKENS)
    with FakeBatches(fate=lambda batch, item, body: fate if batch == 0 else "ok").serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
    assert (ended.spent_tokens, ended.reserved_tokens) == (spent + 120, 0)


def test_a_batch_is_paid_at_its_discount(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 4, budget_usd=1.0)
    prices = {"prompt_price": 1.0, "completion_price": 10.0, "batch_discount": 0.3}
    with FakeBatches().serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake, **prices), job)
    assert ended.spent_nano_usd == 4 * (100 * 700 + 20 * 7_000)


def test_discounts_are_exact() -> None:
    teacher = TeacherConfig("t", "openai", prompt_price=0.15, completion_price=0.6, batch_discount=0.5)
    assert cost_of(Usage(1000, 1000), in_batches(teacher)) == Cost(2000, 75_000 + 300_000)
    free = TeacherConfig("t", "openai", prompt_price=0.15, completion_price=0.6, batch_discount=1)
    assert cost_of(Usage(1000, 1000), in_batches(free)).nano_usd == 0


def _spend_all(runtime: Runtime) -> tuple[int, list[int]]:
    """The lines that were asked by a job with money for three, and what was taken of its budget at each slice."""
    job = job_in_batches(runtime, 9, budget_tokens=3 * CALL_TOKENS)
    taken = []
    with FakeBatches(fate=_nobody_says, looks=1).serving() as fake:
        taught = taught_by(runtime, fake, batch_lines=2)
        now = slice_of(taught, job)
        while now.state == JobState.RUNNING:
            taken.append(now.spent_tokens + now.reserved_tokens)
            now = slice_of(taught, job)
        return len(fake.asked), [*taken, now.spent_tokens + now.reserved_tokens]


def test_the_line_past_the_cap_is_never_sent(runtime: Runtime) -> None:
    asked, taken = _spend_all(runtime)
    assert asked == 3
    assert max(taken) == 3 * CALL_TOKENS


def test_without_the_reservation_it_would_be(sqlite_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: what a batch may cost is not set aside."""
    real = teacher_batches.prepare

    def for_nothing(*args: Any, most: Cost, **kwargs: Any) -> Any:
        return real(*args, most=Cost(), **kwargs)

    class Blind:
        """core.teacher_batches as worker.batches.sending sees it."""

        def __getattr__(self, name: str) -> Any:
            return for_nothing if name == "prepare" else getattr(teacher_batches, name)

    monkeypatch.setattr(sending, "teacher_batches", Blind())
    asked, _ = _spend_all(sqlite_runtime)
    assert asked > 3
