"""How far two labellings of the same examples agree: a teacher with gold, or one teacher with another."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from annotator.quality import Score, score_characters, score_edges
from core.domain.relations import Relation


@dataclass(slots=True)
class Agreement:
    """Counts over many examples; both scores are micro averages."""

    examples: int = 0
    exact: Score = field(default_factory=Score)
    characters: Score = field(default_factory=Score)

    def add(self, predicted: Sequence[Relation], expected: Sequence[Relation]) -> tuple[Score, Score]:
        """Count one more example; its own scores, exact and by characters."""
        exact, characters = score_edges(predicted, expected), score_characters(predicted, expected)
        self.examples += 1
        self.exact += exact
        self.characters += characters
        return exact, characters

    def to_json(self) -> dict[str, Any]:
        """{"examples", "exact", "characters"}, each score as by score_to_json."""
        return {
            "examples": self.examples,
            "exact": score_to_json(self.exact),
            "characters": score_to_json(self.characters),
        }


def score_to_json(score: Score) -> dict[str, Any]:
    """{"precision", "recall", "f1", "shared", "predicted", "expected"}: shares, and the counts behind them."""
    return {
        "precision": round(score.precision, 4),
        "recall": round(score.recall, 4),
        "f1": round(score.f1, 4),
        "shared": score.shared,
        "predicted": score.predicted,
        "expected": score.expected,
    }
