"""What Alembic runs for every command. It is handed an open connection, see migrations/run.py."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy.types import JSON, BigInteger

from core.db import models  # noqa: F401 (fills Base.metadata)
from core.db.base import Base, Timestamp


def _render(kind: str, thing: Any, _autogen: AutogenContext) -> str | Literal[False]:
    """Column types by their frozen names, so that an old migration does not change with today's models."""
    if kind != "type":
        return False
    if isinstance(thing, Timestamp):
        return "types.TIMESTAMP"
    if isinstance(thing, JSON):
        return "types.JSON"
    if isinstance(thing, BigInteger) and "sqlite" in thing._variant_mapping:  # noqa: SLF001 (no public way to ask)
        return "types.SERIAL"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_item=_render,
    render_as_batch=True,  # SQLite cannot alter a column or drop a constraint in place
)
with context.begin_transaction():
    context.run_migrations()
