"""Runs the migrations from wherever the package is installed: no alembic.ini, no working directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from core.db.session import Database
from core.errors import Unavailable

_TURN = 0xCA05E  # any constant that nobody else locks: two migrators on one database take turns
_LOCK_TIMEOUT = "2s"  # a step that cannot have its table at once must not queue all traffic behind itself
_STATEMENT_TIMEOUT = "10min"


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` up to `revision`, in one transaction; one that is there already is left alone.

    Raises
    ------
    core.errors.Unavailable
        When the database cannot be reached, or one of its tables stayed locked for too long.
    """
    with _connected(url) as connection:
        command.upgrade(config_for(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to `revision` ("base" is before the first), losing what later ones added."""
    with _connected(url) as connection:
        command.downgrade(config_for(connection), revision)


def config_for(connection: Connection) -> Config:
    """Alembic's configuration, pointing at this package's scripts and at an open connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    database = Database(url)
    try:
        with database.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
                connection.execute(text(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT}'"))
            yield connection
    except OperationalError as exc:
        raise Unavailable("the database cannot be migrated now: it is out of reach, or a table is locked") from exc
    finally:
        database.dispose()
