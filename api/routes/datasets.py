"""Datasets."""

from http import HTTPStatus

from fastapi import APIRouter, Response

from api.deps import Reader, Reading, Writer, Writing
from api.errors import documented
from api.once import Once, created
from api.pages import Cursor, Limit, Page, after_id, page_of
from api.schemas.datasets import DatasetIn, DatasetView, dataset_view
from api.schemas.fields import PathId
from core import datasets
from core.idempotency import Answer

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=DatasetView,
    summary="Create an empty dataset",
    responses=documented(409),
)
def create_dataset(body: DatasetIn, uow: Writing, me: Writer, once: Once) -> Response:
    """Names need not be unique; the id is what counts."""

    def effect() -> Answer:
        dataset = datasets.create(uow, tenant_id=me.tenant_id, name=body.name)
        return created(dataset_view(dataset), f"/v1/datasets/{dataset.id}")

    return once(effect)


@router.get("", summary="List datasets, newest first")
def list_datasets(session: Reading, me: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[DatasetView]:
    """In pages."""
    after = after_id(cursor, "datasets")
    rows = datasets.list_datasets(session, tenant_id=me.tenant_id, after=after, limit=limit + 1)
    return page_of(rows, limit, "datasets", lambda dataset: dataset.id, dataset_view)


@router.get("/{dataset_id}", summary="Show a dataset", responses=documented(404))
def get_dataset(dataset_id: PathId, session: Reading, me: Reader) -> DatasetView:
    """With the number of examples in each split."""
    return dataset_view(datasets.get(session, tenant_id=me.tenant_id, dataset_id=dataset_id))


@router.delete(
    "/{dataset_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete a dataset with its examples",
    responses=documented(404, 409),
)
def delete_dataset(dataset_id: PathId, uow: Writing, me: Writer) -> None:
    """Refused while a job that is not finished uses it. Labels go with their examples; adapters stay."""
    datasets.remove(uow, tenant_id=me.tenant_id, dataset_id=dataset_id)
