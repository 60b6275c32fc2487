from datetime import timedelta

import pytest

from core.db.base import utcnow
from core.db.models import ApiKey
from core.db.session import Database
from core.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from core.keys import Scope, authenticate, create_key, list_keys, revoke_key


@pytest.fixture
def key(database: Database) -> tuple[ApiKey, str]:
    with database.transaction() as uow:
        return create_key(uow, tenant_id="acme", name="laptop")


def test_a_key_is_recognised_by_its_secret_alone(database: Database, key: tuple[ApiKey, str]) -> None:
    row, secret = key
    with database.reading() as session:
        principal = authenticate(session, secret)
    assert (principal.tenant_id, principal.key_id, principal.scopes) == ("acme", row.id, frozenset(Scope))


def test_the_secret_is_stored_nowhere(database: Database, key: tuple[ApiKey, str]) -> None:
    row, secret = key
    prefix, body = secret.removeprefix("cw_").split("_")
    assert len(bytes.fromhex(body)) * 8 == 256
    stored = [str(getattr(row, column.name)) for column in ApiKey.__table__.columns]
    assert prefix in stored
    assert not any(body in value for value in stored)


@pytest.mark.parametrize("change", ["wrong", "unknown", "malformed", "empty", "surrogate", "expired", "revoked"])
def test_every_refusal_reads_the_same(database: Database, key: tuple[ApiKey, str], change: str) -> None:
    row, secret = key
    sent = {
        "wrong": secret[:-1] + ("0" if secret[-1] != "0" else "1"),
        "unknown": "cw_" + "0" * 12 + "_" + "0" * 64,
        "malformed": secret.upper(),
        "empty": "",
        "surrogate": "\udcff",
    }.get(change, secret)
    with database.transaction() as uow:
        stored = uow.session.get_one(ApiKey, row.id)
        if change == "expired":
            stored.expires_at = utcnow() - timedelta(seconds=1)
        if change == "revoked":
            revoke_key(uow, key_id=row.id)
    with database.reading() as session, pytest.raises(Unauthenticated) as caught:
        authenticate(session, sent)
    assert caught.value.message == "no valid API key: send it as 'Authorization: Bearer cw_...'"
    assert caught.value.facts == {}


def test_a_key_that_has_not_expired_yet_is_good(database: Database) -> None:
    with database.transaction() as uow:
        _, secret = create_key(uow, tenant_id="acme", name="ci", expires_at=utcnow() + timedelta(minutes=1))
    with database.reading() as session:
        assert authenticate(session, secret).tenant_id == "acme"


def test_scopes_are_all_that_a_key_may_do(database: Database) -> None:
    with database.transaction() as uow:
        _, secret = create_key(uow, tenant_id="acme", name="dashboard", scopes=[Scope.READ])
    with database.reading() as session:
        principal = authenticate(session, secret)
    principal.require(Scope.READ)
    with pytest.raises(Forbidden, match="write"):
        principal.require(Scope.WRITE)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("tenant_id", {"tenant_id": ""}),
        ("name", {"name": ""}),
        ("scopes", {"scopes": []}),
        ("expires_at", {"expires_at": utcnow()}),
    ],
)
def test_a_key_nobody_could_use_is_refused(sqlite: Database, field: str, change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught, sqlite.transaction() as uow:
        create_key(uow, **({"tenant_id": "acme", "name": "laptop"} | change))  # type: ignore[arg-type]
    assert caught.value.facts["field"] == field


def test_keys_are_listed_by_tenant_and_revoked_for_good(database: Database, key: tuple[ApiKey, str]) -> None:
    row, _ = key
    with database.transaction() as uow:
        create_key(uow, tenant_id="umbrella", name="theirs")
    with database.transaction() as uow:
        first = revoke_key(uow, key_id=row.id).revoked_at
    with database.transaction() as uow:
        assert revoke_key(uow, key_id=row.id).revoked_at == first
        with pytest.raises(NotFound):
            revoke_key(uow, key_id="key_none")
    with database.reading() as session:
        assert [k.id for k in list_keys(session, tenant_id="acme")] == [row.id]
        assert len(list_keys(session)) == 2
