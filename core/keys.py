"""API keys: made, listed, revoked, and recognised. A key is shown once and stored as its SHA-256."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db.base import utcnow
from core.db.models import ApiKey
from core.db.session import UnitOfWork
from core.domain.ids import new_id
from core.errors import Forbidden, InvalidInput, NotFound, Unauthenticated

_KEY = re.compile(r"cw_([0-9a-f]{12})_[0-9a-f]{64}")
_NOBODY = hashlib.sha256(b"").hexdigest()


class Scope(StrEnum):
    """What a key may do. Neither implies the other."""

    READ = "read"  # every GET
    WRITE = "write"  # whatever creates, cancels, retries or deletes


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, as far as a key tells."""

    tenant_id: str
    key_id: str
    scopes: frozenset[Scope]

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless the key has `scope`."""
        if scope not in self.scopes:
            raise Forbidden(f"this key lacks the scope {scope!r}", scope=str(scope))


def create_key(
    uow: UnitOfWork,
    *,
    tenant_id: str,
    name: str,
    scopes: Iterable[Scope] = tuple(Scope),
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key of `tenant_id` and its secret of 256 random bits, `cw_<prefix>_<secret>`, never to be seen again.

    Raises
    ------
    InvalidInput
        When the tenant, the name or the scopes are empty, or the key would have expired already.
    """
    granted = sorted(set(scopes))
    for field, value in (("tenant_id", tenant_id), ("name", name), ("scopes", granted)):
        if not value:
            raise InvalidInput(f"{field} must not be empty", field=field)
    if expires_at is not None and expires_at <= utcnow():
        raise InvalidInput("expires_at lies in the past", field="expires_at")
    prefix = secrets.token_hex(6)
    secret = f"cw_{prefix}_{secrets.token_hex(32)}"
    key = ApiKey(
        id=new_id("key"),
        tenant_id=tenant_id,
        name=name,
        prefix=prefix,
        sha256=_sha256(secret),
        scopes=[str(scope) for scope in granted],
        expires_at=expires_at,
    )
    uow.session.add(key)
    return key, secret


def list_keys(session: Session, *, tenant_id: str | None = None) -> list[ApiKey]:
    """All keys, or those of one tenant, oldest first, revoked and expired ones included."""
    query = select(ApiKey).order_by(ApiKey.id)
    if tenant_id is not None:
        query = query.where(ApiKey.tenant_id == tenant_id)
    return list(session.scalars(query))


def revoke_key(uow: UnitOfWork, *, key_id: str) -> ApiKey:
    """Make a key useless from now on. Revoking twice is harmless and keeps the first moment.

    Raises
    ------
    NotFound
        When there is no such key.
    """
    key = uow.session.get(ApiKey, key_id, with_for_update=True)
    if key is None:
        raise NotFound(f"no key {key_id}", id=key_id)
    key.revoked_at = key.revoked_at or utcnow()
    return key


def authenticate(session: Session, secret: str) -> Principal:
    """Whose key this is.

    Raises
    ------
    Unauthenticated
        When it is malformed, unknown, wrong, expired or revoked; the message never says which.
    """
    shaped = _KEY.fullmatch(secret)
    key = session.scalars(select(ApiKey).where(ApiKey.prefix == (shaped[1] if shaped else ""))).one_or_none()
    # Compared even when there is nothing to compare with: the time taken tells nobody that a prefix exists.
    genuine = hmac.compare_digest(_sha256(secret), key.sha256 if key else _NOBODY)
    if key is None or not genuine or not _in_force(key):
        raise Unauthenticated("no valid API key: send it as 'Authorization: Bearer cw_...'")
    return Principal(key.tenant_id, key.id, frozenset(Scope(scope) for scope in key.scopes))


def _in_force(key: ApiKey) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > utcnow())


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
