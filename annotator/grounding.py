"""From phrases to spans: where in a text an effect and its causes stand, or why they do not.

An effect prefers its named segment, then the target, then the last place it has. A cause ends at or before its
effect's start; it prefers its named segment, then the place nearest to the effect. Among the places of an effect the
first in that order which has the cause before it is taken, edge by edge, so a relation may be split.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property

from annotator.occurrences import Occurrences, Place, SearchableText
from annotator.segments import segment_at, segments_of
from core.domain.annotation import GroundedRelation, Phrase, Quote, QuotedRelation, Reason, Unresolved
from core.domain.spans import Span


def ground(
    text: str, target_start: int, relations: Iterable[QuotedRelation]
) -> tuple[tuple[GroundedRelation, ...], tuple[Unresolved, ...]]:
    """Locate every phrase of `relations` in `text`, whose target begins at `target_start`.

    Every edge, one (effect, cause) pair as written, ends in exactly one of the two results.
    """
    item = _Item(text, target_start)
    kept: list[GroundedRelation] = []
    unresolved: list[Unresolved] = []
    for relation in relations:
        grounded, missed = item.ground(relation)
        kept += grounded
        unresolved += missed
    return tuple(kept), tuple(unresolved)


class _Item:
    """One text, its target, and the relations that are being located in it."""

    def __init__(self, text: str, target_start: int) -> None:
        self._text = SearchableText(text)
        self._target_start = target_start

    def ground(self, relation: QuotedRelation) -> tuple[list[GroundedRelation], list[Unresolved]]:
        """The relation, split where its causes take different places of its effect, and its lost edges."""
        effects = self._effects(relation.effect)
        if not effects.places or not relation.causes:
            return [], list(_no_edge(relation))
        by_effect: dict[Phrase, list[Phrase]] = {}
        missed: list[Unresolved] = []
        for cause in relation.causes:
            edge = self._edge(relation.effect, effects, cause)
            if isinstance(edge, Unresolved):
                missed.append(edge)
            else:
                by_effect.setdefault(edge[0], []).append(edge[1])
        return [GroundedRelation(effect, tuple(causes)) for effect, causes in by_effect.items()], missed

    def _effects(self, effect: Quote) -> Occurrences:
        """The places of an effect, the preferred first."""
        found = self._text.find(effect.quote)
        places = sorted(found.places, key=lambda place: (self._effect_rank(place, effect), -place.span.start))
        return Occurrences(found.grounding, tuple(places))

    def _edge(self, effect: Quote, effects: Occurrences, cause: Quote) -> tuple[Phrase, Phrase] | Unresolved:
        """The two ends of one edge: the first place of the effect that has the cause before it, and that cause."""
        reason = Reason.NOT_FOUND if cause.quote.strip() else Reason.EMPTY
        for found in self._text.rungs(cause.quote):
            earliest = min((place.span.end for place in found.places), default=len(self._text.text) + 1)
            after = next((place for place in effects.places if place.span.start >= earliest), None)
            if after is None:
                reason = Reason.NOT_BEFORE_EFFECT if found.places else reason
                continue
            taken = self._cause_before(after.span.start, found, cause)
            effect_taken = self._effect_at(after, effects, effect)
            if taken is None or effect_taken is None:
                return Unresolved(effect.quote, cause.quote, Reason.AMBIGUOUS, effect_at_fault=effect_taken is None)
            return effect_taken, taken
        return Unresolved(effect.quote, cause.quote, reason)

    def _effect_at(self, place: Place, effects: Occurrences, effect: Quote) -> Phrase | None:
        """The effect's phrase at its chosen place; None when other words of the text resemble it as well."""
        rank = self._effect_rank(place, effect)
        peers = [other for other in effects.places if self._effect_rank(other, effect) == rank]
        if _tied(place, peers, self._text.text):
            return None
        doubtful = len(peers) > 1 or place.loose or self._misplaced(place, effect)
        return Phrase(place.span, effect.quote, effects.grounding, len(effects.places), doubtful)

    def _cause_before(self, limit: int, found: Occurrences, cause: Quote) -> Phrase | None:
        """The cause's phrase at the best of its places that end at or before `limit`; None when two tie."""
        before = [place for place in found.places if place.span.end <= limit]
        named = [place for place in before if not self._misplaced(place, cause)]
        peers = named or before
        best = max(peers, key=lambda place: (place.score, place.span.start))
        if _tied(best, peers, self._text.text):
            return None
        doubtful = len(peers) > 1 or best.loose or not named
        return Phrase(best.span, cause.quote, found.grounding, len(found.places), doubtful)

    def _effect_rank(self, place: Place, effect: Quote) -> tuple[bool, float, bool]:
        """Lower is better; equal places are peers between which only their order decides."""
        return self._misplaced(place, effect), -place.score, place.span.start < self._target_start

    def _misplaced(self, place: Place, quote: Quote) -> bool:
        """Whether the quote names a segment and this place is not in it."""
        return quote.segment is not None and segment_at(self._segments, place.span.start) != quote.segment

    @cached_property
    def _segments(self) -> tuple[Span, ...]:
        return segments_of(self._text.text, self._target_start)


def _no_edge(relation: QuotedRelation) -> Iterable[Unresolved]:
    """What to say of a relation whose effect is nowhere, or that has no cause."""
    effect = relation.effect.quote
    if not relation.causes:
        yield Unresolved(effect, "", Reason.EMPTY)
    reason = Reason.NOT_FOUND if effect.strip() else Reason.EMPTY
    for cause in relation.causes:
        yield Unresolved(effect, cause.quote, reason, effect_at_fault=True)


def _tied(best: Place, peers: Sequence[Place], text: str) -> bool:
    """Whether different words resemble the quote equally well, so that nothing tells which was meant."""
    readings = {peer.span.of(text).casefold() for peer in peers if peer.score == best.score < 100}
    return len(readings) > 1
