"""The training task against a fake trainer: every way in which a run can end."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import adapters
from core.db.models import ExampleRow, Job
from core.domain.lifecycle import JobState
from core.job_store import cancel_job
from core.jobs import JobKind
from tests import scenes
from tests.worker.conftest import in_background, runs, runtime_on, training_with, wait_until
from worker.runtime import Runtime
from worker.tasks.training import train


def _trained(runtime: Runtime, behaviour: str, **options: Any) -> Job:
    job = scenes.training_job(runtime.database, **options)
    train(training_with(runtime, behaviour), job.id)
    return scenes.row(runtime.database, job.id)


def _folder(runtime: Runtime, job: Job) -> Path:
    return runtime.settings.storage.runs / job.id


def _started(runtime: Runtime, behaviour: str) -> tuple[Job, threading.Thread]:
    """A job whose trainer is at work, and the thread that watches over it."""
    job = scenes.training_job(runtime.database)
    watching = in_background(lambda: train(training_with(runtime, behaviour), job.id))
    wait_until(lambda: "checkpoint" in dict(scenes.told(runtime.database, job.id)))
    return job, watching


def _cancel(runtime: Runtime, job: Job) -> None:
    with runtime.database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.TRAINING, job_id=job.id)


def test_a_run_that_succeeds_is_an_adapter(runtime: Runtime) -> None:
    job = _trained(runtime, "succeed")
    assert (job.state, job.done, job.total, job.error) == (JobState.SUCCEEDED, 20, 20, None)
    assert job.progress["loss"] == 0.25
    assert job.progress["evaluations"] == {"iid": {"accuracy": 1.0}}
    with runtime.database.reading() as session:
        [adapter] = adapters.list_adapters(session, tenant_id=scenes.TENANT)
    assert job.result == {"adapter_id": adapter.id, "metrics": {"iid": {"accuracy": 1.0}}}
    file, _ = adapters.open_archive(runtime.blobs, adapter)
    file.close()
    kinds = [kind for kind, _ in scenes.told(runtime.database, job.id)]
    assert kinds == ["state", "state", "plan", "step", "step", "evaluation", "finished", "state"]
    assert not _folder(runtime, job).exists()


def test_a_dry_run_stops_after_planning(runtime: Runtime) -> None:
    job = _trained(runtime, "succeed", dry_run=True)
    assert job.state == JobState.SUCCEEDED
    assert job.result == {"plan": {"steps": 20, "tokens": 99, "examples": 3, "supervised_rows": 0, "longest": 9}}
    with runtime.database.reading() as session:
        assert adapters.list_adapters(session, tenant_id=scenes.TENANT) == []


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("fail", {"code": "not_finite", "message": "the loss is not finite at step 11", "step": 11}),
        ("fail_without_a_word", {"code": "training_failed", "exit_code": 3}),
        ("end_without_a_word", {"code": "training_failed"}),
        ("die", {"code": "trainer_killed", "signal": "SIGKILL"}),
        ("fail_together", {"code": "not_finite", "step": 11}),  # the cause, not what came of it
        ("find_the_disk_full", {"code": "disk_full"}),
    ],
)
def test_a_run_that_fails_says_why_and_can_be_looked_at(runtime: Runtime, behaviour: str, error: dict) -> None:
    job = _trained(runtime, behaviour)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert {name: job.error.get(name) for name in error} == error
    assert (_folder(runtime, job) / "trainer.log").exists()


def test_lines_that_are_no_events_are_passed_over(runtime: Runtime) -> None:
    assert _trained(runtime, "babble").state == JobState.SUCCEEDED


def test_a_run_goes_on_in_its_folder_and_a_torn_line_is_not_an_event(runtime: Runtime) -> None:
    job = _trained(runtime, "tear")
    assert (job.state, job.lease_until) == (JobState.RUNNING, None)
    train(training_with(runtime, "tear"), job.id)
    job = scenes.row(runtime.database, job.id)
    assert (job.state, job.attempts, job.epoch) == (JobState.SUCCEEDED, 0, 2)
    steps = [data["step"] for kind, data in scenes.told(runtime.database, job.id) if kind == "step"]
    assert steps == [10, 10, 20]


def test_cancel_stops_the_trainer_politely(runtime: Runtime) -> None:
    job, watching = _started(runtime, "wait_for_stop")
    _cancel(runtime, job)
    watching.join()
    assert scenes.row(runtime.database, job.id).state == JobState.CANCELLED
    assert not _folder(runtime, job).exists()


def test_a_trainer_that_does_not_stop_is_killed_with_its_children(runtime: Runtime) -> None:
    job, watching = _started(runtime, "ignore_stop")
    grandchild = int((_folder(runtime, job) / "grandchild").read_text())
    _cancel(runtime, job)
    watching.join()
    assert scenes.row(runtime.database, job.id).state == JobState.CANCELLED
    wait_until(lambda: not runs(grandchild))


def test_a_worker_that_is_to_go_hands_the_job_back(runtime: Runtime) -> None:
    job, watching = _started(runtime, "wait_for_stop")
    runtime.draining.set()
    watching.join()
    now = scenes.row(runtime.database, job.id)
    assert (now.state, now.attempts, now.lease_until) == (JobState.RUNNING, 0, None)
    assert _folder(runtime, job).exists()


def test_a_worker_that_lost_its_lease_kills_its_trainer_and_writes_nothing(runtime: Runtime) -> None:
    job, watching = _started(runtime, "ignore_stop")
    grandchild = int((_folder(runtime, job) / "grandchild").read_text())
    scenes.take_back(runtime.database, job.id)
    scenes.claimed(runtime.database, job.id)
    before = scenes.told(runtime.database, job.id)
    watching.join()
    now = scenes.row(runtime.database, job.id)
    assert (now.state, now.epoch) == (JobState.RUNNING, 2)
    assert scenes.told(runtime.database, job.id) == before
    wait_until(lambda: not runs(grandchild))


def test_a_trainer_left_behind_by_a_dead_worker_is_ended_first(runtime: Runtime, tmp_path: Path) -> None:
    job, watching = _started(runtime, "ignore_stop")
    grandchild = int((_folder(runtime, job) / "grandchild").read_text())
    elsewhere = runtime_on(runtime.database, tmp_path)  # another worker process on the same disk
    # The first worker believes in its lease until its next beat, and its trainer lives until then.
    scenes.take_back(runtime.database, job.id)
    train(training_with(elsewhere, "succeed"), job.id)
    watching.join()
    assert scenes.row(runtime.database, job.id).state == JobState.SUCCEEDED
    wait_until(lambda: not runs(grandchild))


def test_labels_that_changed_fail_the_job(runtime: Runtime) -> None:
    job = scenes.training_job(runtime.database)
    with runtime.database.transaction() as uow:
        uow.session.execute(ExampleRow.__table__.update().values(digest="another"))
    train(training_with(runtime, "succeed"), job.id)
    now = scenes.row(runtime.database, job.id)
    assert (now.state, (now.error or {})["code"]) == (JobState.FAILED, "labels_changed")


def test_the_trainer_sees_no_secrets(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSEWAY_DATABASE__URL", "postgresql://secret")
    monkeypatch.setenv("CAUSEWAY_TEACHERS__GPT__API_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("CAUSEWAY_CACHE", "/cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = _trained(runtime, "show_environment").error
    assert error is not None
    environment = error["environment"]
    assert (environment["CAUSEWAY_CACHE"], environment["HF_HUB_OFFLINE"]) == ("/cache", "1")
    assert "secret" not in str(environment)


def test_a_trainer_that_cannot_be_started_fails_the_job(runtime: Runtime) -> None:
    job = scenes.training_job(runtime.database)
    train(replace(runtime, trainer=("/no/such/program",)), job.id)
    assert (scenes.row(runtime.database, job.id).error or {})["code"] == "training_failed"
