"""What a teacher said about each example, and what of it could be found in the text."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import Reader, Reading
from api.errors import documented
from api.pages import HIGHEST, Cursor, Page, ShortLimit, after_id, after_number, page_of
from api.schemas.annotations import AnnotationView, annotation_view
from api.schemas.fields import Id
from core import labelled_items
from core.domain.annotation import Outcome
from core.errors import InvalidInput
from core.labelled_items import ItemFilter
from core.labels import LabelledItem

router = APIRouter(prefix="/v1/annotations", tags=["annotations"])

_BY_CONFIDENCE = "annotations-by-confidence"


class Order(StrEnum):
    """What a list of annotations begins with."""

    EXAMPLE = "example"  # that of the first example
    CONFIDENCE = "confidence"  # the one whose votes agree least


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
    only = ItemFilter(outcome, unresolved, reviewed)
    if order is Order.CONFIDENCE:
        after = _place(after_id(cursor, _BY_CONFIDENCE))
        rows = labelled_items.page_by_confidence(
            session, tenant_id=me.tenant_id, job_id=job_id, only=only, after=after, limit=limit + 1
        )
        return page_of(rows, limit, _BY_CONFIDENCE, _cursor, annotation_view)
    rows = labelled_items.page(
        session,
        tenant_id=me.tenant_id,
        job_id=job_id,
        only=only,
        after=after_number(cursor, "annotations"),
        limit=limit + 1,
    )
    return page_of(rows, limit, "annotations", lambda item: item.annotation.id, annotation_view)


def _cursor(item: LabelledItem) -> str:
    confidence, number = labelled_items.place_by_confidence(item.annotation)
    return f"{confidence!r} {number}"


def _place(cursor: str | None) -> tuple[float, int]:
    if cursor is None:
        return labelled_items.FIRST
    confidence, _, number = cursor.partition(" ")
    try:
        place = float(confidence), int(number)
    except ValueError as exc:
        raise _not_a_cursor() from exc
    if not (0 <= place[0] <= 2 and 0 <= place[1] <= HIGHEST):
        raise _not_a_cursor()
    return place


def _not_a_cursor() -> InvalidInput:
    return InvalidInput("cursor: not a cursor of this list", field="cursor")
