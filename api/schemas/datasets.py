"""Datasets and examples on the wire."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.fields import Body, Moment, Name, Text
from core.db.models import Dataset, ExampleRow


class DatasetIn(Body):
    """A new dataset."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "cancer risk"}]})

    name: Name


class DatasetView(BaseModel):
    """A dataset."""

    id: str = Field(examples=["ds_01jd8x3v5zq6m8k2c4r7t9w0ab"])
    name: str = Field(examples=["cancer risk"])
    splits: dict[str, int] = Field(description="Examples by split.", examples=[{"train": 6400, "ood": 400}])
    examples: int = Field(description="Examples in all splits.", examples=[6800])
    created_at: Moment


class SpanIn(Body):
    """Characters [start, end) of `input + target`, counted in Unicode code points."""

    start: int = Field(ge=0)
    end: int = Field(ge=1)


class RelationIn(Body):
    """An effect and the earlier phrases that cause it."""

    effect: SpanIn
    causes: list[SpanIn] = Field(min_length=1)


class ExampleIn(Body):
    """One line of an upload."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "p-17",
                    "input": "Smoking: 9, Room size: 3 Answer: ",
                    "target": "High Risk",
                    "choices": ["High Risk", "Low Risk"],
                    "relations": [{"effect": {"start": 33, "end": 42}, "causes": [{"start": 0, "end": 10}]}],
                }
            ]
        }
    )

    input: Text = Field(min_length=1)
    target: Text = Field(min_length=1)
    id: str | int | None = Field(None, description="Yours; made for you when missing. Unique in the dataset.")
    choices: list[Text] = Field([], description="The targets to compare at evaluation; `target` is one of them.")
    relations: list[RelationIn] | None = None
    important: Any = Field(
        None, description='Relations in words, [{"effect": ["cause", ...]}], as CAT data sets are published.'
    )
    gold: bool = Field(
        False, description="The relations are a human's, to measure teachers by. No teacher ever sees them."
    )


class LooseExampleIn(ExampleIn):
    """The same, whatever else stands beside it."""

    model_config = ConfigDict(extra="ignore")


class UploadView(BaseModel):
    """What became of an upload."""

    stored: int = Field(description="New examples.", examples=[6400])
    unchanged: int = Field(description="Examples that were here already, with equal content.", examples=[0])
    relations: int = Field(description="Relations of all lines of this upload.", examples=[6400])
    unresolved: dict[str, int] = Field(
        description="Edges of `important` that could not be found in the text, by reason.", examples=[{"not_found": 3}]
    )
    malformed: int = Field(description="Entries of `important` that are neither an object nor a list.", examples=[0])


class ExampleView(BaseModel):
    """An example."""

    id: str
    split: str
    input: str
    target: str
    choices: list[str]
    relations: list[dict[str, Any]] = Field(description="Spans of `input + target`, in code points.")
    unresolved: list[dict[str, Any]] = Field(description="Edges of `important` that were not found, with the reason.")
    gold: bool = Field(description="Whether teachers are measured by its relations.")


def dataset_view(dataset: Dataset) -> DatasetView:
    """A dataset as shown."""
    return DatasetView(
        id=dataset.id,
        name=dataset.name,
        splits=dataset.splits,
        examples=sum(dataset.splits.values()),
        created_at=dataset.created_at,
    )


def example_view(row: ExampleRow) -> ExampleView:
    """An example as shown."""
    return ExampleView(
        id=row.key,
        split=row.split,
        input=row.input,
        target=row.target,
        choices=row.choices,
        relations=row.relations,
        unresolved=row.unresolved,
        gold=row.gold,
    )
