import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, create_engine, inspect, text

from core.db import models  # noqa: F401 (fills Base.metadata)
from core.db.base import Base
from core.db.session import Database
from core.errors import Unavailable
from migrations import run
from migrations.run import downgrade, upgrade

# Everything a table is made of, as Postgres itself tells it: column types, defaults, constraints, indexes.
_POSTGRES_SHAPE = """
SELECT 'column', table_name, column_name,
       concat_ws(' ', data_type, character_maximum_length, is_nullable, regexp_replace(column_default, '.*\\.', ''))
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', tablename::text, indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""
_SQLITE_SHAPE = "SELECT type, tbl_name, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"


_OLD_ROWS = """
INSERT INTO datasets (id, tenant_id, name, splits, created_at) VALUES ('ds_1', 't', 'n', '{}', '2026-01-01');
INSERT INTO examples (tenant_id, dataset_id, split, key, digest, input, target, choices, relations, unresolved)
VALUES ('t', 'ds_1', 'train', 'k', 'd', 'a', 'b', '[]', '[]', '[]');
INSERT INTO jobs (id, tenant_id, kind, state, dataset_id, request, total, done, progress, epoch, attempts, cursor,
                  version, created_at)
VALUES ('an_1', 't', 'annotation', 'queued', 'ds_1', '{}', 1, 0, '{}', 0, 0, 0, 1, '2026-01-01');
INSERT INTO annotations (tenant_id, job_id, example_position, unresolved_count, prompt_tokens, completion_tokens)
SELECT 't', 'an_1', position, 0, 0, 0 FROM examples
"""


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a single table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: URL = request.getfixturevalue("postgres_server")
    name = f"causeway_migrations_{os.getpid()}_{request.getfixturevalue('worker_id')}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    admin.dispose()


def test_the_migrations_make_what_the_models_say(empty_url: str) -> None:
    database = Database(empty_url)
    with database.engine.begin() as connection:
        Base.metadata.create_all(connection)
        wanted = _shape(connection)
        Base.metadata.drop_all(connection)
    upgrade(empty_url)
    with database.engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        found = _shape(connection)
    database.dispose()
    assert found == wanted
    assert {entry[1] for entry in wanted} == {table.name for table in Base.metadata.sorted_tables}


def test_down_and_up_again_leaves_nothing_behind(empty_url: str) -> None:
    upgrade(empty_url)
    downgrade(empty_url, "base")
    database = Database(empty_url)
    with database.engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    database.dispose()
    upgrade(empty_url)
    upgrade(empty_url)


def test_a_step_up_keeps_what_is_there(empty_url: str) -> None:
    upgrade(empty_url, "0001")
    with _opened(empty_url) as connection:
        for statement in _OLD_ROWS.split(";"):
            connection.execute(text(statement))
    upgrade(empty_url)
    with _opened(empty_url) as connection:
        assert connection.execute(text("SELECT gold, confidence FROM examples, annotations")).all() == [(False, None)]
    downgrade(empty_url, "0001")
    with _opened(empty_url) as connection:
        assert connection.execute(text("SELECT job_id FROM annotations")).all() == [("an_1",)]


def test_two_migrators_take_turns(empty_url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(upgrade, empty_url) for _ in range(2)]:
            done.result()


def test_a_locked_table_is_not_waited_for(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_LOCK_TIMEOUT", "50ms")
    with postgres.engine.begin() as connection:
        connection.execute(text("LOCK TABLE jobs IN ACCESS SHARE MODE"))
        with pytest.raises(Unavailable, match="locked"):
            downgrade(postgres.engine.url.render_as_string(hide_password=False), "base")


def test_a_database_out_of_reach_is_said_to_be() -> None:
    with pytest.raises(Unavailable):
        upgrade("postgresql+psycopg://postgres@127.0.0.1:1/none")


@contextmanager
def _opened(url: str) -> Iterator[Connection]:
    database = Database(url)
    with database.engine.begin() as connection:
        yield connection
    database.dispose()


def _shape(connection: Connection) -> set[tuple[str, ...]]:
    sql = _POSTGRES_SHAPE if connection.dialect.name == "postgresql" else _SQLITE_SHAPE
    rows = connection.execute(text(sql))
    return {(kind, table, name, _plain(shape)) for kind, table, name, shape in rows if table != "alembic_version"}


def _plain(statement: str) -> str:
    """SQLite keeps a statement as it was typed: quotes, commas and the order of its lines do not count."""
    return "\n".join(
        sorted(part.strip(" \t,)(") for part in re.split("\n|, ", statement.replace('"', "")) if part.strip())
    )
