"""Databases for tests, both made by the migrations: an SQLite file a test, a real Postgres database a worker."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import URL, create_engine, make_url, text

from core.db.base import Base
from core.db.session import Database
from migrations.run import upgrade
from tests import services

# How long one example takes says how busy the machine is, not whether the code is right.
settings.register_profile("unhurried", parent=settings.default, deadline=None)
settings.load_profile("unhurried")

# Postgres and Redis are found or started once for a run.
pytest_configure = services.pytest_configure
pytest_unconfigure = services.pytest_unconfigure


@pytest.fixture(scope="session")
def postgres_server() -> URL:
    """Where databases may be created. Without one its tests are skipped, and fail where CI says it must be there."""
    return make_url(services.postgres_url())


@pytest.fixture(scope="session")
def postgres_url(postgres_server: URL, worker_id: str) -> Iterator[str]:
    """An up-to-date Postgres database of this test process alone. Tests empty it, see `postgres`."""
    name = f"causeway_test_{os.getpid()}_{worker_id}"
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
        # Tests crash no machine: waiting for the disk proves nothing here.
        connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
    url = postgres_server.set(database=name).render_as_string(hide_password=False)
    upgrade(url)
    yield url
    with admin.connect() as connection:
        connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    admin.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An up-to-date, empty SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "causeway.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Database]:
    """A Postgres database, empty."""
    database = Database(postgres_url)
    yield database
    with database.engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):  # faster than TRUNCATE, which makes new files
            connection.execute(table.delete())
    database.dispose()


@pytest.fixture
def sqlite(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """An SQLite database, empty."""
    path = tmp_path / "causeway.db"
    shutil.copyfile(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """Each database in turn: what holds on one must hold on the other."""
    found: Database = request.getfixturevalue(request.param)
    return found
