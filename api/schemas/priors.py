"""Priors on the wire."""

from typing import Any

from pydantic import BaseModel, Field

from api.schemas.fields import Moment
from core.db.models import PriorRow

EXAMPLE = {
    "name": "eagles",
    "version": "1",
    "instructions": "Mark what the number in the answer is computed from.",
    "demonstrations": [
        {
            "input": "There are 20 bald eagles and 15 harpy eagles. How many eagles? ",
            "target": "35 eagles",
            "relations": [{"effect": "35 eagles", "causes": ["20 bald eagles", "15 harpy eagles"]}],
        }
    ],
}


class PriorView(BaseModel):
    """A prior. A name and version never change their content."""

    id: str = Field(examples=["prior_01jd8x3v5zq6m8k2c4r7t9w0ab"])
    name: str = Field(examples=["eagles"])
    version: str = Field(examples=["1"])
    sha256: str = Field(description="Of the content.")
    created_at: Moment


class WholePriorView(PriorView):
    """A prior with its content."""

    body: dict[str, Any] = Field(examples=[EXAMPLE])


def prior_view(row: PriorRow) -> PriorView:
    """A prior as listed."""
    return PriorView(id=row.id, name=row.name, version=row.version, sha256=row.sha256, created_at=row.created_at)


def whole_prior_view(row: PriorRow) -> WholePriorView:
    """A prior as shown."""
    return WholePriorView(**prior_view(row).model_dump(), body=row.body)
