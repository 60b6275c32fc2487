"""How good labels are: against gold, against one another, and in themselves.

Two measures of agreement. Exact: an edge counts when both of its spans are the same. By characters: a relation is the
set of pairs (character of the effect, character of a cause), so a phrase quoted a word shorter still mostly agrees.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from core.domain.annotation import Annotation, Example, Reason
from core.domain.relations import Relation
from core.domain.spans import Span


@dataclass(frozen=True, slots=True)
class Score:
    """Counts behind precision, recall and F1; add scores of many examples to get their micro average."""

    shared: int = 0
    predicted: int = 0
    expected: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.shared + other.shared, self.predicted + other.predicted, self.expected + other.expected)

    @property
    def precision(self) -> float:
        """Share of what was predicted that was expected; 1 when nothing was predicted."""
        return self.shared / self.predicted if self.predicted else 1.0

    @property
    def recall(self) -> float:
        """Share of what was expected that was predicted; 1 when nothing was expected."""
        return self.shared / self.expected if self.expected else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of the two; 1 when nothing was predicted and nothing expected."""
        total = self.predicted + self.expected
        return 2 * self.shared / total if total else 1.0


def score_edges(predicted: Iterable[Relation], expected: Iterable[Relation]) -> Score:
    """Agreement of two sets of relations over one text, edge by edge, both spans the same."""
    ours, theirs = _edges(predicted), _edges(expected)
    return Score(len(ours & theirs), len(ours), len(theirs))


def score_characters(predicted: Iterable[Relation], expected: Iterable[Relation]) -> Score:
    """Agreement of two sets of relations over one text, by pairs of characters."""
    ours, theirs = _character_pairs(predicted), _character_pairs(expected)
    shared = sum((causes & theirs.get(at, 0)).bit_count() for at, causes in ours.items())
    return Score(shared, _size(ours), _size(theirs))


def confidence(votes: Sequence[Sequence[Relation]]) -> float:
    """How far several labellings of one example agree: mean F1 by characters over all pairs; 1 for a single vote."""
    scores = [score_characters(one, other).f1 for one, other in combinations(votes, 2)]
    return sum(scores) / len(scores) if scores else 1.0


@dataclass(slots=True)
class Quality:
    """What can be said of a job's labels without gold. Outcomes add up to `examples`, edges to kept + unresolved."""

    examples: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    edges: int = 0
    kept: int = 0
    doubtful: int = 0  # of those kept
    unresolved: Counter[str] = field(default_factory=Counter)  # by reason
    answer_supervised: int = 0  # examples with a relation whose effect lies in the target

    def add(self, example: Example, annotation: Annotation) -> None:
        """Count one more annotation."""
        causes = [(relation.effect, cause) for relation in annotation.relations for cause in relation.causes]
        self.examples += 1
        self.outcomes[annotation.outcome.value] += 1
        self.edges += len(causes) + len(annotation.unresolved)
        self.kept += len(causes)
        self.doubtful += sum(effect.doubtful or cause.doubtful for effect, cause in causes)
        self.unresolved.update(edge.reason.value for edge in annotation.unresolved)
        target = Span(len(example.input), len(example.text))
        self.answer_supervised += any(relation.effect.span.overlaps(target) for relation in annotation.relations)

    @property
    def grounded_share(self) -> float:
        """Share of the edges the teacher named that were found in their texts; 1 when it named none."""
        return self.kept / self.edges if self.edges else 1.0

    @property
    def backward_edges(self) -> int:
        """Edges whose cause does not end before its effect begins."""
        return self.unresolved[Reason.NOT_BEFORE_EFFECT.value]

    def to_json(self) -> dict[str, Any]:
        """The counts and shares as a JSON object."""
        return asdict(self) | {
            "outcomes": dict(self.outcomes),  # asdict makes nonsense of a Counter
            "unresolved": dict(self.unresolved),
            "grounded_share": self.grounded_share,
            "backward_edges": self.backward_edges,
        }


def _edges(relations: Iterable[Relation]) -> set[tuple[Span, Span]]:
    return {(relation.effect, cause) for relation in relations for cause in relation.causes}


def _character_pairs(relations: Iterable[Relation]) -> dict[int, int]:
    """For each character of an effect, its causes' characters as the bits of an integer."""
    pairs: defaultdict[int, int] = defaultdict(int)
    for relation in relations:
        causes = 0
        for cause in relation.causes:
            causes |= (1 << cause.end) - (1 << cause.start)
        for at in range(relation.effect.start, relation.effect.end):
            pairs[at] |= causes
    return pairs


def _size(pairs: dict[int, int]) -> int:
    return sum(causes.bit_count() for causes in pairs.values())
