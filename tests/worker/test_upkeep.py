"""Only what nobody will ask for again is removed."""

import os
import sys
from pathlib import Path

from core import leases
from core.domain.lifecycle import JobState
from core.job_store import cancel_job
from core.jobs import JobKind
from tests import scenes
from tests.worker.conftest import left_behind, runs
from worker.runtime import Runtime
from worker.tasks.upkeep import sweep_blobs, sweep_runs


def _folder(runtime: Runtime, job_id: str, *, age: float = 0) -> Path:
    folder = runtime.settings.storage.runs / job_id
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    if age:
        then = folder.stat().st_mtime - age
        os.utime(folder, (then, then))
    return folder


def _failed(runtime: Runtime) -> str:
    job = scenes.training_job(runtime.database)
    claim = scenes.claimed(runtime.database, job.id)
    with runtime.database.transaction() as uow:
        leases.finish(uow, claim, JobState.FAILED, error={"code": "x", "message": "y"})
    return job.id


def test_run_folders_go_when_their_jobs_are_over(runtime: Runtime) -> None:
    waiting = _folder(runtime, scenes.training_job(runtime.database).id, age=1e9)
    cancelled_job = scenes.training_job(runtime.database)
    with runtime.database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.TRAINING, job_id=cancelled_job.id)
    cancelled = _folder(runtime, cancelled_job.id)
    deleted = _folder(runtime, "tr_deleted")
    failed_now = _folder(runtime, _failed(runtime))
    failed_long_ago = _folder(runtime, _failed(runtime), age=runtime.settings.jobs.keep_failed_runs + 60)
    somebody_elses = _folder(runtime, "lost+found", age=1e9)
    assert sweep_runs(runtime) == 3
    assert [folder.exists() for folder in (waiting, failed_now, somebody_elses)] == [True] * 3
    assert [folder.exists() for folder in (cancelled, deleted, failed_long_ago)] == [False] * 3
    assert sweep_runs(runtime) == 0


def test_a_trainer_whose_worker_and_job_are_gone_is_ended(runtime: Runtime) -> None:
    folder = _folder(runtime, "tr_deleted")
    trainer = left_behind([sys.executable, "-c", "import time; time.sleep(600)"], folder)
    assert sweep_runs(runtime) == 1
    assert not runs(trainer)
    assert not folder.exists()


def test_blobs_go_when_no_row_names_them(runtime: Runtime, tmp_path: Path) -> None:
    source = tmp_path / "archive"
    source.write_bytes(b"adapter")
    old, new = "adapters/tr_1/old.tar.gz", "adapters/tr_1/new.tar.gz"
    for key in (old, new):
        runtime.blobs.publish(runtime.blobs.stage(source), key)
    staged = runtime.blobs.stage(source)
    for path in (runtime.settings.storage.blobs / old, staged.path):
        os.utime(path, (1, 1))
    assert sweep_blobs(runtime) == 2
    assert [key for key, _ in runtime.blobs.keys("adapters")] == [new]
    assert not staged.path.exists()
