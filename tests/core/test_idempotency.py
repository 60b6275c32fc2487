import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import func, select

from core import datasets, idempotency
from core.db.models import Dataset
from core.db.session import Database, UnitOfWork
from core.errors import Conflict, IdempotencyMismatch
from core.idempotency import Answer

BODY = '{"name": "x", "id": 1}'


def effect(uow: UnitOfWork) -> Answer:
    datasets.create(uow, tenant_id="acme", name="x")
    return Answer(201, BODY, {"Location": "/v1/datasets/x"})


def post(database: Database, *, key: str = "k", sha256: str = "a", tenant_id: str = "acme") -> Answer:
    with database.transaction() as uow:
        return idempotency.once(uow, tenant_id=tenant_id, key=key, request_sha256=sha256, effect=partial(effect, uow))


def made(database: Database) -> int | None:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(Dataset))


def test_a_repetition_gets_the_first_answer_to_the_byte(database: Database) -> None:
    first, second = post(database), post(database)
    assert not first.replayed
    assert second == Answer(201, BODY, {"Location": "/v1/datasets/x"}, replayed=True)
    assert made(database) == 1


def test_another_request_under_the_same_key_is_refused(database: Database) -> None:
    post(database)
    with pytest.raises(IdempotencyMismatch):
        post(database, sha256="b")
    assert made(database) == 1


def test_keys_are_the_tenants_own(database: Database) -> None:
    post(database)
    assert not post(database, tenant_id="umbrella").replayed
    assert not post(database, key="other").replayed
    assert made(database) == 3


def test_what_failed_is_not_remembered(database: Database) -> None:
    def fail() -> Answer:
        raise Conflict("no")

    with pytest.raises(Conflict), database.transaction() as uow:
        idempotency.once(uow, tenant_id="acme", key="k", request_sha256="a", effect=fail)
    assert not post(database).replayed


def test_while_the_first_is_at_work_the_second_is_told_so(postgres: Database) -> None:
    working, finish = threading.Event(), threading.Event()

    def slow() -> Answer:
        working.set()
        assert finish.wait(30)
        return Answer(201, BODY, {})

    def first() -> Answer:
        with postgres.transaction() as uow:
            return idempotency.once(uow, tenant_id="acme", key="k", request_sha256="a", effect=slow)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first)
        assert working.wait(30)
        with pytest.raises(Conflict) as caught:
            post(postgres)
        assert caught.value.facts == {"retry_after": 1}
        finish.set()
        running.result()
    assert post(postgres).replayed


def test_fifty_at_once_make_one(database: Database) -> None:
    def attempt(_: int) -> str:
        try:
            return "replayed" if post(database).replayed else "made"
        except Conflict:
            return "in flight"

    with ThreadPoolExecutor(16) as pool:
        seen = Counter(pool.map(attempt, range(50)))
    assert seen["made"] == 1
    assert made(database) == 1
