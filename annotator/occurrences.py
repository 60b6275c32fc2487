"""Every place where a phrase stands in one text, found on the first of three rungs that finds any."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from annotator.boundaries import is_bounded, numbers_of
from annotator.folding import Folded, fold, fold_phrase
from annotator.fuzzy import nearly
from core.domain.spans import Grounding, Span

MAX_OCCURRENCES = 1000  # of one phrase, the last ones
FUZZY_BUDGET = 2_000_000  # characters of one text that are searched fuzzily, over all phrases: bounds a hostile reply


@dataclass(frozen=True, slots=True)
class Place:
    """One occurrence. `loose`: the phrase is a number with its unit written onto it, or the like. `score` of 100."""

    span: Span
    loose: bool = False
    score: float = 100.0


@dataclass(frozen=True, slots=True)
class Occurrences:
    """All places of one phrase, in order of their start, all found the same way."""

    grounding: Grounding
    places: tuple[Place, ...] = ()


class SearchableText:
    """One text in which many phrases are looked for; what was found is remembered."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._known: dict[str, Occurrences] = {}
        self._fuzzy_budget = FUZZY_BUDGET

    def find(self, phrase: str) -> Occurrences:
        """The places of a phrase: exact, else folded, else fuzzy; UNRESOLVED and none when it is nowhere."""
        known = self._known.get(phrase)
        if known is None:
            known = self._known[phrase] = self._search(phrase)
        return known

    def rungs(self, phrase: str) -> Iterator[Occurrences]:
        """What `find` finds; then, if that is exact, every place that folding and looser boundaries add."""
        found = self.find(phrase)
        yield found
        if found.grounding is Grounding.EXACT:
            more = self._at_boundaries(self._folded_spans(phrase), loose=True)
            if len(more) > len(found.places):
                yield Occurrences(Grounding.FOLDED, more)

    @cached_property
    def _folded(self) -> Folded:
        return fold(self.text)

    def _search(self, phrase: str) -> Occurrences:
        if phrase.strip():
            if places := self._exact(phrase):
                return Occurrences(Grounding.EXACT, places)
            if places := self._fold(phrase):
                return Occurrences(Grounding.FOLDED, places)
            if places := self._fuzzy(phrase):
                return Occurrences(Grounding.FUZZY, places)
        return Occurrences(Grounding.UNRESOLVED)

    def _exact(self, phrase: str) -> tuple[Place, ...]:
        return self._bounded([(start, start + len(phrase)) for start in _starts(self.text, phrase)])

    def _fold(self, phrase: str) -> tuple[Place, ...]:
        return self._bounded(self._folded_spans(phrase))

    def _folded_spans(self, phrase: str) -> list[tuple[int, int]]:
        folded, numbers = fold_phrase(phrase), numbers_of(phrase)
        spans = [self._folded.source(start, start + len(folded)) for start in _starts(self._folded.text, folded)]
        return [span for span in spans if span and numbers_of(self.text[slice(*span)]) == numbers]

    def _fuzzy(self, phrase: str) -> tuple[Place, ...]:
        self._fuzzy_budget -= len(self.text)
        if self._fuzzy_budget < 0:
            return ()
        places, numbers = [], numbers_of(phrase)
        for near in nearly(fold_phrase(phrase), self._folded.text):
            source = self._folded.source(near.start, near.end)
            if source and is_bounded(self.text, *source) and numbers_of(self.text[slice(*source)]) == numbers:
                places.append(Place(Span(*source), score=near.score))
        return tuple(places)

    def _bounded(self, spans: list[tuple[int, int]]) -> tuple[Place, ...]:
        """The spans at word and number boundaries; where there are none, those at looser ones."""
        return self._at_boundaries(spans) or self._at_boundaries(spans, loose=True)

    def _at_boundaries(self, spans: list[tuple[int, int]], *, loose: bool = False) -> tuple[Place, ...]:
        places = []
        for span in spans:
            if is_bounded(self.text, *span):
                places.append(Place(Span(*span)))
            elif loose and is_bounded(self.text, *span, loose=True):
                places.append(Place(Span(*span), loose=True))
        return tuple(places)


def _starts(text: str, phrase: str) -> list[int]:
    """Where `phrase` begins in `text`, overlaps included, the last MAX_OCCURRENCES of them."""
    if not phrase:
        return []
    starts, at = [], text.find(phrase)
    while at >= 0:
        starts.append(at)
        at = text.find(phrase, at + 1)
    return starts[-MAX_OCCURRENCES:]
