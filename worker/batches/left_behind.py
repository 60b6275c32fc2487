"""Batches of jobs that were cancelled, or failed: their endpoint is told to stop, and what it has answered is kept.

It is no claim that protects this: a batch of a job that is over is nobody's, and every step is harmless twice.
"""

from datetime import timedelta

import structlog

from annotator.prior import prior_from_json
from annotator.teachers.batch_endpoint import Gone, RemoteBatch, open_batch_endpoint
from annotator.teachers.batch_lines import Fate, Result
from core import annotation_items, batch_items, teacher_batches
from core.db.base import utcnow
from core.db.models import TeacherBatch
from core.domain.spending import Cost
from core.errors import TeacherRejected, TeacherUnreachable
from core.jobs import JobKind
from core.leases import Claim
from worker.batches.answers import Answers, in_chunks, item_of
from worker.batches.scene import Scene
from worker.heart import Heart
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)

_OVER_BY_ITSELF = timedelta(hours=25)  # a batch has a day
_LISTED_BY_THEN = timedelta(minutes=2)  # one that was made


def stop_batches_left_behind(runtime: Runtime, job_id: str) -> None:
    """Stop what a job that is over has left at its endpoint; does nothing for any other job.

    Replies that were paid for are remembered, so that a retry asks for the others only. What cannot be done now, the
    relay comes back to.
    """
    with runtime.database.reading() as session:
        batches = teacher_batches.left_by(session, job_id=job_id)
        if not batches:
            return
        nobodys = Claim(job_id, batches[0].tenant_id, JobKind.ANNOTATION, epoch=-1)  # to read by; no fence knows it
        asked = annotation_items.asked_of(session, nobodys)
    config = runtime.settings.teacher(asked.teacher)
    if config is None:
        for batch in batches:
            _forget(runtime, batch)
        return
    heart = Heart(runtime.database, nobodys, runtime.settings.jobs)
    with open_batch_endpoint(config) as endpoint:
        scene = Scene(runtime, nobodys, heart, config, asked, prior_from_json(asked.prior), endpoint)
        for batch in batches:
            _see_to(scene, batch)


def _see_to(scene: Scene, batch: TeacherBatch) -> None:
    try:
        if batch.remote_id is None:
            remote = scene.endpoint.find(batch.id, since=batch.created_at.timestamp())
        else:
            remote = scene.endpoint.look(batch.remote_id)
        if remote is not None and not remote.ended:
            if remote.status != "cancelling":
                scene.endpoint.cancel(remote.id)
                _log.info("batch_cancelled", batch=batch.id, remote=remote.id)
            return  # until it has ended
        if remote is not None:
            _salvage(scene, batch, remote)
        elif _age(batch) > _LISTED_BY_THEN:
            _forget(scene.runtime, batch)
    except (TeacherRejected, Gone) as exc:
        _log.warning("batch_given_up", batch=batch.id, reason=str(exc))
        _forget(scene.runtime, batch)
    except TeacherUnreachable as exc:
        _log.warning("batch_not_stopped", batch=batch.id, reason=exc.message)
        if _age(batch) > _OVER_BY_ITSELF:
            _forget(scene.runtime, batch)


def _salvage(scene: Scene, batch: TeacherBatch, remote: RemoteBatch) -> None:
    """Remember the answers of a batch that ended, and settle what they cost."""
    cost, all_known, seen = Cost(), True, set[int]()
    for results in in_chunks(scene.endpoint.results(remote, scene.over)):
        all_known &= None not in results
        answers = _answers(scene, batch, results, seen)
        cost += answers.cost
        with scene.runtime.database.transaction() as uow:
            annotation_items.store_replies(uow, tenant_id=batch.tenant_id, replies=answers.replies)
    if scene.over():
        return
    with scene.runtime.database.transaction() as uow:
        teacher_batches.end_left(uow, batch, cost=cost if all_known else None)
    _log.info("batch_salvaged", batch=batch.id, status=remote.status, answers=len(seen), of=batch.lines)


def _answers(scene: Scene, batch: TeacherBatch, results: list[Result | None], seen: set[int]) -> Answers:
    named = {item_of(one): one for one in results if one is not None and one.fate is Fate.ANSWERED}
    with scene.runtime.database.reading() as session:
        items = batch_items.items_of(session, scene.claim, batch.id, named.keys())
    answers = Answers()
    for number, item in items.items():
        if number not in seen and not item.is_done:
            seen.add(number)
            answers.take(scene, item, named[number])
    return answers


def _age(batch: TeacherBatch) -> timedelta:
    return utcnow() - batch.created_at


def _forget(runtime: Runtime, batch: TeacherBatch) -> None:
    with runtime.database.transaction() as uow:
        teacher_batches.end_left(uow, batch)
