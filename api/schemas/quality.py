"""How good labels are, on the wire."""

from typing import Any

from pydantic import BaseModel, Field


class ScoreView(BaseModel):
    """Agreement as shares, and the counts behind them. Shares of nothing are 1."""

    precision: float = Field(examples=[0.9])
    recall: float = Field(examples=[0.75])
    f1: float = Field(examples=[0.8182])
    shared: int = Field(examples=[9])
    predicted: int = Field(examples=[10])
    expected: int = Field(examples=[12])


class AgreementView(BaseModel):
    """How far two labellings agree, over all their examples."""

    examples: int = Field(examples=[100])
    exact: ScoreView = Field(description="By edges: an effect and one cause, both spans the same.")
    characters: ScoreView = Field(description="By pairs of characters: of an effect, of one of its causes.")


class QualityView(BaseModel):
    """What can be said of the labels of a job so far. It is about the teacher: reviews change nothing here."""

    items: int = Field(examples=[6400])
    pending: int = Field(
        description="Items without an outcome; with the outcomes they add up to `items`.", examples=[0]
    )
    outcomes: dict[str, int] = Field(examples=[{"labelled": 6390, "empty": 10}])
    edges: int = Field(description="Pairs of an effect and a cause, as the teacher named them.", examples=[19200])
    kept: int = Field(description="Edges that were found in their text.", examples=[19100])
    grounded_share: float = Field(description="Of the edges, those kept; 1 where there are none.", examples=[0.9948])
    unresolved: dict[str, int] = Field(
        description="Edges that were not kept, by reason.", examples=[{"not_found": 80, "not_before_effect": 20}]
    )
    backward_edges: int = Field(description="Edges whose cause does not end before its effect.", examples=[20])
    doubtful: int = Field(description="Edges kept although a phrase might stand elsewhere.", examples=[40])
    ambiguous_share: float = Field(
        description="Of the edges, those doubtful or unresolved as ambiguous; 0 where there are none.",
        examples=[0.0021],
    )
    answer_supervised: int = Field(description="Examples with an effect in their target.", examples=[6380])
    answer_supervised_share: float = Field(description="Of the items with an outcome.", examples=[0.9969])
    reviewed: dict[str, int] = Field(
        description="Examples that a human has accepted or changed.", examples=[{"accepted": 40, "changed": 2}]
    )
    gold: AgreementView | None = Field(description="Against the relations of the gold examples, where there are any.")


class ComparedItemView(BaseModel):
    """What two jobs said about one example."""

    example_id: str
    split: str
    input: str
    target: str
    annotation_id: int
    other_annotation_id: int
    relations: list[dict[str, Any]] = Field(description="Of this job.")
    other_relations: list[dict[str, Any]] = Field(description="Of the other job.")
    exact: ScoreView
    characters: ScoreView


class ComparisonView(BaseModel):
    """How far two jobs agree on the examples that both have; the other job counts as what was expected."""

    agreement: AgreementView = Field(description="On the examples about which both teachers said something readable.")
    unreadable: int = Field(description="Examples of both jobs of which one has no readable label.", examples=[3])
    only_here: int = Field(description="Items whose example the other job does not have.", examples=[0])
    only_there: int = Field(examples=[0])
    worst: list[ComparedItemView] = Field(description="The examples that agree least by characters, worst first.")
