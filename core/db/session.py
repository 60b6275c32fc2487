"""Sessions, transactions, and the outbox. The only module that commits."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import create_engine, delete, event, make_url
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session as Session
from sqlalchemy.orm import sessionmaker

from core.db.models import Job, JobEvent, OutboxRow
from core.errors import Unavailable
from core.jobs import JobKind, Nudge, Publish

_log = structlog.get_logger(__name__)


class UnitOfWork:
    """One transaction, the events it records and the nudges it promises."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._promised: list[OutboxRow] = []

    @property
    def on_postgres(self) -> bool:
        """Whether SKIP LOCKED, advisory locks and COPY are to be had."""
        return self.session.get_bind().dialect.name == "postgresql"

    def nudge(self, job: Job) -> None:
        """Promise a nudge for `job`: stored with the transaction, sent after it, by the relay if that fails."""
        row = OutboxRow(tenant_id=job.tenant_id, kind=job.kind, job_id=job.id)
        self.session.add(row)
        self._promised.append(row)

    def record(self, job: Job, kind: str, /, **data: Any) -> None:
        """Append an event to the job's history."""
        self.session.add(JobEvent(tenant_id=job.tenant_id, job_id=job.id, type=kind, data=data))

    def promised(self) -> list[tuple[int, Nudge]]:
        """Outbox ids and nudges of this transaction, for after its commit."""
        return [(row.id, Nudge(JobKind(row.kind), row.job_id)) for row in self._promised]


class Database:
    """A database, its pool of connections, and how nudges leave it."""

    def __init__(self, url: str, *, pool_size: int = 10, publish: Publish | None = None) -> None:
        self.engine = _engine(url, pool_size)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False, autoflush=True)
        self._publish = publish

    @contextmanager
    def transaction(self) -> Iterator[UnitOfWork]:
        """A read-write transaction: committed on success, then its nudges are published; rolled back on any exception.

        Raises
        ------
        Unavailable
            When the database cannot be reached.
        """
        with self._translated(), self._sessions() as session:
            uow = UnitOfWork(session)
            yield uow
            session.commit()
            promised = uow.promised()
        self._send(promised)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A read-only transaction: one snapshot on SQLite, never blocks a writer, never commits."""
        with self._translated(), self._sessions() as session:
            session.connection(execution_options={"causeway_readonly": True})
            yield session

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, PoolTimeout) as exc:  # the latter: no connection of the pool became free
            raise Unavailable("the database cannot be reached or is overloaded") from exc

    def _send(self, promised: list[tuple[int, Nudge]]) -> None:
        """Best effort: what cannot be sent now stays in the outbox for the relay."""
        if self._publish is None or not promised:
            return
        sent = []
        for outbox_id, nudge in promised:
            try:
                self._publish(nudge)
            except Unavailable as exc:
                _log.warning("nudge_not_sent", job_id=nudge.job_id, reason=exc.message)
            else:
                sent.append(outbox_id)
        if not sent:
            return
        with self._sessions() as session:
            session.execute(delete(OutboxRow).where(OutboxRow.id.in_(sent)))
            session.commit()


def _engine(url: str, pool_size: int) -> Engine:
    parsed = make_url(url)
    # A statement that fails must not take its parameters, which are user text, into a log.
    shared: dict[str, Any] = {"pool_size": pool_size, "max_overflow": pool_size, "hide_parameters": True}
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, **shared)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": 30, "check_same_thread": False}, **shared)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions on its own: _begin_sqlite decides how each one begins.
    connection.isolation_level = None
    for pragma in ("busy_timeout=30000", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    _use_wal(connection)


def _use_wal(connection: Any) -> None:
    """Switch a new file to WAL. SQLite does not wait for others that switch it, or write to it, in the same moment."""
    give_up = time.monotonic() + 30
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A writer that starts by reading cannot upgrade its lock once another has written: take the lock at once.
    readonly = connection.get_execution_options().get("causeway_readonly")
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")
