"""Keys are made, listed and revoked from the command line, and shown only once."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.keys import app
from core.db.session import Database
from core.errors import InvalidInput, NotFound, Unauthenticated
from core.keys import Principal, Scope, authenticate
from migrations.run import upgrade


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/causeway.db"
    upgrade(url)
    monkeypatch.setenv("CAUSEWAY_DATABASE__URL", url)
    return url


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def _principal(url: str, secret: str) -> Principal:
    database = Database(url)
    try:
        with database.reading() as session:
            return authenticate(session, secret)
    finally:
        database.dispose()


def test_a_key_opens_what_it_was_made_for(url: str) -> None:
    secret = _run("create", "--name", "ada", "--tenant", "acme", "--scope", "read", "--quiet").strip()
    assert _principal(url, secret).tenant_id == "acme"
    assert _principal(url, secret).scopes == {Scope.READ}


def test_by_default_a_key_may_do_everything(url: str) -> None:
    assert _principal(url, _run("create", "--name", "ada", "--quiet").strip()).scopes == set(Scope)


def test_the_list_never_shows_a_key(url: str) -> None:
    secret = _run("create", "--name", "ada", "--days", "3").strip()
    listed = _run("list")
    assert "ada" in listed
    assert "valid until" in listed
    assert secret not in listed
    assert secret.rsplit("_", 1)[0] in listed
    assert "ada" not in _run("list", "--tenant", "nobody")


def test_a_revoked_key_opens_nothing(url: str) -> None:
    secret = _run("create", "--name", "ada", "--quiet").strip()
    _run("revoke", _principal(url, secret).key_id)
    assert "revoked" in _run("list")
    with pytest.raises(Unauthenticated):
        _principal(url, secret)


def test_revoking_an_unknown_key_is_an_error(url: str) -> None:
    with pytest.raises(NotFound):
        _run("revoke", "key_unknown")


def test_a_key_needs_a_name(url: str) -> None:
    with pytest.raises(InvalidInput):
        _run("create", "--name", "")
