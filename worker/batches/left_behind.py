"""Batches of jobs that were cancelled, or failed: their endpoint is told to stop, so that they cost no more."""

from datetime import timedelta

import structlog

from annotator.teachers.batch_endpoint import BatchEndpoint, open_batch_endpoint
from core import teacher_batches
from core.db.base import utcnow
from core.db.models import TeacherBatch
from core.errors import TeacherRejected, TeacherUnreachable
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)

_OVER_BY_ITSELF = timedelta(hours=25)  # a batch has a day


def stop_batches_left_behind(runtime: Runtime, job_id: str) -> None:
    """Stop what a job that is over has left at its endpoint. Does nothing for any other job; harmless twice.

    It is no worker's claim that protects this: a batch of a job that is over is nobody's.
    """
    with runtime.database.reading() as session:
        teacher, batches = teacher_batches.left_by(session, job_id=job_id)
    if not batches:
        return
    config = runtime.settings.teacher(teacher)
    if config is None:
        _forget(runtime, batches)
        return
    with open_batch_endpoint(config) as endpoint:
        _forget(runtime, [batch for batch in batches if _stopped(endpoint, batch)])


def _stopped(endpoint: BatchEndpoint, batch: TeacherBatch) -> bool:
    """Whether nothing more is to be done about a batch. If not, the relay comes back to it."""
    try:
        remote_id = batch.remote_id
        if remote_id is None:
            found = endpoint.find(batch.id, since=batch.created_at.timestamp())
            remote_id = None if found is None else found.id
        if remote_id is not None:
            endpoint.cancel(remote_id)
    except TeacherUnreachable as exc:
        _log.warning("batch_not_stopped", batch=batch.id, reason=exc.message)
        return utcnow() - batch.created_at > _OVER_BY_ITSELF
    except TeacherRejected as exc:
        _log.warning("batch_not_stopped", batch=batch.id, reason=exc.message)
    return True


def _forget(runtime: Runtime, batches: list[TeacherBatch]) -> None:
    for batch in batches:
        with runtime.database.transaction() as uow:
            teacher_batches.end_left(uow, batch)
