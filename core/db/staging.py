"""Examples on their way in: copied to a temporary table as fast as the database can, then judged as a whole."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Boolean, Column, Connection, Integer, MetaData, String, Table, Text, literal, select, true
from sqlalchemy.dialects import postgresql, sqlite

from core.db.base import Json
from core.db.models import ExampleRow

_BATCH = 2_000  # rows an SQLite statement
_STAGED = Table(
    "staged_examples",
    MetaData(),
    Column("line", Integer),
    Column("key", String),
    Column("digest", String),
    Column("input", Text),
    Column("target", Text),
    Column("choices", Json),
    Column("relations", Json),
    Column("unresolved", Json),
    Column("gold", Boolean),
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DROP",
)


class NewExample(NamedTuple):
    """An example as it is stored: a row of the staging table, where what is JSON there is JSON text here."""

    line: int  # 1-based, where it came from
    key: str  # the user's id, or one made for them; at most 200 characters
    digest: str  # SHA-256 of all that the user sent
    input: str
    target: str
    choices: str = "[]"
    relations: str = "[]"
    unresolved: str = "[]"
    gold: bool = False


def stage(connection: Connection, rows: Iterator[NewExample]) -> int:
    """Fill this transaction's staging table with `rows`, which are never all in memory; how many there were."""
    _STAGED.create(connection, checkfirst=False)
    return _copy(connection, rows) if connection.dialect.name == "postgresql" else _insert(connection, rows)


def move_in(connection: Connection, *, tenant_id: str, dataset_id: str, split: str) -> int:
    """Insert the staged rows whose key the dataset does not know yet, in the order of their lines; how many."""
    columns = ["key", "digest", "input", "target", "choices", "relations", "unresolved", "gold"]
    rows = (
        select(literal(tenant_id), literal(dataset_id), literal(split), *(_STAGED.c[name] for name in columns))
        .where(true())  # SQLite reads the ON of ON CONFLICT as a join without it
        .order_by(_STAGED.c.line)
    )
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(ExampleRow).from_select(["tenant_id", "dataset_id", "split", *columns], rows)
    counted = statement.on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    return connection.execute(counted).rowcount


def first_changed(connection: Connection, *, dataset_id: str) -> tuple[str, int] | None:
    """Key and line of the first staged row that differs from the stored row of its key; None when all are equal."""
    query = (
        select(_STAGED.c.key, _STAGED.c.line)
        .join(ExampleRow, (ExampleRow.key == _STAGED.c.key) & (ExampleRow.dataset_id == dataset_id))
        .where(ExampleRow.digest != _STAGED.c.digest)
        .order_by(_STAGED.c.line)
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else (found.key, found.line)


def clear(connection: Connection) -> None:
    """Drop the staging table; an SQLite connection would keep it past the transaction."""
    _STAGED.drop(connection, checkfirst=False)


def _copy(connection: Connection, rows: Iterator[NewExample]) -> int:
    cursor = connection.connection.cursor()
    count = 0
    with cursor.copy("COPY staged_examples FROM STDIN") as copy:
        for count, row in enumerate(rows, start=1):  # noqa: B007 (the last count is the number of rows)
            copy.write_row(row)
    return count


def _insert(connection: Connection, rows: Iterator[NewExample]) -> int:
    statement = "INSERT INTO staged_examples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    count = 0
    while batch := list(itertools.islice(rows, _BATCH)):
        connection.exec_driver_sql(statement, batch)
        count += len(batch)
    return count
