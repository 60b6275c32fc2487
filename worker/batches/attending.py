"""Looking after an open batch: whether its endpoint has it, how it is doing there, and what came of it."""

import structlog

from annotator.teachers.batch_endpoint import Gone
from core import teacher_batches
from core.db.models import TeacherBatch
from core.domain.batches import BatchEnding, BatchState
from worker.batches.collecting import collect
from worker.batches.scene import Scene

_log = structlog.get_logger(__name__)

_LOOKS = 2  # for a batch that its endpoint may have been told of, one poll apart, before it counts as never made


def attend(scene: Scene, batch: TeacherBatch) -> BatchEnding | None:
    """See how a batch is doing, and collect it when it ended; how it ended, None while it is open.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    TeacherUnreachable, TeacherRejected, BatchRejected
        See collect.
    """
    try:
        if batch.state == BatchState.PREPARING:
            remote = scene.endpoint.find(batch.id, since=batch.created_at.timestamp())
        else:
            remote = scene.endpoint.look(batch.remote_id or "")
    except Gone:
        _end(scene, batch, "the endpoint does not know the batch any more", all_known=False)
        return BatchEnding.BARREN
    if remote is None:
        return _missed(scene, batch)
    with scene.runtime.database.transaction() as uow:
        if batch.state == BatchState.PREPARING:
            _log.info("batch_found", batch=batch.id, remote=remote.id)
            teacher_batches.record_submitted(uow, scene.claim, batch.id, remote_id=remote.id, status=remote.status)
        else:
            teacher_batches.record_progress(uow, scene.claim, batch.id, status=remote.status, answered=remote.answered)
    return collect(scene, batch, remote) if remote.ended else None


def _missed(scene: Scene, batch: TeacherBatch) -> BatchEnding | None:
    """The endpoint was never told of a batch, or takes its time to list it."""
    if batch.misses + 1 >= _LOOKS:
        _end(scene, batch, "the endpoint never had the batch", all_known=True)
        return BatchEnding.BARREN
    with scene.runtime.database.transaction() as uow:
        teacher_batches.record_miss(uow, scene.claim, batch.id)
    return None


def _end(scene: Scene, batch: TeacherBatch, why: str, *, all_known: bool) -> None:
    with scene.runtime.database.transaction() as uow:
        teacher_batches.end(uow, scene.claim, batch, ending=BatchEnding.BARREN, detail=why, all_known=all_known)
