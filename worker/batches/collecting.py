"""A batch that ended: its results become labels, and whatever has none is free to be asked about again."""

from collections import Counter
from dataclasses import dataclass, field

import structlog

from annotator.batch_items import given_up
from annotator.teachers.batch_endpoint import Gone, NotAccepted, RemoteBatch
from annotator.teachers.batch_lines import Fate, Form, Result, form_from_json
from annotator.wire import annotation_to_json
from core import batch_items, teacher_batches
from core.batch_items import BatchItem
from core.db.models import TeacherBatch
from core.domain.batches import BatchEnding
from core.errors import BatchRejected, TeacherRejected
from worker.batches.answers import Answers, in_chunks, item_of
from worker.batches.scene import Scene

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Tally:
    """What was found in a batch's results."""

    settled: set[int] = field(default_factory=set)  # items with a result that counts, the first of each
    faults: Counter[str] = field(default_factory=Counter)  # parts of the form that questions failed for
    refused: int = 0
    malformed: int = 0  # lines that are none
    unknown: int = 0  # of no item of this batch
    doubled: int = 0
    why: str = ""  # the last reason that was given


def collect(scene: Scene, batch: TeacherBatch, remote: RemoteBatch) -> BatchEnding | None:
    """Store the results of a batch that ended and close it; None when the slice was over before that.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    TeacherUnreachable
        When its results could not be read to their end. What was read is stored.
    TeacherRejected, BatchRejected
        When the endpoint refuses every question, or the batch as a whole.
    """
    if remote.status == "failed":
        return not_accepted(scene, batch, remote.fault or NotAccepted("it does not say why", crowded=False, fault=None))
    tally, form = _Tally(), form_from_json(batch.form)
    all_there = True
    try:
        for results in in_chunks(scene.endpoint.results(remote, scene.over)):
            _store(scene, batch, form, results, tally)
            if scene.over():
                return None
    except Gone:
        all_there, tally.why = False, "its results are not there any more"
    if scene.over():
        return None  # or what was read may not be all
    return _close(scene, batch, remote, form, tally, all_known=all_there and not tally.malformed)


def not_accepted(scene: Scene, batch: TeacherBatch, refusal: NotAccepted) -> BatchEnding:
    """Close a batch that the endpoint would not have as a whole; it is asked otherwise, or less, or not at all.

    Raises
    ------
    BatchRejected
        When nothing can be done about it.
    """
    form = form_from_json(batch.form).without(refusal.fault, scene.config) if refusal.fault else None
    if form is not None:
        ending = BatchEnding.FRUITFUL
    else:
        ending = BatchEnding.CROWDED if refusal.crowded else BatchEnding.BARREN
    with scene.runtime.database.transaction() as uow:
        learned = None if form is None else form.to_json()
        teacher_batches.end(uow, scene.claim, batch, ending=ending, status="failed", form=learned, detail=refusal.why)
    if ending is BatchEnding.BARREN:
        raise BatchRejected(
            f"teacher {scene.config.name!r} will not take the batch: {refusal.why}", teacher=scene.config.name
        )
    return ending


def _store(scene: Scene, batch: TeacherBatch, form: Form, results: list[Result | None], tally: _Tally) -> None:
    """Write what some results say, in one transaction."""
    named = [(result, item_of(result)) for result in results if result is not None]
    tally.malformed += len(results) - len(named)
    with scene.runtime.database.reading() as session:
        items = batch_items.items_of(session, scene.claim, batch.id, {number for _, number in named})
    stored = Answers()
    for result, number in named:
        if number in tally.settled:
            tally.doubled += 1
        elif number not in items:
            tally.unknown += 1
        elif _settle(scene, form, items[number], result, tally, stored):
            tally.settled.add(number)
    if not stored.labels and not stored.unreadable:
        return
    with scene.runtime.database.transaction() as uow:
        batch_items.store_answers(
            uow,
            scene.claim,
            batch,
            labels=stored.labels,
            unreadable=stored.unreadable,
            replies=stored.replies,
            cost=stored.cost,
        )


def _settle(scene: Scene, form: Form, item: BatchItem, result: Result, tally: _Tally, stored: Answers) -> bool:
    """What a result makes of its item; whether that is the item's result, so that another would be one too many."""
    if result.fate is Fate.ANSWERED:
        if not item.is_done:  # else it was stored before the slice that read it came to its end
            stored.take(scene, item, result)
        return True
    tally.why = result.why
    if result.fate is Fate.UNFIT:
        if result.fault is not None and form.without(result.fault, scene.config) is not None:
            tally.faults[result.fault] += 1
            return False
        if not item.is_done:
            stored.labels[item.id] = annotation_to_json(given_up(scene.question(item), result.why))
        return True
    tally.refused += result.fate is Fate.REFUSED
    return False


def _close(
    scene: Scene, batch: TeacherBatch, remote: RemoteBatch, form: Form, tally: _Tally, *, all_known: bool
) -> BatchEnding:
    [(fault, _)] = tally.faults.most_common(1) or [("", 0)]
    taught = None if tally.settled or not fault else form.without(fault, scene.config)
    ending = BatchEnding.FRUITFUL if tally.settled or taught is not None else BatchEnding.BARREN
    with scene.runtime.database.transaction() as uow:
        teacher_batches.end(
            uow,
            scene.claim,
            batch,
            ending=ending,
            answered=len(tally.settled),
            status=remote.status,
            form=None if taught is None else taught.to_json(),
            detail=tally.why,
            all_known=all_known,
        )
    _log.info(
        "batch_ended",
        batch=batch.id,
        status=remote.status,
        settled=len(tally.settled),
        again=batch.lines - len(tally.settled),
        malformed=tally.malformed,
        unknown=tally.unknown,
        doubled=tally.doubled,
    )
    if ending is BatchEnding.BARREN and tally.refused:
        raise TeacherRejected(
            f"teacher {scene.config.name!r} refuses every question of a batch: {tally.why}", teacher=scene.config.name
        )
    return ending
