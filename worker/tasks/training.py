"""One training job: lay out its folder, watch over the trainer, publish what it made."""

import shutil
import time
from pathlib import Path
from typing import Any

import structlog

from core import adapters, leases, training_runs
from core.db.models import Job
from core.domain.lifecycle import JobState
from core.domain.run_folder import EXIT_DISK_FULL, EXIT_FINISHED
from core.errors import DiskFull, TrainingFailed, Unavailable
from core.job_store import get_job
from core.jobs import JobKind
from core.leases import Claim
from worker.claimed import work_on
from worker.heart import Heart
from worker.runtime import Runtime
from worker.supervisor import Child, Exit, read_events

_log = structlog.get_logger(__name__)

_TICK = 0.2  # seconds between looks at the trainer
_EVENTS = "events.jsonl"


def train(runtime: Runtime, job_id: str) -> None:
    """Work on a training job until it ends, if it is to be had."""
    work_on(runtime, job_id, _work)


def _work(runtime: Runtime, claim: Claim, heart: Heart) -> None:
    folder = runtime.settings.storage.runs.resolve() / claim.job_id
    with runtime.database.reading() as session:
        job = get_job(session, tenant_id=claim.tenant_id, kind=JobKind.TRAINING, job_id=claim.job_id)
        training_runs.write_run_folder(session, job, folder)
    run = _Run(runtime, claim, heart, job, folder)
    run.settle(run.supervise())


class _Run:
    """One attempt at a training job, from the start of its trainer to what became of it."""

    def __init__(self, runtime: Runtime, claim: Claim, heart: Heart, job: Job, folder: Path) -> None:
        self._runtime, self._claim, self._heart, self._folder = runtime, claim, heart, folder
        self._dry_run: bool = job.request["dry_run"]
        self._cursor = job.cursor
        self._said: dict[str, dict[str, Any]] = {}  # the last event of each type, in this attempt

    def supervise(self) -> Exit:
        """Run the trainer to its end, pass on what it says, and stop it when the job must stop."""
        plan = ["--plan"] if self._dry_run else []
        with Child([*self._runtime.trainer, *plan, str(self._folder)], self._folder) as child:
            _log.info("trainer_started")
            while True:
                exit_ = child.poll()
                # Polled before reading, so that nothing is left unread once it has ended.
                caught_up = self._pass_on_events()
                if exit_ is not None and caught_up:
                    _log.info("trainer_ended", code=exit_.code, signal=exit_.signal)
                    return exit_
                if self._heart.lost.is_set():
                    child.kill()
                elif self._heart.cancelled.is_set() or self._runtime.draining.is_set():
                    child.stop(grace=self._runtime.settings.jobs.cancel_grace)
                time.sleep(_TICK)

    def settle(self, exit_: Exit) -> None:
        """Bring the job to the state that follows. Its folder stays when there is something to resume or to look at."""
        if self._heart.lost.is_set():
            return
        handed_back = exit_.interrupted or (self._runtime.draining.is_set() and exit_.signal is not None)
        if self._heart.cancelled.is_set():
            self._end(JobState.CANCELLED)
        elif exit_.code == EXIT_FINISHED:
            self._succeed()
        elif handed_back:
            with self._runtime.database.transaction() as uow:
                leases.release(uow, self._claim)
            _log.info("training_released")
            return
        else:
            self._end(JobState.FAILED, error=self._what_happened(exit_))
            return
        shutil.rmtree(self._folder, ignore_errors=True)

    def _pass_on_events(self) -> bool:
        """Record what the trainer has said since last time. False when the database is away: a run outlives that."""
        while not self._heart.lost.is_set():
            new = read_events(self._folder / _EVENTS, self._cursor)
            if new.end == self._cursor:
                break
            if new.unreadable:
                _log.warning("unreadable_events", count=new.unreadable)
            try:
                with self._runtime.database.transaction() as uow:
                    training_runs.record_events(uow, self._claim, new.events, cursor=new.end)
            except Unavailable as exc:
                _log.warning("events_not_recorded", reason=exc.message)
                return False
            self._cursor = new.end
            for event in new.events:
                # Of processes that train together one fails first, and the others for want of it.
                if event["type"] != "failed" or "failed" not in self._said:
                    self._said[event["type"]] = event
        return True

    def _succeed(self) -> None:
        last = self._said.get("plan" if self._dry_run else "finished")
        if last is None:
            raise TrainingFailed("the trainer ended well, but never said that it had finished")
        if self._dry_run:
            self._end(JobState.SUCCEEDED, result={"plan": {k: v for k, v in last.items() if k not in ("type", "at")}})
            return
        blobs = self._runtime.blobs
        staged, manifest = adapters.stage_archive(blobs, self._folder / "adapter")
        try:
            with self._runtime.database.transaction() as uow:
                adapters.publish(
                    uow, self._claim, blobs=blobs, staged=staged, manifest=manifest, metrics=last.get("metrics", {})
                )
        finally:
            blobs.discard(staged)
        _log.info("training_ended", state="published")

    def _end(self, state: JobState, **outcome: dict[str, Any]) -> None:
        with self._runtime.database.transaction() as uow:
            leases.finish(uow, self._claim, state, **outcome)
        _log.info("training_ended", state=str(state))

    def _what_happened(self, exit_: Exit) -> dict[str, Any]:
        if exit_.signal is not None:
            message = f"the trainer was killed by {exit_.signal}; SIGKILL often means that memory ran out"
            return {"code": "trainer_killed", "message": message, "signal": exit_.signal}
        failed = self._said.get("failed")
        if failed is None and exit_.code == EXIT_DISK_FULL:
            message = "the disk with the run folders is full; make room and ask again"
            return {"code": DiskFull.code, "message": message}
        if failed is None:
            message = f"the trainer ended with exit code {exit_.code} and did not say why"
            return {"code": TrainingFailed.code, "message": message, "exit_code": exit_.code}
        code, message = failed.get("code", TrainingFailed.code), failed.get("message", "")
        return {**failed.get("facts", {}), "code": code, "message": message}
