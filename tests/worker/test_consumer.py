"""Celery workers, in memory and on a real Redis: a nudge becomes work, and letting go loses nothing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from core.db.session import Database
from core.domain.lifecycle import JobState
from core.jobs import JobKind, Nudge
from tests import scenes
from tests.worker.conftest import runtime_on, training_with, wait_until
from worker.app import backlog, publisher, send_upkeep
from worker.consumer import consuming
from worker.embedded import embedded
from worker.runtime import Runtime


@contextmanager
def _publishing(runtime: Runtime) -> Iterator[Database]:
    """The runtime's database as the api uses it: what is submitted is nudged."""
    url = runtime.database.engine.url.render_as_string(hide_password=False)
    database = Database(url, publish=publisher(runtime.app))
    try:
        yield database
    finally:
        database.dispose()
        runtime.app.close()


def _ends(runtime: Runtime, job_id: str, state: JobState) -> None:
    wait_until(lambda: scenes.row(runtime.database, job_id).finished_at is not None)
    assert scenes.row(runtime.database, job_id).state == state


def test_one_process_can_do_everything(sqlite: Database, tmp_path: Path) -> None:
    runtime = training_with(runtime_on(sqlite, tmp_path), "succeed")
    with _publishing(runtime) as publishing, embedded(runtime) as workers:
        annotation, training = scenes.annotation_job(publishing), scenes.training_job(publishing)
        _ends(runtime, annotation.id, JobState.SUCCEEDED)
        _ends(runtime, training.id, JobState.SUCCEEDED)
        assert workers.alive()
    assert scenes.promised(sqlite) == []


def test_a_worker_on_redis_takes_its_own_kind_of_nudge(redis_runtime: Runtime) -> None:
    runtime = training_with(redis_runtime, "succeed")
    with _publishing(runtime) as publishing:
        training = scenes.training_job(publishing)
        with consuming(runtime, [JobKind.ANNOTATION]) as workers:
            annotation = scenes.annotation_job(publishing)
            _ends(runtime, annotation.id, JobState.SUCCEEDED)
            assert scenes.row(runtime.database, training.id).state == JobState.QUEUED
            assert backlog(runtime.app, JobKind.TRAINING) == 1
            assert workers.alive()
        with consuming(replace(runtime, draining=threading.Event()), [JobKind.TRAINING]):
            _ends(runtime, training.id, JobState.SUCCEEDED)


def test_letting_go_hands_the_work_back(sqlite: Database, tmp_path: Path) -> None:
    runtime = training_with(runtime_on(sqlite, tmp_path), "wait_for_stop")
    with _publishing(runtime) as publishing, consuming(runtime, [JobKind.TRAINING]):
        job = scenes.training_job(publishing)
        wait_until(lambda: "checkpoint" in dict(scenes.told(sqlite, job.id)))
    now = scenes.row(sqlite, job.id)
    assert (now.state, now.lease_until, now.attempts) == (JobState.RUNNING, None, 0)


def test_upkeep_travels_as_a_nudge_too(sqlite: Database, tmp_path: Path) -> None:
    runtime = runtime_on(sqlite, tmp_path)
    left = runtime.settings.storage.runs / "tr_deleted"
    left.mkdir(parents=True)
    with consuming(runtime, [JobKind.TRAINING]):
        send_upkeep(runtime.app)
        wait_until(lambda: not left.exists())


def test_nudges_that_wait_are_counted(redis_runtime: Runtime) -> None:
    assert backlog(redis_runtime.app, JobKind.TRAINING) == 0
    for waiting in (1, 2):
        publisher(redis_runtime.app)(Nudge(JobKind.TRAINING, "tr_some"))
        assert backlog(redis_runtime.app, JobKind.TRAINING) == waiting
    assert backlog(redis_runtime.app, JobKind.ANNOTATION) == 0
