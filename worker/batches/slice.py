"""One slice of an annotation job in batch mode. Between slices the job waits in the database and holds no worker."""

from dataclasses import dataclass

import structlog

from annotator.prior import prior_from_json
from annotator.teachers.batch_endpoint import open_batch_endpoint
from core import annotation_items, budgets, leases, teacher_batches
from core.annotation_items import Asked
from core.db.models import TeacherBatch
from core.domain.annotation import TeacherConfig
from core.domain.batches import BatchEnding, fruitless_rounds
from core.domain.lifecycle import JobState
from core.domain.spending import Cost
from core.errors import TeacherUnreachable
from core.leases import Claim
from worker.batches.attending import attend
from worker.batches.scene import Scene
from worker.batches.sending import send
from worker.heart import Heart
from worker.measured import against_gold
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)

_LONGEST_WAIT = 600.0  # seconds
_MOST_FAILURES = 40  # to reach an endpoint in a row: some hours, for what was paid waits there


@dataclass(slots=True)
class _Round:
    """How a slice went."""

    held_up: bool = False  # something went wrong that time may mend: send nothing now, and wait longer
    failures: int = 0  # to reach the endpoint, in a row
    at_least: float = 0.0  # seconds that the endpoint asks us to stay away
    refused: Cost | None = None  # a question that the budget does not hold


def label_in_batches(runtime: Runtime, claim: Claim, heart: Heart, asked: Asked, config: TeacherConfig) -> None:
    """Look after the job's batches, send what is missing, and end, pause or release the job.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    TeacherUnreachable, TeacherRejected, BatchRejected, BatchStuck
        When the job cannot be finished; what was answered is stored.
    """
    with open_batch_endpoint(config) as endpoint:
        scene = Scene(runtime, claim, heart, config, asked, prior_from_json(asked.prior), endpoint)
        done = _Round()
        _look_after(scene, done)
        if not done.held_up and not scene.over():
            _send(scene, done)
    _let_go(scene, done)


def _look_after(scene: Scene, done: _Round) -> None:
    with scene.runtime.database.reading() as session:
        batches = teacher_batches.open_batches(session, scene.claim)
    for batch in batches:
        if scene.over():
            return
        try:
            ending = attend(scene, batch)
        except TeacherUnreachable as exc:
            _failed(scene, batch, exc)
            done.held_up, done.failures = True, batch.failures + 1
            done.at_least = exc.facts.get("retry_after", 0.0)
            return  # the others are at the same endpoint
        done.held_up |= ending in (BatchEnding.BARREN, BatchEnding.CROWDED)


def _failed(scene: Scene, batch: TeacherBatch, error: TeacherUnreachable) -> None:
    if batch.failures + 1 >= _MOST_FAILURES:
        raise error
    _log.warning("batch_out_of_reach", batch=batch.id, reason=error.message)
    with scene.runtime.database.transaction() as uow:
        teacher_batches.record_failure(uow, scene.claim, batch.id)


def _send(scene: Scene, done: _Round) -> None:
    try:
        sent = send(scene)
        done.refused, done.held_up = sent.refused, sent.crowded
    except TeacherUnreachable as exc:
        _log.warning("batch_not_sent", reason=exc.message)
        done.held_up, done.at_least = True, exc.facts.get("retry_after", 0.0)


def _let_go(scene: Scene, done: _Round) -> None:
    claim = scene.claim
    with scene.runtime.database.transaction() as uow:
        opened = teacher_batches.open_batches(uow.session, claim)
        if scene.heart.cancelled.is_set():
            state = str(leases.finish(uow, claim, JobState.CANCELLED).state)
        elif not opened and annotation_items.is_done(uow.session, claim):
            measured = against_gold(uow.session, claim)
            state = str(annotation_items.complete(uow, claim, measured=measured).state)
        elif scene.runtime.draining.is_set():
            leases.release(uow, claim)
            state = "released"
        elif not opened and not done.held_up and done.refused is not None:
            state = str(budgets.pause(uow, claim, done.refused).state)
        elif opened or done.held_up:
            history = [teacher_batches.as_ended(batch) for batch in teacher_batches.history(uow.session, claim)]
            rounds = max(fruitless_rounds(history, ending) for ending in (BatchEnding.BARREN, BatchEnding.CROWDED))
            wait = _wait(scene, max(rounds, done.failures) if done.held_up else 0)
            leases.release(uow, claim, wait=max(wait, done.at_least))
            state = "waiting"
        else:
            leases.release(uow, claim)
            state = "released"
    _log.info("batch_slice_ended", open=len(opened), state=state)


def _wait(scene: Scene, failures: int) -> float:
    poll = scene.runtime.settings.jobs.batch_poll
    return max(poll, min(_LONGEST_WAIT, poll * 2.0**failures))
