"""Tidying: what nobody will ask for again is removed. Every step is harmless at any time, and twice."""

import shutil
import time

import structlog

from core import adapters, leases
from core.domain.lifecycle import TERMINAL, JobState
from worker.runtime import Runtime
from worker.supervisor import end_left_behind

_log = structlog.get_logger(__name__)

_SETTLED = 86_400.0  # seconds after which something half-published is surely forgotten


def sweep_runs(runtime: Runtime) -> int:
    """Remove the run folders, on this machine, of jobs that are over; of failed ones only after a while."""
    removed = 0
    for folder in sorted(runtime.settings.storage.runs.glob("tr_*")):
        with runtime.database.reading() as session:
            state = leases.state_of(session, job_id=folder.name)
        if state is not None and state not in TERMINAL:
            continue
        if state is JobState.FAILED and _age(folder.stat().st_mtime) < runtime.settings.jobs.keep_failed_runs:
            continue
        end_left_behind(folder)  # its job was cancelled while its worker was dead
        shutil.rmtree(folder, ignore_errors=True)
        removed += 1
    if removed:
        _log.info("run_folders_removed", count=removed)
    return removed


def sweep_blobs(runtime: Runtime) -> int:
    """Remove staged files that were never published, and archives that no adapter names."""
    removed = runtime.blobs.drop_staged(older_than=_SETTLED)
    with runtime.database.reading() as session:
        orphans = adapters.orphans(session, runtime.blobs, before=time.time() - _SETTLED)
    for key in orphans:
        runtime.blobs.delete(key)
    if removed or orphans:
        _log.info("blobs_removed", staged=removed, orphans=len(orphans))
    return removed + len(orphans)


def _age(mtime: float) -> float:
    return time.time() - mtime
