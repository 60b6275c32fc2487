"""What a teacher said about each example, and what of it could be found in the text."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import Reader, Reading
from api.errors import documented
from api.pages import HIGHEST, Cursor, Page, ShortLimit, after_id, page_of
from api.schemas.annotations import AnnotationView, annotation_view
from api.schemas.fields import Id
from core import labelled_items
from core.domain.annotation import Outcome
from core.errors import InvalidInput
from core.labelled_items import ItemFilter, Order, Place, place_of
from core.labels import LabelledItem

router = APIRouter(prefix="/v1/annotations", tags=["annotations"])


@router.get("", summary="List the annotations of a job", responses=documented(404))
def list_annotations(
    session: Reading,
    me: Reader,
    job_id: Annotated[Id, Query(description="An annotation job.")],
    outcome: Annotated[Outcome | None, Query(description="Only items with this outcome.")] = None,
    unresolved: Annotated[bool, Query(description="Only items with a phrase that was not found.")] = False,
    reviewed: Annotated[bool | None, Query(description="Only items whose example was, or was not, reviewed.")] = None,
    order: Annotated[Order, Query(description="What comes first.")] = Order.EXAMPLE,
    limit: ShortLimit = 50,
    cursor: Cursor = None,
) -> Page[AnnotationView]:
    """Each with its spans, the unresolved phrases and their reasons; in the order of the examples, or of `confidence`,
    the least confident first.
    """
    rows = labelled_items.page(
        session,
        tenant_id=me.tenant_id,
        job_id=job_id,
        only=ItemFilter(outcome, unresolved, reviewed),
        order=order,
        after=_place(cursor, order),
        limit=limit + 1,
    )
    return page_of(rows, limit, _list(order), lambda item: _position(item, order), annotation_view)


def _list(order: Order) -> str:
    return f"annotations-by-{order}"


def _position(item: LabelledItem, order: Order) -> str:
    return " ".join(map(repr, place_of(item.annotation, order)))


def _place(cursor: str | None, order: Order) -> Place:
    """Inverse of _position."""
    position = after_id(cursor, _list(order))
    if position is None:
        return ()
    *confidences, number = position.split(" ")
    try:
        place = (*map(float, confidences), int(number))
    except ValueError as exc:
        raise _not_a_cursor() from exc
    known = len(confidences) == (order is Order.CONFIDENCE) and all(0 <= value <= 2 for value in place[:-1])
    if not (known and 0 <= place[-1] <= HIGHEST):
        raise _not_a_cursor()
    return place


def _not_a_cursor() -> InvalidInput:
    return InvalidInput("cursor: not a cursor of this list", field="cursor")
