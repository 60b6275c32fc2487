"""Adapters on the wire."""

from typing import Any

from pydantic import BaseModel, Field

from api.schemas.fields import Moment
from core.db.models import Adapter


class AdapterView(BaseModel):
    """A finished adapter."""

    id: str = Field(examples=["ad_01jd8x3v5zq6m8k2c4r7t9w0ab"])
    name: str
    job_id: str | None = Field(description="The training job that made it, unless that was deleted.")
    method: str = Field(examples=["cat"])
    base_model: str = Field(examples=["builtin:small"])
    base_revision: str | None
    sha256: str = Field(description="Of the archive.")
    size: int = Field(description="Bytes of the archive.")
    metrics: dict[str, Any] = Field(examples=[{"ood": {"accuracy": 0.96, "balanced_accuracy": 0.95}}])
    manifest: dict[str, Any] = Field(description="The files of the archive with their sums.")
    created_at: Moment
    links: dict[str, str] = Field(examples=[{"download": "/v1/adapters/ad_01jd/download"}])


def adapter_view(adapter: Adapter) -> AdapterView:
    """An adapter as shown."""
    here = f"/v1/adapters/{adapter.id}"
    return AdapterView(
        id=adapter.id,
        name=adapter.name,
        job_id=adapter.job_id,
        method=adapter.method,
        base_model=adapter.base_model,
        base_revision=adapter.base_revision,
        sha256=adapter.sha256,
        size=adapter.size,
        metrics=adapter.metrics,
        manifest=adapter.manifest,
        created_at=adapter.created_at,
        links={"self": here, "download": f"{here}/download"},
    )
