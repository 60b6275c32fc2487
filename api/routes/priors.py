"""Priors: posted as JSON or YAML, checked against their own demonstrations."""

import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from annotator.prior import check_prior, load_prior, prior_from_json, prior_to_json
from api.deps import Reader, Reading, Writer, Writing
from api.errors import documented
from api.once import Once, created
from api.pages import Cursor, Limit, Page, after_id, page_of
from api.schemas.fields import PathId
from api.schemas.priors import EXAMPLE, PriorView, WholePriorView, prior_view, whole_prior_view
from core import priors
from core.db.text import storable
from core.domain.annotation import Prior
from core.errors import InvalidInput
from core.idempotency import Answer

router = APIRouter(prefix="/v1/priors", tags=["priors"])

_CONTENT = {"schema": {"type": "object"}, "example": EXAMPLE}
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/yaml": _CONTENT, "application/json": _CONTENT}}
}


async def _document(request: Request) -> bytes:
    return await request.body()


def _prior(_me: Writer, request: Request, document: Annotated[bytes, Depends(_document)]) -> Prior:
    """The checked prior of a request. A dependency, so that no transaction is open while it is checked."""
    try:
        text = document.decode("utf-8-sig")
        # JSON is not quite YAML: tabs, and escaped surrogate pairs, mean something else there.
        as_json = request.headers.get("Content-Type", "").partition(";")[0].strip().endswith("json")
        prior = prior_from_json(json.loads(text)) if as_json else load_prior(text)
    except UnicodeDecodeError as exc:
        raise InvalidInput("the prior is not UTF-8", field="prior") from exc
    except (json.JSONDecodeError, RecursionError) as exc:
        raise InvalidInput("the prior is not valid JSON", field="prior") from exc
    check_prior(prior)
    if storable(prior_to_json(prior)) != prior_to_json(prior):
        raise InvalidInput("the prior has the character NUL or half of a surrogate pair in it", field="prior")
    return prior


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=PriorView,
    summary="Post a prior",
    openapi_extra=_BODY,
    responses={HTTPStatus.OK: {"model": PriorView, "description": "It was here already."}} | documented(409, 413),
)
def create_prior(prior: Annotated[Prior, Depends(_prior)], uow: Writing, me: Writer, once: Once) -> Response:
    """As YAML or JSON. Refused when a phrase of a demonstration does not occur in it, with the phrase named.

    The same name, version and content again is the same prior; another content needs a new version.
    """

    def effect() -> Answer:
        row, new = priors.create(
            uow, tenant_id=me.tenant_id, name=prior.name, version=prior.version, body=prior_to_json(prior)
        )
        status = HTTPStatus.CREATED if new else HTTPStatus.OK
        return created(prior_view(row), f"/v1/priors/{row.id}", status)

    return once(effect)


@router.get("", summary="List priors, newest first")
def list_priors(session: Reading, me: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[PriorView]:
    """In pages, without their content."""
    after = after_id(cursor, "priors")
    rows = priors.list_priors(session, tenant_id=me.tenant_id, after=after, limit=limit + 1)
    return page_of(rows, limit, "priors", lambda row: row.id, prior_view)


@router.get("/{prior_id}", summary="Show a prior", responses=documented(404))
def get_prior(prior_id: PathId, session: Reading, me: Reader) -> WholePriorView:
    """With its content."""
    return whole_prior_view(priors.get(session, tenant_id=me.tenant_id, prior_id=prior_id))
