"""Batch mode and workers that are killed, or come back late: nothing is paid twice. And the mutants that would pay."""

from collections.abc import Callable
from typing import Any

import pytest

from annotator.teachers.batch_endpoint import BatchEndpoint, RemoteBatch
from core import annotation_items, batch_items, leases, teacher_batches
from core.db.models import Job
from core.domain.lifecycle import JobState
from tests import scenes
from tests.fake_batches import FakeBatches
from tests.worker.batch_scenes import batches, items, job_in_batches, outcomes, slice_of, taught_by, until_it_stops
from worker.batches import answers, sending
from worker.runtime import Runtime
from worker.tasks.annotation import annotate

EXAMPLES = 6
Step = tuple[Any, str, int, bool]  # whose, what, the how-maniest time, killed after it rather than before

STEPS: dict[str, Step] = {
    "before the batch is written down": (teacher_batches, "prepare", 1, False),
    "before the upload": (BatchEndpoint, "upload", 1, False),
    "after the upload": (BatchEndpoint, "upload", 1, True),
    "before the batch is made": (BatchEndpoint, "create", 1, False),
    "after the batch is made": (BatchEndpoint, "create", 1, True),
    "before the endpoint's id is written down": (teacher_batches, "record_submitted", 1, False),
    "after the second batch is made": (BatchEndpoint, "create", 2, True),
    "before the first results are stored": (batch_items, "store_answers", 1, False),
    "between two stores": (batch_items, "store_answers", 2, False),
    "before the batch is closed": (teacher_batches, "end", 1, False),
    "before the job is": (annotation_items, "complete", 1, False),
}


class Killed(BaseException):
    """SIGKILL, as far as anything that could still be written is concerned."""


@pytest.fixture(autouse=True)
def small_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "AT_ONCE", 2)


def _kill_at(monkeypatch: pytest.MonkeyPatch, step: Step) -> None:
    place, name, time, after = step
    real, calls = getattr(place, name), [0]

    def failpoint(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] != time:
            return real(*args, **kwargs)
        if after:
            real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(place, name, failpoint)


def _killed_once(runtime: Runtime, fake: FakeBatches, job: Job) -> Job:
    """Work until the worker is killed, let its lease run out, and work on."""
    taught = taught_by(runtime, fake, batch_lines=3)
    with pytest.raises(Killed):
        until_it_stops(taught, job)
    scenes.run_out(runtime.database, job.id)
    return until_it_stops(taught_by(runtime, fake, batch_lines=3), job)


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_any_step_costs_nothing(
    postgres_runtime: Runtime, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in_batches(postgres_runtime, EXAMPLES, budget_tokens=1_000_000)
    _kill_at(monkeypatch, STEPS[step])
    with FakeBatches().serving() as fake:
        ended = _killed_once(postgres_runtime, fake, job)
        assert outcomes(ended) == {"labelled": EXAMPLES}
        assert set(fake.asked.values()) == {1}
    assert (ended.spent_tokens, ended.reserved_tokens) == (EXAMPLES * 120, 0)
    assert ended.progress["prompt_tokens"] == EXAMPLES * 100
    assert {batch.state for batch in batches(postgres_runtime, job)} == {"ended"}


def test_a_batch_whose_creation_was_not_heard_of_is_found(postgres_runtime: Runtime) -> None:
    job = job_in_batches(postgres_runtime, EXAMPLES)
    with FakeBatches(trouble={"create": ["ok", "lost", "torn"]}).serving() as fake:
        ended = until_it_stops(taught_by(postgres_runtime, fake, batch_lines=1), job)
        assert outcomes(ended) == {"labelled": EXAMPLES}
        assert set(fake.asked.values()) == {1}


def test_a_batch_that_is_listed_late_is_found(sqlite_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looks = BatchEndpoint.find, [0]

    def late(self: BatchEndpoint, mark: str, *, since: float) -> RemoteBatch | None:
        looks[0] += 1
        return real(self, mark, since=since) if looks[0] > 1 else None

    monkeypatch.setattr(BatchEndpoint, "find", late)
    job = job_in_batches(sqlite_runtime, EXAMPLES)
    with FakeBatches(trouble={"create": ["lost"]}).serving() as fake:
        assert outcomes(until_it_stops(taught_by(sqlite_runtime, fake), job)) == {"labelled": EXAMPLES}
        assert set(fake.asked.values()) == {1}


def _never_finds(self: BatchEndpoint, mark: str, *, since: float) -> None:
    """The mutant of find: a batch whose creation was not heard of is not looked for."""


def test_without_the_look_it_would_be_paid_twice(sqlite_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchEndpoint, "find", _never_finds)
    job = job_in_batches(sqlite_runtime, EXAMPLES)
    with FakeBatches(trouble={"create": ["lost"]}).serving() as fake:
        until_it_stops(taught_by(sqlite_runtime, fake), job)
        assert set(fake.asked.values()) == {2}


def test_without_a_look_at_what_is_stored_it_would_be_counted_twice(
    sqlite_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: results of items that have their label are stored again."""
    real = batch_items.items_of

    def none_is_done(*args: Any) -> dict[int, batch_items.BatchItem]:
        return {
            number: batch_items.BatchItem(item.id, item.example, item.first, is_done=False)
            for number, item in real(*args).items()
        }

    monkeypatch.setattr(batch_items, "items_of", none_is_done)
    _kill_at(monkeypatch, STEPS["before the batch is closed"])
    job = job_in_batches(sqlite_runtime, EXAMPLES)
    with FakeBatches().serving() as fake:
        ended = _killed_once(sqlite_runtime, fake, job)
    assert ended.spent_tokens > EXAMPLES * 120


def _late(
    runtime: Runtime,
    fake: FakeBatches,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    *,
    after: bool,
    meanwhile: Callable[[Runtime, Job], Job] = until_it_stops,
) -> Job:
    """A worker that is away, before or after a call to its endpoint, while another takes its job over."""
    job = job_in_batches(runtime, EXAMPLES)
    real: Callable[..., Any] = getattr(BatchEndpoint, method)

    def away(self: BatchEndpoint, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(BatchEndpoint, method, real)
        done = real(self, *args, **kwargs) if after else None
        scenes.take_back(runtime.database, job.id)
        assert meanwhile(taught_by(runtime, fake), job).epoch > 1
        return done if after else real(self, *args, **kwargs)

    monkeypatch.setattr(BatchEndpoint, method, away)
    annotate(taught_by(runtime, fake), job.id)
    return scenes.row(runtime.database, job.id)


def test_a_worker_that_was_away_makes_no_batch(postgres_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeBatches().serving() as fake:
        assert outcomes(_late(postgres_runtime, fake, monkeypatch, "upload", after=True)) == {"labelled": EXAMPLES}
        assert set(fake.asked.values()) == {1}


def test_without_the_fence_it_would(sqlite_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: no fence between the upload and the batch."""
    real = leases.fence

    class Unfenced:
        """core.leases as worker.batches.sending sees it."""

        def __getattr__(self, name: str) -> Any:
            return (lambda *_: None) if name == "fence" else getattr(leases, name)

    monkeypatch.setattr(sending, "leases", Unfenced())
    with FakeBatches().serving() as fake:
        _late(sqlite_runtime, fake, monkeypatch, "upload", after=True)
        assert set(fake.asked.values()) == {2}
    assert leases.fence is real


def test_a_batch_made_too_late_is_withdrawn(postgres_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the fence and the endpoint no fence can stand: what nobody will fetch is stopped at once."""
    with FakeBatches().serving() as fake:
        assert outcomes(_late(postgres_runtime, fake, monkeypatch, "create", after=False)) == {"labelled": EXAMPLES}
        assert fake.cancelled == ["batch_1"]


def test_a_batch_that_another_worker_found_is_not_withdrawn(
    postgres_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeBatches(looks=2).serving() as fake:
        late = _late(postgres_runtime, fake, monkeypatch, "create", after=True, meanwhile=slice_of)
        assert (late.state, late.progress["batches"]["open"], fake.cancelled) == (JobState.RUNNING, 1, [])
        assert outcomes(until_it_stops(taught_by(postgres_runtime, fake), late)) == {"labelled": EXAMPLES}
        assert set(fake.asked.values()) == {1}


def test_a_worker_that_is_to_go_hands_its_job_on(sqlite_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_in_batches(sqlite_runtime, EXAMPLES)
    real = batch_items.store_answers
    with FakeBatches().serving() as fake:
        taught = taught_by(sqlite_runtime, fake)
        slice_of(taught, job)

        def told_to_go(*args: Any, **kwargs: Any) -> None:
            taught.draining.set()
            real(*args, **kwargs)

        monkeypatch.setattr(batch_items, "store_answers", told_to_go)
        now = slice_of(taught, job)
        assert (now.state, now.done, now.not_before) == (JobState.RUNNING, 2, None)
        assert sum(item.outcome is None for item in items(sqlite_runtime, job)) == EXAMPLES - 2
        monkeypatch.setattr(batch_items, "store_answers", real)
        assert outcomes(until_it_stops(taught_by(sqlite_runtime, fake), job)) == {"labelled": EXAMPLES}
        assert set(fake.asked.values()) == {1}
