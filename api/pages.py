"""Lists in pages. A cursor is opaque: it names the last entry of a page and the list it belongs to."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from core.errors import InvalidInput

View = TypeVar("View", bound=BaseModel)
Row = TypeVar("Row")

HIGHEST = 2**63 - 1  # of the whole numbers of a database

Limit = Annotated[int, Query(ge=1, le=1000, description="The most entries a page may have.")]
# For entries that hold users' texts: a page of them is built in memory.
ShortLimit = Annotated[int, Query(ge=1, le=200, description="The most entries a page may have.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before.")]


class Page(BaseModel, Generic[View]):
    """A part of a list. Without `next` it is the last one."""

    items: list[View]
    next: str | None = Field(None, description="Pass it as `cursor` to get the page after this one.")


def page_of(
    rows: Sequence[Row], limit: int, kind: str, position: Callable[[Row], str | int], view: Callable[[Row], View]
) -> Page[View]:
    """The page of a list of `kind`; `rows` were asked for with limit + 1, so one too many says that there are more."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(items=[view(row) for row in shown], next=_encode(kind, position(shown[-1])) if more else None)


def after_id(cursor: str | None, kind: str) -> str | None:
    """The id that a cursor of a list of `kind` stands for."""
    if cursor is None:
        return None
    position = _decode(cursor, kind)
    if not isinstance(position, str):
        raise _unreadable()
    return position


def after_number(cursor: str | None, kind: str) -> int:
    """The position that a cursor of a list of `kind` stands for; 0 without one."""
    if cursor is None:
        return 0
    position = _decode(cursor, kind)
    if type(position) is not int or not 0 <= position <= HIGHEST:
        raise _unreadable()
    return position


def _encode(kind: str, position: str | int) -> str:
    return base64.urlsafe_b64encode(json.dumps([kind, position]).encode()).decode().rstrip("=")


def _decode(cursor: str, kind: str) -> object:
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as exc:
        raise _unreadable() from exc
    if not isinstance(found, list) or len(found) != 2 or found[0] != kind:
        raise _unreadable()
    position: object = found[1]
    return position


def _unreadable() -> InvalidInput:
    return InvalidInput("cursor: not a cursor of this list", field="cursor")
