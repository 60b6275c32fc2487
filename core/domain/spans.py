"""A span of text, and how it was found."""

from dataclasses import dataclass
from enum import StrEnum

from core.errors import InvalidSpan


class Grounding(StrEnum):
    """How a phrase was located in its text, from the most to the least certain."""

    EXACT = "exact"  # the very characters
    FOLDED = "folded"  # equal after case, white-space and punctuation folding
    FUZZY = "fuzzy"  # close enough, with every number identical
    UNRESOLVED = "unresolved"  # not located; kept with its reason


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Half-open interval [start, end) in Unicode code points of one text. Never empty.

    Raises
    ------
    InvalidSpan
        When start is negative or end is not after start.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.end <= self.start:
            raise InvalidSpan(
                f"a span needs 0 <= start < end, got [{self.start}, {self.end})", start=self.start, end=self.end
            )

    def of(self, text: str) -> str:
        """The characters this span covers in `text`."""
        return text[self.start : self.end]

    def precedes(self, other: "Span") -> bool:
        """Whether this span ends at or before the other's start."""
        return self.end <= other.start

    def overlaps(self, other: "Span") -> bool:
        """Whether the two share at least one code point."""
        return self.start < other.end and other.start < self.end
