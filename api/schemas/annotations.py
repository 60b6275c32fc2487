"""Annotation jobs and annotations on the wire."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.fields import Body, Id, Moment, Split, Text
from api.schemas.reviews import ReviewView, review_view
from core.domain.annotation import Mode, Outcome
from core.labels import LabelledItem

BudgetTokens = Annotated[
    int | None,
    Field(ge=1, le=10**15, description="The most prompts and replies may take together; null: no bound."),
]
BudgetUsd = Annotated[
    float | None,
    Field(ge=1e-6, le=1e6, description="The most calls may cost, at the prices in the settings; null: no bound."),
]


class DemonstrationsIn(Body):
    """Examples that a human has reviewed, shown to the teacher after the demonstrations of the prior."""

    source: Literal["reviewed"]
    k: int = Field(3, ge=1, le=8, description="How many for each item: those that resemble it most, the nearest last.")
    splits: list[Split] = Field(
        ["train"],
        min_length=1,
        max_length=100,
        description="Where they may be from. Whatever is named: never gold, and never of a split that a training job "
        "of the dataset evaluates.",
    )


class AnnotationJobIn(Body):
    """Label the examples of some splits."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"dataset_id": "ds_01jd", "prior_id": "prior_01jd", "teacher": "rule"}]}
    )

    dataset_id: Id
    prior_id: Id
    teacher: Text = Field(max_length=200, description="By the name it has in the service's settings.")
    splits: list[Split] = Field(["train"], max_length=100, description="Empty: all of them.")
    votes: int = Field(
        1,
        ge=1,
        le=10,
        description="How often the teacher is asked about each example. How far its votes agree is the item's "
        "`confidence`; the vote nearest to the others is its label. A teacher of temperature 0 is then asked at 0.7.",
    )
    mode: Mode = Field(
        Mode.LIVE,
        strict=False,
        description="`batch` asks a teacher in files of thousands of questions, through the Batch API of its endpoint: "
        "within a day instead of at once, at a discount. `progress.batches` says how they are doing. Not with votes.",
    )
    demonstrations: DemonstrationsIn | None = Field(
        None,
        description="Reviewed examples to be shown beside the prior's own; those reviewed when the job is asked for.",
        examples=[{"source": "reviewed", "k": 3}],
    )
    budget_tokens: BudgetTokens = None
    budget_usd: BudgetUsd = None
    name: Text = Field("", max_length=200)
    dry_run: bool = Field(False, description="Only answer what would be done.")


class BudgetIn(Body):
    """Another budget for a job. What is left out stays as it was."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"budget_usd": 25.0}]})

    budget_tokens: BudgetTokens = None
    budget_usd: BudgetUsd = None


class DemonstrationsPlanView(BaseModel):
    """What would be shown beside the prior's own demonstrations."""

    pool: int = Field(
        description="Reviewed examples to draw from; 0: the teacher would see the prior's own demonstrations only.",
        examples=[120],
    )
    k: int = Field(description="The most that are drawn for an item.", examples=[3])
    splits: list[str] = Field(
        description="Where they may be from: those named that no training job evaluates.", examples=[["train"]]
    )


class AnnotationPlanView(BaseModel):
    """What an annotation job would do."""

    items: int = Field(examples=[6400])
    by_split: dict[str, int] = Field(examples=[{"train": 6400}])
    teacher: str
    prompts: list[list[dict[str, str]]] = Field(
        description="Chat messages as a teacher would get them: of three examples, the first among them.",
        examples=[[[{"role": "system", "content": "..."}, {"role": "user", "content": "..."}]]],
    )
    estimated_from: int = Field(description="Examples, evenly spread, that stand for all of them.", examples=[1000])
    tokens: int = Field(description="About how many all prompts and replies take; 0 for rules.", examples=[9_600_000])
    usd: float = Field(description="About what they cost, at the prices in the service's settings.", examples=[4.8])
    demonstrations: DemonstrationsPlanView | None = Field(description="Where reviewed examples were asked for.")
    silent_patterns: list[str] = Field(
        description="Patterns of the prior's rules that match in none of those examples, for the rule teacher.",
        examples=[["rules[0].causes[2]"]],
    )


class AnnotationView(BaseModel):
    """What is known about one item of an annotation job. Without an outcome it waits for its label."""

    id: int
    example_id: str
    split: str
    input: str
    target: str
    outcome: Outcome | None
    relations: list[dict[str, Any]] = Field(
        description="Effect and causes: span in code points of `input + target`, the quote, how it was found."
    )
    unresolved: list[dict[str, Any]] = Field(description="Edges that were not found in the text, with the reason.")
    detail: str = Field(description="What went wrong, where the outcome is not `labelled`.")
    raw_reply: str | None = Field(description="The teacher's own words, capped.")
    confidence: float | None = Field(
        description="How far the teacher's votes agree, 0 to 1: mean F1 by characters over their pairs.",
        examples=[0.83],
    )
    prompt_hash: str | None
    prompt_tokens: int
    completion_tokens: int
    updated_at: Moment | None
    version: int = Field(
        description="What a review names: 0 without a label, then 1, and one more with each review of the example.",
        examples=[1],
    )
    review: ReviewView | None = Field(
        description="The newest of its example. Its relations outrank those above in exports and trainings."
    )


def annotation_view(item: LabelledItem) -> AnnotationView:
    """An item as shown."""
    annotation, example = item.annotation, item.example
    return AnnotationView(
        id=annotation.id,
        example_id=example.key,
        split=example.split,
        input=example.input,
        target=example.target,
        outcome=None if annotation.outcome is None else Outcome(annotation.outcome),
        relations=annotation.relations or [],
        unresolved=annotation.unresolved or [],
        detail=annotation.detail or "",
        raw_reply=annotation.raw_reply,
        confidence=annotation.confidence,
        prompt_hash=annotation.prompt_hash,
        prompt_tokens=annotation.prompt_tokens,
        completion_tokens=annotation.completion_tokens,
        updated_at=annotation.updated_at,
        version=item.version,
        review=None if item.review is None else review_view(item.review),
    )
