from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from core import datasets
from core.datasets import Added
from core.db.models import ExampleRow, Job
from core.db.session import Database
from core.db.staging import NewExample
from core.domain.ids import new_id
from core.domain.lifecycle import JobState
from core.errors import Conflict, NotFound
from core.jobs import JobKind

TENANT, OTHER = "acme", "umbrella"


def rows(*keys: str, start: int = 1, content: str = "same") -> Iterator[NewExample]:
    for line, key in enumerate(keys, start=start):
        yield NewExample(line, key, f"{key}-{content}", f"input of {key} ", "yes", '["yes", "no"]', "[]", "[]")


@pytest.fixture
def dataset_id(database: Database) -> str:
    with database.transaction() as uow:
        return datasets.create(uow, tenant_id=TENANT, name="patients").id


def add(database: Database, dataset_id: str, new: Iterator[NewExample], split: str = "train") -> Added:
    with database.transaction() as uow:
        return datasets.add_examples(uow, tenant_id=TENANT, dataset_id=dataset_id, split=split, rows=new)


def stored_keys(database: Database, dataset_id: str, **query: object) -> list[str]:
    with database.reading() as session:
        found = datasets.list_examples(session, tenant_id=TENANT, dataset_id=dataset_id, **query)  # type: ignore[arg-type]
        return [row.key for row in found]


def test_examples_keep_the_order_of_their_lines(database: Database, dataset_id: str) -> None:
    keys = [f"k{(index * 7919) % 5003}" for index in range(5003)]
    assert add(database, dataset_id, rows(*keys)) == Added(stored=5003, unchanged=0)
    assert stored_keys(database, dataset_id, limit=6000) == keys


def test_what_is_stored_is_what_was_sent(database: Database, dataset_id: str) -> None:
    text = "tab\t back\\slash \\N \n newline 🙂 \"quote\" 'single' e\u0301 \u2028"
    relations = '[{"effect": {"start": 3, "end": 5}, "causes": [{"start": 0, "end": 1}]}]'
    unresolved = '[{"effect": "a", "cause": "b", "reason": "not_found"}]'
    new = NewExample(1, "id\t1", "0" * 64, text, text, '["\\u00e9"]', relations, unresolved)
    add(database, dataset_id, iter([new]))
    with database.reading() as session:
        [row] = datasets.list_examples(session, tenant_id=TENANT, dataset_id=dataset_id)
    assert (row.key, row.input, row.target, row.choices) == ("id\t1", text, text, ["é"])
    assert row.relations == [{"effect": {"start": 3, "end": 5}, "causes": [{"start": 0, "end": 1}]}]
    assert row.unresolved == [{"effect": "a", "cause": "b", "reason": "not_found"}]


def test_an_id_posted_again_is_a_no_op_when_equal(database: Database, dataset_id: str) -> None:
    add(database, dataset_id, rows("a", "b"))
    assert add(database, dataset_id, rows("b", "c", "c")) == Added(stored=1, unchanged=2)
    assert stored_keys(database, dataset_id) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("second", "line", "key"),
    [
        (lambda: [*rows("c", "a"), *rows("b", start=3, content="new")], 3, "b"),
        (lambda: [*rows("c", "d"), *rows("c", start=3, content="new")], 3, "c"),
        (lambda: [*rows("b", "b", content="new"), *rows("a", start=3, content="new")], 1, "b"),
    ],
)
def test_an_id_with_another_content_is_named_and_nothing_is_stored(
    database: Database, dataset_id: str, second: object, line: int, key: str
) -> None:
    add(database, dataset_id, rows("a", "b"))
    with pytest.raises(Conflict, match=f"line {line}") as caught:
        add(database, dataset_id, iter(second()))  # type: ignore[operator]
    assert caught.value.facts == {"field": "id", "line": line, "id": key}
    assert stored_keys(database, dataset_id) == ["a", "b"]
    add(database, dataset_id, rows("c"))  # nothing of the failed upload is in the way


def test_a_failure_half_way_through_stores_nothing(database: Database, dataset_id: str) -> None:
    def torn() -> Iterator[NewExample]:
        yield from rows("a", "b")
        raise RuntimeError("the spool is gone")

    with pytest.raises(RuntimeError):
        add(database, dataset_id, torn())
    assert stored_keys(database, dataset_id) == []
    assert add(database, dataset_id, rows("a")) == Added(1, 0)


def test_splits_are_counted_and_filtered(database: Database, dataset_id: str) -> None:
    add(database, dataset_id, rows("a", "b", "c"))
    add(database, dataset_id, rows("d", "e"), split="iid")
    add(database, dataset_id, rows("d", "f"), split="iid")
    with database.reading() as session:
        assert datasets.get(session, tenant_id=TENANT, dataset_id=dataset_id).splits == {"train": 3, "iid": 3}
    assert stored_keys(database, dataset_id, split="iid") == ["d", "e", "f"]
    with database.reading() as session:
        page = datasets.list_examples(session, tenant_id=TENANT, dataset_id=dataset_id, limit=2)
    assert stored_keys(database, dataset_id, after=page[-1].position) == ["c", "d", "e", "f"]


def test_datasets_are_listed_newest_first_and_by_tenant(database: Database) -> None:
    with database.transaction() as uow:
        made = [datasets.create(uow, tenant_id=TENANT, name=str(n)).id for n in range(3)]
        datasets.create(uow, tenant_id=OTHER, name="theirs")
    newest_first = sorted(made, reverse=True)
    with database.reading() as session:
        listed = [d.id for d in datasets.list_datasets(session, tenant_id=TENANT)]
        rest = [d.id for d in datasets.list_datasets(session, tenant_id=TENANT, after=newest_first[0], limit=1)]
    assert listed == newest_first
    assert rest == newest_first[1:2]


def test_another_tenant_sees_and_changes_nothing(database: Database, dataset_id: str) -> None:
    add(database, dataset_id, rows("a"))
    with database.reading() as session:
        with pytest.raises(NotFound):
            datasets.get(session, tenant_id=OTHER, dataset_id=dataset_id)
        with pytest.raises(NotFound):
            datasets.list_examples(session, tenant_id=OTHER, dataset_id=dataset_id)
    with database.transaction() as uow:
        with pytest.raises(NotFound):
            datasets.remove(uow, tenant_id=OTHER, dataset_id=dataset_id)
        with pytest.raises(NotFound):
            datasets.add_examples(uow, tenant_id=OTHER, dataset_id=dataset_id, split="train", rows=rows("b"))


def test_removing_takes_the_examples_and_keeps_a_tombstone(database: Database, dataset_id: str) -> None:
    add(database, dataset_id, rows("a", "b"))
    with database.transaction() as uow:
        uow.session.add(_job(dataset_id, JobState.SUCCEEDED))
    with database.transaction() as uow:
        datasets.remove(uow, tenant_id=TENANT, dataset_id=dataset_id)
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(ExampleRow)) == 0
        assert session.scalar(select(func.count()).select_from(Job)) == 1
        assert datasets.list_datasets(session, tenant_id=TENANT) == []
        with pytest.raises(NotFound):
            datasets.get(session, tenant_id=TENANT, dataset_id=dataset_id)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING])
def test_a_dataset_in_use_cannot_be_removed(database: Database, dataset_id: str, state: JobState) -> None:
    with database.transaction() as uow:
        uow.session.add(_job(dataset_id, state))
    with pytest.raises(Conflict, match="cancel it first"), database.transaction() as uow:
        datasets.remove(uow, tenant_id=TENANT, dataset_id=dataset_id)
    with database.reading() as session:
        datasets.get(session, tenant_id=TENANT, dataset_id=dataset_id)


def _job(dataset_id: str, state: JobState) -> Job:
    return Job(
        id=new_id("an"), tenant_id=TENANT, kind=JobKind.ANNOTATION, state=state, dataset_id=dataset_id, request={}
    )
