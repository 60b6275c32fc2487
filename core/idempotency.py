"""Idempotency keys: the answer of a creating request is stored in the same transaction as its effect.

A repetition is given the stored answer. What failed was rolled back, answer and all, and may simply be tried again.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select

from core.db.models import IdempotencyKey
from core.db.session import UnitOfWork
from core.errors import Conflict, IdempotencyMismatch


@dataclass(frozen=True, slots=True)
class Answer:
    """What a creating request answers: everything needed to answer it again."""

    status: int
    body: str
    headers: dict[str, str]
    replayed: bool = False


def once(uow: UnitOfWork, *, tenant_id: str, key: str, request_sha256: str, effect: Callable[[], Answer]) -> Answer:
    """The answer of `effect`, which runs for the first request with this key only.

    Parameters
    ----------
    request_sha256
        Of everything that makes the request what it is: method, path, query and body.
    effect
        Runs inside the transaction of `uow`; when it raises, nothing is remembered.

    Raises
    ------
    IdempotencyMismatch
        When the key came with another request before.
    Conflict
        When the first request with this key is still being worked on.
    """
    if not _take_turn(uow, tenant_id, key):
        raise Conflict("a request with this Idempotency-Key is being worked on: ask again", retry_after=1)
    known = uow.session.get(IdempotencyKey, (tenant_id, key))
    if known is not None:
        if known.request_sha256 != request_sha256:
            raise IdempotencyMismatch("this Idempotency-Key was used for another request: take a new one")
        return Answer(known.status, known.body, known.headers, replayed=True)
    answer = effect()
    uow.session.add(
        IdempotencyKey(
            tenant_id=tenant_id,
            key=key,
            request_sha256=request_sha256,
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
        )
    )
    return answer


def _take_turn(uow: UnitOfWork, tenant_id: str, key: str) -> bool:
    """Whether this transaction is alone with the key until it ends. SQLite has one writer at a time anyway."""
    if not uow.on_postgres:
        return True
    lock = func.hashtextextended(f"{tenant_id}\n{key}", 0)
    return bool(uow.session.scalar(select(func.pg_try_advisory_xact_lock(lock))))
