"""Which earlier spans of a text cause which later span."""

from dataclasses import dataclass
from typing import Any

from core.domain.spans import Span
from core.errors import InvalidSpan


@dataclass(frozen=True, slots=True)
class Relation:
    """One effect and the causes that stand before it, all spans of the same text. At least one cause."""

    effect: Span
    causes: tuple[Span, ...]

    def __post_init__(self) -> None:
        if not self.causes:
            raise InvalidSpan("a relation needs at least one cause")

    def check_against(self, text: str) -> None:
        """Raise InvalidSpan unless every span lies in `text` and every cause ends at or before the effect's start."""
        for span in (self.effect, *self.causes):
            if span.end > len(text):
                raise InvalidSpan(
                    f"span [{span.start}, {span.end}) ends after the text, which has {len(text)} code points",
                    start=span.start,
                    end=span.end,
                )
        for cause in self.causes:
            if not cause.precedes(self.effect):
                raise InvalidSpan(
                    f"cause [{cause.start}, {cause.end}) does not end before its effect "
                    f"[{self.effect.start}, {self.effect.end}) begins",
                    start=cause.start,
                    end=cause.end,
                )


def relation_to_json(relation: Relation) -> dict[str, Any]:
    """The wire form: {"effect": {"start", "end"}, "causes": [{"start", "end"}, ...]}, offsets in code points."""
    return {"effect": _span_to_json(relation.effect), "causes": [_span_to_json(c) for c in relation.causes]}


def relation_from_json(value: dict[str, Any]) -> Relation:
    """Inverse of relation_to_json, for JSON that we wrote ourselves (users' JSON is validated at the edge)."""
    return Relation(_span_from_json(value["effect"]), tuple(_span_from_json(c) for c in value["causes"]))


def _span_to_json(span: Span) -> dict[str, int]:
    return {"start": span.start, "end": span.end}


def _span_from_json(value: dict[str, int]) -> Span:
    return Span(value["start"], value["end"])
