"""Reviews on the wire."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.datasets import RelationIn
from api.schemas.fields import Body, Moment
from core.db.models import ReviewRow
from core.domain.annotation import Decision


class ReviewIn(Body):
    """What a human decided about the relations of an annotation."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"version": 1, "decision": "accepted"},
                {
                    "version": 1,
                    "decision": "changed",
                    "relations": [{"effect": {"start": 33, "end": 42}, "causes": [{"start": 0, "end": 10}]}],
                },
            ]
        }
    )

    version: int = Field(ge=0, le=2**31 - 1, description="Of the annotation as the human saw it.")
    # Enums are strings in JSON: `strict` would ask for a member.
    decision: Decision = Field(strict=False)
    relations: list[RelationIn] | None = Field(
        None, description="With `changed`: those that hold instead, perhaps none. With `accepted` they may be left out."
    )


class ReviewView(BaseModel):
    """What a human decided, when, and having seen what."""

    number: int = Field(description="Of the example's reviews, from 1; also the version it was based on.", examples=[1])
    decision: Decision
    relations: list[dict[str, Any]] = Field(description="Spans of `input + target`, in code points.")
    annotation_id: int = Field(description="What was reviewed. Gone when its job was deleted.")
    key_id: str = Field(description="Whose decision it was.", examples=["key_01jd8x3v5zq6m8k2c4r7t9w0ab"])
    at: Moment


def review_view(review: ReviewRow) -> ReviewView:
    """A review as shown."""
    return ReviewView(
        number=review.number,
        decision=Decision(review.decision),
        relations=review.relations,
        annotation_id=review.annotation_id,
        key_id=review.key_id,
        at=review.at,
    )
