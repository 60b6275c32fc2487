"""What humans decide about annotations, one at a time."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.deps import InUse, Reader, Reading, Writer, Writing
from api.errors import documented
from api.job_answers import NOT_MODIFIED, IfNoneMatch, matches
from api.pages import HIGHEST, Cursor, Page, ShortLimit, after_number, page_of
from api.schemas.annotations import AnnotationView, annotation_view
from api.schemas.reviews import ReviewIn, ReviewView, review_view
from api.spans import read_relations
from core import labelled_items, reviews
from core.errors import NotFound
from core.labels import LabelledItem, example_of

router = APIRouter(prefix="/v1/annotations", tags=["annotations"])

AnnotationId = Annotated[str, Path(max_length=40, description="As in `id`.")]


@router.get(
    "/{annotation_id}",
    response_model=AnnotationView,
    summary="Show an annotation",
    responses=NOT_MODIFIED | documented(404),
)
def get_annotation(
    annotation_id: AnnotationId, session: Reading, me: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """With an ETag, which is the version that a review has to name."""
    item = labelled_items.item(session, tenant_id=me.tenant_id, annotation_id=_number(annotation_id))
    etag = _etag(item)
    if matches(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return Response(annotation_view(item).model_dump_json(), headers={"ETag": etag}, media_type="application/json")


@router.put(
    "/{annotation_id}/review",
    response_model=AnnotationView,
    summary="Review an annotation",
    responses=documented(404, 409, 413),
)
def put_review(annotation_id: AnnotationId, body: ReviewIn, services: InUse, uow: Writing, me: Writer) -> Response:
    """Accepts or changes its relations; 409 when it is no longer at the `version` that the human saw.

    What is decided is about the example: it outranks whatever a teacher said or will say about it, in exports and in
    trainings that are started from now on. Every review is kept, with its key and its time.
    """
    number = _number(annotation_id)
    relations = None
    if body.relations is not None:
        seen = labelled_items.item(uow.session, tenant_id=me.tenant_id, annotation_id=number)
        most = services.settings.limits.relations_per_example
        relations = read_relations(body.relations, example_of(seen.example, ()).text, most=most)
    item = reviews.review(
        uow,
        tenant_id=me.tenant_id,
        key_id=me.key_id,
        annotation_id=number,
        version=body.version,
        decision=body.decision,
        relations=relations,
    )
    shown = annotation_view(item).model_dump_json()
    return Response(shown, headers={"ETag": _etag(item)}, media_type="application/json")


@router.get("/{annotation_id}/reviews", summary="List the reviews of an annotation", responses=documented(404))
def list_reviews(
    annotation_id: AnnotationId, session: Reading, me: Reader, limit: ShortLimit = 50, cursor: Cursor = None
) -> Page[ReviewView]:
    """All that were made of its example, from whatever job it was seen in, oldest first."""
    rows = reviews.history(
        session,
        tenant_id=me.tenant_id,
        annotation_id=_number(annotation_id),
        after=after_number(cursor, "reviews"),
        limit=limit + 1,
    )
    return page_of(rows, limit, "reviews", lambda review: review.number, review_view)


def _number(annotation_id: str) -> int:
    """Ids of annotations are numbers; whatever else is asked for does not exist."""
    if annotation_id.isascii() and annotation_id.isdigit() and int(annotation_id) <= HIGHEST:
        return int(annotation_id)
    raise NotFound(f"no annotation {annotation_id}", id=annotation_id)


def _etag(item: LabelledItem) -> str:
    return f'"{item.version}"'
