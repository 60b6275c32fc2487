"""What a human decided about an example: stored against the version it was based on, and above every teacher."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core import annotation_items, labelled_items, reviews, training_runs, trainings
from core.db.models import Job
from core.db.session import Database
from core.domain.annotation import Decision
from core.domain.relations import Relation, relation_to_json
from core.domain.spans import Span
from core.domain.training import TrainingConfig
from core.errors import Conflict, InvalidInput, InvalidSpan, NotFound
from core.labelled_items import ItemFilter
from core.labels import LabelledItem, LabelSource
from tests import scenes

TEACHERS = Relation(Span(8, 11), (Span(0, 3),))
HUMANS = Relation(Span(8, 11), (Span(4, 6),))


def labelled(database: Database, dataset_id: str, *outcomes: str) -> tuple[Job, list[int]]:
    """A finished job over a dataset, and the ids of its items."""
    job = scenes.annotation_job_on(database, dataset_id)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        items = annotation_items.pending_items(uow.session, claim, after=0, limit=100)
        labels = {item.id: scenes.label(outcome) for item, outcome in zip(items, outcomes, strict=True)}
        annotation_items.store_labels(uow, claim, labels, items_per_second=1.0)
        annotation_items.complete(uow, claim)
    return job, [item.id for item in items]


def put(database: Database, annotation_id: int, version: int, *relations: Relation, **changed: Any) -> LabelledItem:
    asked: dict[str, Any] = {"decision": Decision.CHANGED, "relations": relations, "key_id": "key_1"}
    with database.transaction() as uow:
        return reviews.review(
            uow,
            **({"tenant_id": scenes.TENANT, "annotation_id": annotation_id, "version": version} | asked | changed),
        )


def shown(database: Database, job: Job, **filters: Any) -> list[LabelledItem]:
    with database.reading() as session:
        return labelled_items.page(session, tenant_id=scenes.TENANT, job_id=job.id, only=ItemFilter(**filters))


def exported(database: Database, job: Job) -> list[Any]:
    with database.reading() as session:
        return [line["relations"] for line in labelled_items.export(session, tenant_id=scenes.TENANT, job_id=job.id)]


def test_a_review_moves_the_version_and_keeps_its_history(database: Database) -> None:
    job, [first, second] = labelled(database, scenes.dataset(database, examples=2), "labelled", "empty")
    assert [item.version for item in shown(database, job)] == [1, 1]
    assert put(database, first, 1, decision=Decision.ACCEPTED, relations=None).relations == [TEACHERS]
    again = put(database, first, 2, HUMANS, key_id="key_2")
    assert (again.version, again.relations) == (3, [HUMANS])
    assert put(database, second, 1).relations == []
    with database.reading() as session:
        old, new = reviews.history(session, tenant_id=scenes.TENANT, annotation_id=first)
        assert reviews.history(session, tenant_id=scenes.TENANT, annotation_id=first, after=1, limit=1) == [new]
        with pytest.raises(NotFound):
            reviews.history(session, tenant_id="other", annotation_id=first)
    assert (old.number, old.decision, old.key_id, old.relations) == (
        1,
        "accepted",
        "key_1",
        [relation_to_json(TEACHERS)],
    )
    assert (new.number, new.decision, new.key_id, new.annotation_id) == (2, "changed", "key_2", first)
    assert old.at <= new.at


def test_a_stale_review_is_refused_and_leaves_nothing(database: Database) -> None:
    job, [first] = labelled(database, scenes.dataset(database, examples=1), "labelled")
    put(database, first, 1, HUMANS)
    for stale in (0, 1, 3):
        with pytest.raises(Conflict) as refused:
            put(database, first, stale)
        assert refused.value.facts == {"version": 2}
    [item] = shown(database, job)
    assert (item.version, item.relations) == (2, [HUMANS])


def test_of_two_reviews_at_once_one_is_stale(database: Database) -> None:
    _, [first] = labelled(database, scenes.dataset(database, examples=1), "labelled")

    def try_it(_: int) -> bool:
        try:
            put(database, first, 1, HUMANS)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(try_it, range(4))) == [False, False, False, True]


def test_what_does_not_fit_is_refused(database: Database) -> None:
    _, [first] = labelled(database, scenes.dataset(database, examples=1), "labelled")
    with pytest.raises(InvalidSpan):
        put(database, first, 1, Relation(Span(8, 12), (Span(0, 3),)))
    with pytest.raises(InvalidSpan):
        put(database, first, 1, Relation(Span(0, 3), (Span(8, 11),)))
    with pytest.raises(InvalidInput):
        put(database, first, 1, relations=None)
    with pytest.raises(InvalidInput):
        put(database, first, 1, HUMANS, decision=Decision.ACCEPTED)
    with pytest.raises(NotFound):
        put(database, first, 1, tenant_id="other")
    with pytest.raises(NotFound):
        put(database, first + 1000, 1)
    assert put(database, first, 1, TEACHERS, decision=Decision.ACCEPTED).version == 2


def test_without_a_label_there_is_nothing_to_review(database: Database) -> None:
    job = scenes.annotation_job(database, examples=1)
    [item] = shown(database, job)
    assert item.version == 0
    with pytest.raises(Conflict, match="no label yet"):
        put(database, item.annotation.id, 0)


def test_a_review_outranks_every_job_before_and_after_it(database: Database) -> None:
    dataset_id = scenes.dataset(database, examples=3)
    before, [first, second, _] = labelled(database, dataset_id, "labelled", "labelled", "empty")
    put(database, first, 1, HUMANS)
    put(database, second, 1)
    after, [later, _, _] = labelled(database, dataset_id, "labelled", "labelled", "labelled")
    assert exported(database, before) == [[relation_to_json(HUMANS)], [], []]
    assert exported(database, after) == [[relation_to_json(HUMANS)], [], [relation_to_json(TEACHERS)]]
    assert [item.version for item in shown(database, after)] == [2, 2, 1]
    assert [item.example.key for item in shown(database, after, reviewed=True)] == ["k0", "k1"]
    assert [item.example.key for item in shown(database, after, reviewed=False)] == ["k2"]
    assert put(database, later, 2, TEACHERS).version == 3
    assert exported(database, before)[0] == [relation_to_json(TEACHERS)]


def test_a_training_learns_the_reviews_there_were_when_it_was_asked_for(database: Database, tmp_path) -> None:
    dataset_id = scenes.dataset(database, examples=2, relations=[scenes.RELATION])
    job, [first, second] = labelled(database, dataset_id, "labelled", "labelled")
    source = LabelSource((job.id,))

    def submitted(labels: LabelSource) -> Job:
        with database.transaction() as uow:
            return trainings.submit(
                uow,
                tenant_id=scenes.TENANT,
                dataset_id=dataset_id,
                base=scenes.BASE,
                config=TrainingConfig(),
                labels=labels,
            )

    unreviewed = submitted(source)
    put(database, first, 1, HUMANS)
    reviewed = submitted(source)
    put(database, second, 1)
    assert unreviewed.labels_sha256 != reviewed.labels_sha256
    assert submitted(source).labels_sha256 != reviewed.labels_sha256
    causes = {}
    for name, training in (("unreviewed", unreviewed), ("reviewed", reviewed), ("own", submitted(LabelSource()))):
        folder = tmp_path / name
        with database.reading() as session:
            training_runs.write_run_folder(session, training, folder)
        causes[name] = [line.count('"start": 4') for line in (folder / "train.jsonl").read_text().splitlines()]
    # Not even a review made before the trainer starts fails a run, or changes what it learns from.
    assert causes == {"unreviewed": [0, 0], "reviewed": [1, 0], "own": [0, 0]}


def test_reviews_outlive_the_job_and_go_with_the_example(database: Database) -> None:
    dataset_id = scenes.dataset(database, examples=1)
    _, [first] = labelled(database, dataset_id, "labelled")
    put(database, first, 1, HUMANS)
    with database.transaction() as uow:
        uow.session.execute(Job.__table__.delete())
    job, [later] = labelled(database, dataset_id, "labelled")
    assert exported(database, job) == [[relation_to_json(HUMANS)]]
    with database.reading() as session:
        [kept] = reviews.history(session, tenant_id=scenes.TENANT, annotation_id=later)
    assert kept.annotation_id == first
