"""What is not in any batch yet goes into new ones: as much as the settings, the endpoint and the budget allow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from annotator.annotate import unfit_to_ask
from annotator.batch_items import Question, given_up, read_cached
from annotator.teachers.batch_endpoint import NotAccepted
from annotator.teachers.batch_file import BatchFile, open_batch_file
from annotator.teachers.batch_lines import Form, form_from_json, request_line
from annotator.wire import annotation_to_json
from core import annotation_items, batch_items, budgets, leases, teacher_batches
from core.batch_items import BatchItem
from core.db.models import TeacherBatch
from core.domain.batches import BatchEnding, BatchState, fruitless_rounds, room
from core.domain.spending import Budget, Cost
from core.errors import BatchStuck, LeaseLost, TeacherRejected, TeacherUnreachable
from worker.batches.collecting import not_accepted
from worker.batches.scene import Scene
from worker.cache import reply_from_json

_log = structlog.get_logger(__name__)

_WINDOW = 500  # items read at a time
_MOST_OPEN = 20  # batches of a job at once
_MOST_BARREN = 5  # rounds in a row
_MOST_CROWDED = 40  # the same: others may fill the endpoint's queue for hours


@dataclass(frozen=True, slots=True)
class Sent:
    """Why no more was sent; where neither says so, because nothing is missing, or no room is left."""

    refused: Cost | None = None  # a question that the budget does not hold
    crowded: bool = False  # the endpoint would not take so much now


@dataclass(slots=True)
class _Filled:
    """What stands in a file."""

    items: list[int] = field(default_factory=list)
    most: Cost = field(default_factory=Cost)  # that they may cost
    refused: Cost | None = None  # of the next one, which does not fit the budget
    last: int = 0  # the item looked at last


@dataclass(frozen=True, slots=True)
class _Rest:
    """What is left of a job's budget."""

    budget: Budget
    taken: Cost

    def holds(self, cost: Cost) -> bool:
        return self.budget.holds(self.taken + cost)


def send(scene: Scene) -> Sent:
    """Put the job's free items into batches.

    Items whose reply is remembered, and those no teacher need be asked about, get their label without.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    BatchStuck
        When too many rounds in a row brought nothing.
    TeacherUnreachable
        When the endpoint could not be told, or did not say that it was.
    TeacherRejected, BatchRejected
        When it will take no batch, or not this one.
    """
    while not scene.over():
        with scene.runtime.database.reading() as session:
            past = teacher_batches.history(session, scene.claim)
            opened = len(teacher_batches.open_batches(session, scene.claim))
        _check_progress(past)
        most_lines = room(map(teacher_batches.as_ended, past))
        if opened >= (_MOST_OPEN if most_lines is None else 1):
            return Sent()
        form = form_from_json(past[0].form) if past else _form_of_calls(scene)
        bound = min(scene.config.batch_lines, most_lines or scene.config.batch_lines)
        folder = scene.runtime.settings.storage.spool
        with open_batch_file(folder, most_lines=bound, most_bytes=scene.config.batch_bytes) as file:
            filled = _fill(scene, file, form)
            if not filled.items or scene.over():
                return Sent(refused=filled.refused)
            if _send_one(scene, file, filled, form) is BatchEnding.CROWDED:
                return Sent(crowded=True)
    return Sent()


def _check_progress(past: Sequence[TeacherBatch]) -> None:
    history = [teacher_batches.as_ended(batch) for batch in past]
    for ending, most in ((BatchEnding.BARREN, _MOST_BARREN), (BatchEnding.CROWDED, _MOST_CROWDED)):
        rounds = fruitless_rounds(history, ending)
        if rounds >= most:
            last = past[0].detail or past[0].remote_status
            raise BatchStuck(
                f"{rounds} batches in a row brought nothing; of the last: {last}", rounds=rounds, last=last
            )


def _form_of_calls(scene: Scene) -> Form:
    """What calls one by one have learned about how to ask this endpoint."""
    health = scene.runtime.health_of(scene.config)
    return Form(health.rung if health.rung_proven else 0, health.refused)


def _fill(scene: Scene, file: BatchFile, form: Form) -> _Filled:
    """Write the questions about free items into a file until it, or the budget, is full."""
    filled = _Filled()
    with scene.runtime.database.reading() as session:
        rest = _Rest(*budgets.account_of(session, scene.claim))
    while not scene.over():
        with scene.runtime.database.reading() as session:
            items = batch_items.free_items(session, scene.claim, after=filled.last, limit=_WINDOW)
        questions = {item.id: scene.question(item) for item in items}
        labels = _known_already(scene, questions)
        full = False
        for item in items:
            if item.id not in labels and not _add(scene, file, form, item, questions[item.id], filled, rest, labels):
                full = True
                break
            filled.last = item.id
        _store(scene, labels)
        if full or len(items) < _WINDOW:
            break
    return filled


def _add(
    scene: Scene,
    file: BatchFile,
    form: Form,
    item: BatchItem,
    question: Question,
    filled: _Filled,
    rest: _Rest,
    labels: dict[int, dict[str, Any]],
) -> bool:
    """Write one question; False when there is no room, or no money, for it. One too large for any file is given up."""
    cost = scene.price(question.most(scene.config))
    if not rest.holds(filled.most + cost):
        filled.refused = cost
        return False
    line = request_line(str(item.id), question.messages, scene.config, form)
    if len(line) > scene.config.batch_bytes:
        labels[item.id] = annotation_to_json(given_up(question, "it is larger than a whole batch may be"))
        return True
    if not file.add(line):
        return False
    filled.items.append(item.id)
    filled.most += cost
    return True


def _known_already(scene: Scene, questions: dict[int, Question]) -> dict[int, dict[str, Any]]:
    """The labels of items that need not be asked about."""
    with scene.runtime.database.reading() as session:
        keys = {question.key for question in questions.values()}
        replies = annotation_items.stored_replies(session, tenant_id=scene.claim.tenant_id, prompt_hashes=keys)
    labels = {}
    for item, question in questions.items():
        if (unfit := unfit_to_ask(question.example)) is not None:
            labels[item] = annotation_to_json(unfit)
        elif question.key in replies:
            labels[item] = annotation_to_json(read_cached(question, reply_from_json(replies[question.key])))
    return labels


def _store(scene: Scene, labels: dict[int, dict[str, Any]]) -> None:
    if labels:
        with scene.runtime.database.transaction() as uow:
            annotation_items.store_labels(uow, scene.claim, labels, items_per_second=0.0)


def _send_one(scene: Scene, file: BatchFile, filled: _Filled, form: Form) -> BatchEnding | None:
    """Write the batch down, then tell the endpoint, then write down that it has it; how it ended, if it did at once."""
    with scene.runtime.database.transaction() as uow:
        batch = teacher_batches.prepare(uow, scene.claim, items=filled.items, form=form.to_json(), most=filled.most)
    if batch is None:
        return None  # the budget was changed meanwhile
    try:
        file_id = scene.endpoint.upload(file.reread(), name=batch.id)
    except NotAccepted as exc:
        return not_accepted(scene, batch, exc)
    except (TeacherUnreachable, TeacherRejected) as exc:
        _never_made(scene, batch, exc.message)
        raise
    with scene.runtime.database.transaction() as uow:
        leases.fence(uow, scene.claim)  # a worker that was away for long must not order what another has given up
    try:
        remote = scene.endpoint.create(file_id, mark=batch.id)
    except NotAccepted as exc:
        return not_accepted(scene, batch, exc)
    except TeacherRejected as exc:
        _never_made(scene, batch, exc.message)
        raise
    try:
        with scene.runtime.database.transaction() as uow:
            teacher_batches.record_submitted(uow, scene.claim, batch.id, remote_id=remote.id, status=remote.status)
    except LeaseLost:
        _withdraw(scene, batch, remote.id)
        raise
    _log.info("batch_submitted", batch=batch.id, remote=remote.id, lines=batch.lines, bytes=file.size)
    return None


def _never_made(scene: Scene, batch: TeacherBatch, why: str) -> None:
    with scene.runtime.database.transaction() as uow:
        teacher_batches.end(uow, scene.claim, batch, ending=BatchEnding.BARREN, detail=why)


def _withdraw(scene: Scene, batch: TeacherBatch, remote_id: str) -> None:
    """Another worker has the job. If it gave this batch up, unseen, nobody would fetch what it is about to cost."""
    with scene.runtime.database.reading() as session:
        state = teacher_batches.state_of(session, batch_id=batch.id)
    if state in (None, BatchState.ENDED):
        scene.endpoint.cancel(remote_id)
