"""The relay makes nudges disposable."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.db.session import Database
from core.domain.lifecycle import JobState
from core.errors import Unavailable
from core.jobs import JobKind
from tests import scenes
from tests.services import free_port
from tests.worker.conftest import in_background, purge, runtime_on, wait_until
from worker.app import backlog, publisher
from worker.relay import run_relay, tick
from worker.runtime import Runtime


@pytest.fixture
def queued(runtime: Runtime) -> Iterator[Runtime]:
    """The runtime with empty queues: memory:// is one broker for the whole process."""
    purge(runtime)
    yield runtime
    purge(runtime)


def test_what_was_promised_and_not_sent_is_sent(queued: Runtime) -> None:
    job = scenes.annotation_job(queued.database)
    assert scenes.promised(queued.database) == [job.id]
    tick(queued)
    assert scenes.promised(queued.database) == []
    assert backlog(queued.app, JobKind.ANNOTATION) == 1


def test_a_lost_queue_is_filled_again_and_a_full_one_does_not_grow(queued: Runtime) -> None:
    for _ in range(3):
        scenes.annotation_job(queued.database)
    scenes.training_job(queued.database)
    for _ in range(5):
        tick(queued)
    assert (backlog(queued.app, JobKind.ANNOTATION), backlog(queued.app, JobKind.TRAINING)) == (3, 1)
    purge(queued)  # as FLUSHALL would
    for _ in range(5):
        tick(queued)
    assert (backlog(queued.app, JobKind.ANNOTATION), backlog(queued.app, JobKind.TRAINING)) == (3, 1)


def test_a_job_whose_worker_died_is_nudged_again(queued: Runtime) -> None:
    job = scenes.annotation_job(queued.database)
    scenes.claimed(queued.database, job.id)
    tick(queued)
    purge(queued)
    tick(queued)
    assert backlog(queued.app, JobKind.ANNOTATION) == 0  # it is in good hands
    scenes.run_out(queued.database, job.id)
    tick(queued)
    assert backlog(queued.app, JobKind.ANNOTATION) == 1
    assert scenes.row(queued.database, job.id).lease_until is None


def test_while_the_broker_is_away_nothing_is_lost(database: Database, tmp_path: Path) -> None:
    runtime = runtime_on(database, tmp_path, broker=f"redis://127.0.0.1:{free_port()}/0")
    publishing = Database(database.engine.url.render_as_string(hide_password=False), publish=publisher(runtime.app))
    job = scenes.annotation_job(publishing)  # the request passes
    lost = scenes.annotation_job(publishing)
    scenes.claimed(database, lost.id)
    scenes.run_out(database, lost.id)
    with pytest.raises(Unavailable):
        tick(runtime)
    assert scenes.promised(database)[:2] == [job.id, lost.id]
    assert scenes.row(database, lost.id).attempts == 1  # leases are looked after all the same
    publishing.dispose()
    runtime.app.close()


def test_the_loop_outlives_a_broker_that_is_away(sqlite: Database, tmp_path: Path) -> None:
    runtime = runtime_on(sqlite, tmp_path, broker=f"redis://127.0.0.1:{free_port()}/0")
    job = scenes.annotation_job(sqlite)
    for attempts in (1, 2):
        scenes.claimed(sqlite, job.id)
        scenes.run_out(sqlite, job.id)
        stop = threading.Event()
        loop = in_background(lambda stop=stop: run_relay(runtime, stop))
        wait_until(lambda attempts=attempts: scenes.row(sqlite, job.id).attempts == attempts)
        stop.set()
        loop.join()
    assert scenes.row(sqlite, job.id).state == JobState.RUNNING
    runtime.app.close()
