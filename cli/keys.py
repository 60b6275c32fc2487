"""`causeway keys`: who may use the API."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.configuration import load_settings
from cli.console import err, out
from core.db.base import utcnow
from core.db.models import ApiKey
from core.db.session import Database
from core.keys import Scope, create_key, list_keys, revoke_key

TENANT = "default"

_PIPED_WIDTH = 250  # columns

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is, or what for.")],
    tenant: Annotated[str, typer.Option(help="Whose data it opens; tenants never see each other's.")] = TENANT,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="May be repeated; neither implies the other. Default: all.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires. Default: never.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the key alone, for scripts.")] = False,
) -> None:
    """Make a key and print it. It is stored hashed and cannot be shown again."""
    expires_at = None if days is None else utcnow() + timedelta(days=days)
    with _database() as database, database.transaction() as uow:
        key, secret = create_key(uow, tenant_id=tenant, name=name, scopes=scope or tuple(Scope), expires_at=expires_at)
    if not quiet:
        err.print(f"key {key.id} of tenant {tenant}; shown once, so keep it:", markup=False)
    out.print(secret, markup=False, soft_wrap=True)


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's. Default: all.")] = None,
) -> None:
    """List keys, revoked and expired ones included. The keys themselves are not stored."""
    with _database() as database, database.reading() as session:
        keys = list_keys(session, tenant_id=tenant)
    table = Table("id", "name", "tenant", "begins with", "scopes", "created", "state")
    for key in keys:
        created = f"{key.created_at:%Y-%m-%d %H:%M}"
        table.add_row(key.id, key.name, key.tenant_id, f"cw_{key.prefix}", " ".join(key.scopes), created, _state(key))
    # A pipe has no width of its own, and a folded table cannot be searched.
    (out if out.is_terminal else Console(width=_PIPED_WIDTH)).print(table)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="As `causeway keys list` shows it.")]) -> None:
    """Make a key useless from now on."""
    with _database() as database, database.transaction() as uow:
        key = revoke_key(uow, key_id=key_id)
    err.print(f"revoked {key.id} ({key.name})", markup=False)


@contextmanager
def _database() -> Iterator[Database]:
    settings = load_settings()
    database = Database(settings.database.url)
    try:
        yield database
    finally:
        database.dispose()


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    if key.expires_at is None:
        return "valid"
    return f"{'valid until' if key.expires_at > utcnow() else 'expired'} {key.expires_at:%Y-%m-%d %H:%M}"
