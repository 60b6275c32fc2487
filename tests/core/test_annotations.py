"""Annotation jobs asked for, worked through item by item, and read back."""

from typing import Any

import pytest

from core import annotation_items, annotations, labelled_items, leases
from core.annotation_items import RAW_REPLY_CAP, Asked
from core.db.models import AnnotationRow
from core.db.session import Database
from core.domain.annotation import Outcome
from core.domain.lifecycle import JobState
from core.domain.relations import relation_from_json
from core.errors import Conflict, InvalidInput, NotFound
from core.job_store import cancel_job
from core.jobs import JobKind
from core.labelled_items import ItemFilter
from tests import scenes


def _label_all(database: Database, job_id: str, *outcomes: str, **changed) -> leases.Claim:
    """Claim a job and give its items these outcomes, in order."""
    claim = scenes.claimed(database, job_id)
    with database.transaction() as uow:
        items = annotation_items.pending_items(uow.session, claim, after=0, limit=100)
        labels = {item.id: scenes.label(outcome, **changed) for item, outcome in zip(items, outcomes, strict=False)}
        annotation_items.store_labels(uow, claim, labels, items_per_second=2.0)
    return claim


def test_a_job_has_an_item_for_each_example_of_its_splits(database: Database) -> None:
    dataset_id = scenes.dataset(database, examples=3)
    scenes.add_examples(database, dataset_id, examples=2, split="iid")
    prior_id = scenes.prior(database)
    asked = {"tenant_id": scenes.TENANT, "dataset_id": dataset_id, "prior_id": prior_id}
    with database.transaction() as uow:
        job = annotations.submit(uow, **asked, teacher="rule", splits=["train"], name="first")
        everything = annotations.submit(uow, **asked, teacher="rule")
        plan = annotations.plan(uow.session, **asked)
    assert (job.total, everything.total, plan.items) == (3, 5, 5)
    assert plan.by_split == {"train": 3, "iid": 2}
    assert [example.text for example in plan.sample[:2]] == ["sun 00? yes", "sun 01? yes"]
    assert len(plan.sample) == 5
    assert job.request == {
        "name": "first",
        "teacher": "rule",
        "splits": ["train"],
        "votes": 1,
        "mode": "live",
        "demonstrations": None,
        "budget_tokens": None,
        "budget_usd": None,
    }
    claim = scenes.claimed(database, job.id)
    with database.reading() as session:
        first, second = annotation_items.pending_items(session, claim, after=0, limit=2)
        [third] = annotation_items.pending_items(session, claim, after=second.id, limit=2)
        assert annotation_items.asked_of(session, claim) == Asked("rule", scenes.PRIOR, 1, job.dataset_id)
    assert [item.example.id for item in (first, second, third)] == ["k0", "k1", "k2"]


@pytest.mark.parametrize(("items", "every"), [(4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_plan_is_estimated_from_a_spread_sample(
    database: Database, monkeypatch: pytest.MonkeyPatch, items: int, every: int
) -> None:
    monkeypatch.setattr(annotations, "_SAMPLE", 4)
    scenes.dataset(database, examples=3)  # positions need not begin at 1
    dataset_id = scenes.dataset(database, examples=items)
    prior_id = scenes.prior(database)
    with database.reading() as session:
        plan = annotations.plan(session, tenant_id=scenes.TENANT, dataset_id=dataset_id, prior_id=prior_id)
    assert [example.id for example in plan.sample] == [f"k{n}" for n in range(0, items, every)]
    assert plan.items == items


def test_nothing_half_done_when_a_submit_is_refused(database: Database) -> None:
    dataset_id, prior_id = scenes.dataset(database), scenes.prior(database)
    good = {"tenant_id": scenes.TENANT, "dataset_id": dataset_id, "prior_id": prior_id, "teacher": "rule"}
    for wrong, error in (
        ({"dataset_id": "ds_nothing"}, NotFound),
        ({"prior_id": "prior_nothing"}, NotFound),
        ({"tenant_id": "other"}, NotFound),
        ({"splits": ["no such split"]}, InvalidInput),
    ):
        with pytest.raises(error), database.transaction() as uow:
            annotations.submit(uow, **{**good, **wrong})
        plan = {k: v for k, v in {**good, **wrong}.items() if k != "teacher"}
        with pytest.raises(error), database.reading() as session:
            annotations.plan(session, **plan)
    assert scenes.promised(database) == []


def test_labels_are_counted_as_they_come(database: Database) -> None:
    job = scenes.annotation_job(database, examples=4)
    claim = _label_all(database, job.id, "labelled", "empty", "labelled")
    now = scenes.row(database, job.id)
    assert (now.done, now.total) == (3, 4)
    assert now.progress == {
        "outcomes": {"labelled": 2, "empty": 1},
        "prompt_tokens": 30,
        "completion_tokens": 6,
        "items_per_second": 2.0,
        "eta_seconds": 0.5,
    }
    with database.transaction() as uow:
        assert not annotation_items.is_done(uow.session, claim)
        [last] = annotation_items.pending_items(uow.session, claim, after=0, limit=10)
        annotation_items.store_labels(uow, claim, {last.id: scenes.label("refused")}, items_per_second=2.0)
        assert annotation_items.is_done(uow.session, claim)
        annotation_items.complete(uow, claim)
    now = scenes.row(database, job.id)
    assert now.state == JobState.SUCCEEDED
    assert now.result == {"outcomes": {"labelled": 2, "empty": 1, "refused": 1}, "unresolved": 0}
    assert sum(now.result["outcomes"].values()) == now.total


def test_no_teacher_sees_what_humans_said(database: Database) -> None:
    dataset_id = scenes.dataset(database, examples=1, relations=[scenes.RELATION])
    scenes.add_examples(database, dataset_id, examples=1, split="gold", relations=[scenes.RELATION], gold=True)
    prior_id = scenes.prior(database)
    with database.transaction() as uow:
        job = annotations.submit(uow, tenant_id=scenes.TENANT, dataset_id=dataset_id, prior_id=prior_id, teacher="rule")
    claim = scenes.claimed(database, job.id)
    with database.reading() as session:
        items = annotation_items.pending_items(session, claim, after=0, limit=10)
    assert [item.example.relations for item in items] == [(), ()]


def test_what_a_teacher_writes_is_kept_capped_and_storable(database: Database) -> None:
    job = scenes.annotation_job(database, examples=1)
    edge = {"effect": "a\x00b", "cause": "\ud800", "reason": "not_found", "effect_at_fault": False}
    _label_all(database, job.id, "labelled", raw_reply="\x00" + "x" * RAW_REPLY_CAP, unresolved=[edge])
    with database.reading() as session:
        [item] = labelled_items.page(session, tenant_id=scenes.TENANT, job_id=job.id)
    assert item.annotation.unresolved == [{**edge, "effect": "a\ufffdb", "cause": "\ufffd"}]
    assert item.annotation.raw_reply is not None
    assert len(item.annotation.raw_reply) == RAW_REPLY_CAP
    assert item.annotation.raw_reply.startswith("\ufffdx")


def test_pages_of_labels_by_outcome_and_by_doubt(database: Database) -> None:
    job = scenes.annotation_job(database, examples=3)
    edge = {"effect": "a", "cause": "b", "reason": "not_found", "effect_at_fault": False}
    claim = _label_all(database, job.id, "labelled", "empty")
    with database.transaction() as uow:
        [last] = annotation_items.pending_items(uow.session, claim, after=0, limit=10)
        label = scenes.label(unresolved=[edge])
        annotation_items.store_labels(uow, claim, {last.id: label}, items_per_second=1)

    def keys(after: tuple[int, ...] = (), limit: int = 100, **filters: Any) -> list[str]:
        with database.reading() as session:
            found = labelled_items.page(
                session, tenant_id=scenes.TENANT, job_id=job.id, only=ItemFilter(**filters), after=after, limit=limit
            )
        return [item.example.key for item in found]

    assert keys() == ["k0", "k1", "k2"]
    assert keys(outcome=Outcome.LABELLED) == ["k0", "k2"]
    assert keys(unresolved_only=True) == ["k2"]
    assert keys(after=(last.id - 1,), limit=1) == ["k2"]
    with database.reading() as session, pytest.raises(NotFound):
        labelled_items.page(session, tenant_id="other", job_id=job.id)


def test_an_export_has_a_line_for_every_item(database: Database) -> None:
    job = scenes.annotation_job(database, examples=2)
    _label_all(database, job.id, "labelled", "refused")
    with database.reading() as session:
        labelled, refused = labelled_items.export(session, tenant_id=scenes.TENANT, job_id=job.id)
        assert list(labelled_items.export(session, tenant_id=scenes.TENANT, job_id=job.id, split="iid")) == []
        with pytest.raises(NotFound):
            labelled_items.export(session, tenant_id="other", job_id=job.id)
    assert labelled == {
        "id": "k0",
        "input": "sun 00? ",
        "target": "yes",
        "choices": ["yes", "no"],
        "relations": [scenes.RELATION],
    }
    relation_from_json(labelled["relations"][0]).check_against(labelled["input"] + labelled["target"])
    assert refused["relations"] == []


def test_only_failed_and_cancelled_jobs_are_retried(database: Database) -> None:
    job = scenes.annotation_job(database)
    with pytest.raises(Conflict), database.transaction() as uow:
        annotations.retry(uow, tenant_id=scenes.TENANT, job_id=job.id)
    with database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=job.id)
        again = annotations.retry(uow, tenant_id=scenes.TENANT, job_id=job.id)
    assert (again.retry_of, again.total, again.request) == (job.id, job.total, job.request)
    assert again.state == JobState.QUEUED
    assert scenes.promised(database)[-1] == again.id


def test_a_reply_is_kept_once_and_for_its_tenant_alone(database: Database) -> None:
    with database.transaction() as uow:
        annotation_items.store_replies(uow, tenant_id=scenes.TENANT, replies={"h": {"text": "a\x00"}})
    with database.transaction() as uow:
        annotation_items.store_replies(uow, tenant_id=scenes.TENANT, replies={"h": {"text": "b"}, "i": {"text": "c"}})
    with database.reading() as session:
        kept, others = (
            annotation_items.stored_replies(session, tenant_id=tenant, prompt_hashes=["h", "i", "j"])
            for tenant in (scenes.TENANT, "other")
        )
    assert kept == {"h": {"text": "a\ufffd"}, "i": {"text": "c"}}
    assert others == {}


def test_deleted_examples_take_their_labels_along(database: Database) -> None:
    job = scenes.annotation_job(database)
    with database.transaction() as uow:
        uow.session.execute(AnnotationRow.__table__.delete())
    with database.reading() as session:
        assert labelled_items.page(session, tenant_id=scenes.TENANT, job_id=job.id) == []
