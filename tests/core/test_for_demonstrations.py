"""Which reviewed examples a teacher may be shown: of what is measured by, or of what is evaluated, never any."""

import pytest

from core import annotation_items, annotations, reviews, trainings
from core.db.models import Job
from core.db.session import Database
from core.domain.annotation import Decision
from core.domain.training import Method, TrainingConfig
from core.job_store import cancel_job
from core.jobs import JobKind
from core.labels import DemonstrationSource, last_review
from tests import scenes
from tests.core.test_reviews import HUMANS, TEACHERS, labelled, put


def shown(database: Database, dataset_id: str, *splits: str, until: int | None = None) -> reviews.ReviewedExamples:
    with database.reading() as session:
        last = last_review(session, tenant_id=scenes.TENANT) if until is None else until
        source = DemonstrationSource(3, splits or ("train",), last)
        return reviews.for_demonstrations(session, tenant_id=scenes.TENANT, dataset_id=dataset_id, source=source)


def keys(database: Database, dataset_id: str, *splits: str, until: int | None = None) -> list[str]:
    return [example.id for example in shown(database, dataset_id, *splits, until=until).examples]


def reviewed_everywhere(database: Database) -> str:
    """A dataset whose every example was reviewed: two of each split, and two of train that are gold."""
    dataset_id = scenes.dataset(database, examples=2)
    for split in ("iid", "ood", "more"):
        scenes.add_examples(database, dataset_id, examples=2, split=split)
    scenes.add_examples(database, dataset_id, examples=2, split="gold", relations=[scenes.RELATION], gold=True)
    job = scenes.annotation_job_on(database, dataset_id, splits=())
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        items = annotation_items.pending_items(uow.session, claim, after=0, limit=100)
        labels = {item.id: scenes.label() for item in items}
        annotation_items.store_labels(uow, claim, labels, items_per_second=1.0)
    for item in items:
        put(database, item.id, 1, decision=Decision.ACCEPTED, relations=None)
    return dataset_id


def evaluating(database: Database, dataset_id: str, *splits: str) -> Job:
    """A training job that evaluates these splits."""
    with database.transaction() as uow:
        return trainings.submit(
            uow,
            tenant_id=scenes.TENANT,
            dataset_id=dataset_id,
            base=scenes.BASE,
            config=TrainingConfig(method=Method.SFT),
            eval_splits=splits,
        )


def test_the_newest_review_of_those_there_were_counts(database: Database) -> None:
    dataset_id = scenes.dataset(database, examples=3)
    _, [first, second, third] = labelled(database, dataset_id, "labelled", "labelled", "empty")
    put(database, second, 1, HUMANS)
    put(database, first, 1, HUMANS)
    put(database, first, 2, TEACHERS)
    with database.reading() as session:
        until = last_review(session, tenant_id=scenes.TENANT)
    put(database, first, 3)
    put(database, third, 1)
    then, now = (shown(database, dataset_id, until=bound).examples for bound in (until, None))
    assert [(example.id, example.relations) for example in then] == [("k0", (TEACHERS,)), ("k1", (HUMANS,))]
    assert [(example.id, example.relations) for example in now] == [("k0", ()), ("k1", (HUMANS,)), ("k2", ())]
    assert [example.id for example in shown(database, dataset_id, until=until - 1).examples] == ["k0", "k1"]


def test_only_the_splits_that_were_named_and_never_gold(database: Database) -> None:
    dataset_id = reviewed_everywhere(database)
    assert keys(database, dataset_id) == ["k0", "k1"]
    assert keys(database, dataset_id, "more", "iid") == ["iid-0", "iid-1", "more-0", "more-1"]
    assert keys(database, dataset_id, "gold") == []


def test_never_a_split_that_any_training_evaluates(database: Database) -> None:
    dataset_id = reviewed_everywhere(database)
    everything = ("train", "iid", "ood", "more")
    evaluating(database, dataset_id, "iid")
    cancelled = evaluating(database, dataset_id, "ood", "iid")
    with database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.TRAINING, job_id=cancelled.id)
    assert keys(database, dataset_id, *everything) == ["k0", "k1", "more-0", "more-1"]
    assert shown(database, dataset_id, *everything).splits == ("train", "more")
    assert keys(database, dataset_id, "iid", "ood") == []


def test_of_no_other_dataset_and_no_other_tenant(database: Database) -> None:
    dataset_id = reviewed_everywhere(database)
    other = scenes.dataset(database, examples=2)
    assert keys(database, other) == []
    evaluating(database, reviewed_everywhere(database), "iid")  # which is no concern of this dataset
    assert keys(database, dataset_id, "iid") == ["iid-0", "iid-1"]
    with database.reading() as session:
        source = DemonstrationSource(3, ("train",), last_review(session, tenant_id=scenes.TENANT))
        found = reviews.for_demonstrations(session, tenant_id="other", dataset_id=dataset_id, source=source)
    assert found.examples == []


def test_no_more_than_fit_in_memory_those_reviewed_last(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset_id = scenes.dataset(database, examples=3)
    _, items = labelled(database, dataset_id, "labelled", "labelled", "labelled")
    for item in (items[2], items[0], items[1]):
        put(database, item, 1, HUMANS)
    monkeypatch.setattr(reviews, "_MOST_SHOWN", 2)
    assert keys(database, dataset_id) == ["k0", "k1"]
    monkeypatch.setattr(reviews, "_LONGEST_SHOWN", len("sun 00? yes") - 1)
    assert keys(database, dataset_id) == []


def test_a_job_and_its_repetition_use_the_reviews_there_were_when_it_was_asked_for(database: Database) -> None:
    dataset_id = scenes.dataset(database, examples=2)
    _, [first, second] = labelled(database, dataset_id, "labelled", "labelled")
    put(database, first, 1, HUMANS)
    with database.reading() as session:
        until = last_review(session, tenant_id=scenes.TENANT)
    source = DemonstrationSource(2, ("train", "more"))
    job = scenes.annotation_job_on(database, dataset_id, demonstrations=source)
    put(database, second, 1, HUMANS)
    with database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=job.id)
        again = annotations.retry(uow, tenant_id=scenes.TENANT, job_id=job.id)
    assert again.request["demonstrations"] == {
        "source": "reviewed",
        "k": 2,
        "splits": ["train", "more"],
        "reviews_until": until,
    }
    claim = scenes.claimed(database, again.id)
    with database.reading() as session:
        asked = annotation_items.asked_of(session, claim)
    assert asked.dataset_id == dataset_id
    assert asked.demonstrations == DemonstrationSource(2, ("train", "more"), until)
