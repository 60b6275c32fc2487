"""Phrases planted in texts are found exactly where they were planted."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.boundaries import is_bounded, numbers_of
from annotator.grounding import ground
from annotator.segments import segment_at, segments_of
from core.domain.annotation import GroundedRelation, Quote, QuotedRelation, Reason, Unresolved
from core.domain.spans import Grounding, Span


def relation(effect: str, *causes: str) -> QuotedRelation:
    return QuotedRelation(Quote(effect), tuple(Quote(cause) for cause in causes))


def spans(relations: Sequence[GroundedRelation]) -> list[tuple[tuple[int, int], list[tuple[int, int]]]]:
    return [
        ((r.effect.span.start, r.effect.span.end), [(c.span.start, c.span.end) for c in r.causes]) for r in relations
    ]


WORDS = [
    "apple", "Äpfel", "5", "58", "2.5", ".5", "1,500", "10²", "cafe\u0301", "naïve", "👍", "👍🏽", "👩\u200d🔬", "猫",
    "黑猫", "十五", "五", "שלום", "مرحبا", "न\u093eम", "ก\u0e34น", "don't", "F1", "%", "$5", "—", "“hi”", "사과를",
    "x_1",
]  # fmt: skip
SEPARATORS = [" ", "\n", "\r\n", ", ", "; ", " \u200f"]


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """A text of words and separators, and the span of each word."""
    text, places = "", []
    for word in draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=12)):
        places.append(Span(len(text), len(text) + len(word)))
        text += word + draw(st.sampled_from(SEPARATORS))
    return text, places


@given(planted(), st.data())
def test_planted_phrases_are_found_at_their_exact_offsets(
    planting: tuple[str, list[Span]], data: st.DataObject
) -> None:
    text, places = planting
    i = data.draw(st.integers(0, len(places) - 2))
    j = data.draw(st.integers(i, len(places) - 2))
    k = data.draw(st.integers(j + 1, len(places) - 1))
    m = data.draw(st.integers(k, len(places) - 1))
    cause, effect = Span(places[i].start, places[j].end), Span(places[k].start, places[m].end)

    relations, unresolved = ground(text, effect.start, [relation(effect.of(text), cause.of(text))])

    assert unresolved == ()
    (found,) = relations
    found.relation.check_against(text)
    assert found.effect.span.of(text) == effect.of(text)
    assert found.causes[0].span.of(text) == cause.of(text)
    assert found.effect.grounding is found.causes[0].grounding is Grounding.EXACT
    if len(_verbatim(text, effect.of(text))) == 1:
        assert found.effect.span == effect
        assert not found.effect.doubtful
    if len(_verbatim(text, cause.of(text))) == 1:
        assert found.causes[0].span == cause
        assert (found.causes[0].candidates, found.causes[0].doubtful) == (1, False)


@given(planted(), st.data())
def test_a_named_segment_decides_between_repeats(planting: tuple[str, list[Span]], data: st.DataObject) -> None:
    text, places = planting
    text, effect_at = text + "End", len(text)
    place = data.draw(st.sampled_from(places))
    segments = segments_of(text, effect_at)
    number = segment_at(segments, place.start)

    asked = QuotedRelation(Quote("End"), (Quote(place.of(text), number),))
    ((found,), unresolved) = ground(text, effect_at, [asked])

    assert unresolved == ()
    assert segment_at(segments, found.causes[0].span.start) == number


@given(planted(), st.sampled_from(WORDS), st.sampled_from(WORDS))
def test_every_edge_is_kept_or_has_a_reason_and_no_number_changes(
    planting: tuple[str, list[Span]], effect: str, cause: str
) -> None:
    text, _ = planting
    relations, unresolved = ground(text, len(text) // 2, [relation(effect, cause, effect, ""), relation(effect)])
    assert sum(len(r.causes) for r in relations) + len(unresolved) == 4
    for found in relations:
        found.relation.check_against(text)
        for phrase in (found.effect, *found.causes):
            assert numbers_of(phrase.span.of(text)) == numbers_of(phrase.quote)


@given(planted(), st.sampled_from(WORDS), st.sampled_from(WORDS))
def test_an_edge_is_kept_whenever_a_cause_stands_before_an_effect(
    planting: tuple[str, list[Span]], effect: str, cause: str
) -> None:
    text, _ = planting
    possible = [(e, c) for e in _verbatim(text, effect) for c in _verbatim(text, cause) if c.precedes(e)]
    relations, unresolved = ground(text, len(text), [relation(effect, cause)])
    if possible:
        (found,) = relations
        assert found.effect.span == max(e for e, _ in possible)  # the last that has the cause before it
        assert found.causes[0].span == max(c for e, c in possible if e == found.effect.span)  # the nearest
    elif _verbatim(text, effect) and _verbatim(text, cause):
        assert [edge.reason for edge in unresolved] == [Reason.NOT_BEFORE_EFFECT] or relations


def _verbatim(text: str, phrase: str) -> list[Span]:
    """Slow reference: every occurrence at word and number boundaries."""
    found = [Span(i, i + len(phrase)) for i in range(len(text)) if text.startswith(phrase, i)]
    return [span for span in found if is_bounded(text, span.start, span.end)]


def test_an_effect_prefers_the_target_and_a_cause_the_nearest_place() -> None:
    text = "Yes or no? Tom has 5 eggs. Ann has 5 eggs too. no, then yes"
    target_start = text.index("no, then")
    relations, _ = ground(text, target_start, [relation("no", "5 eggs")])
    (found,) = relations
    assert found.effect.span.start == target_start
    assert not found.effect.doubtful  # only one in the target
    assert found.effect.candidates == 2
    assert found.causes[0].span.start == text.rindex("5 eggs")
    assert found.causes[0].doubtful
    assert found.causes[0].candidates == 2


def test_an_effect_takes_an_earlier_place_for_a_cause_that_its_segment_has_not_before_it() -> None:
    text = "sum is 7. So 3 and 4. Then sum is 7."
    asked = QuotedRelation(Quote("7", 1), (Quote("sum", 1), Quote("4", 2)))
    relations, unresolved = ground(text, len(text), [asked])
    assert unresolved == ()
    assert spans(relations) == [((7, 8), [(0, 3)]), ((34, 35), [(19, 20)])]
    assert [r.effect.doubtful for r in relations] == [False, True]


def test_a_cause_may_end_where_its_effect_begins_but_not_later() -> None:
    relations, unresolved = ground("猫狗", 1, [relation("狗", "猫"), relation("猫", "狗"), relation("狗", "猫狗")])
    assert spans(relations) == [((1, 2), [(0, 1)])]
    assert [edge.reason for edge in unresolved] == [Reason.NOT_BEFORE_EFFECT] * 2


def test_what_cannot_be_grounded_says_why() -> None:
    text = "Tom has 58 eggs. Answer: 58"
    asked = [relation("58", "5 eggs", "Tom", "", "Answer: 58"), relation("nobody", "Tom"), relation("", "Tom")]
    relations, unresolved = ground(text, 25, asked)
    assert spans(relations) == [((25, 27), [(0, 3)])]
    assert unresolved == (
        Unresolved("58", "5 eggs", Reason.NOT_FOUND),
        Unresolved("58", "", Reason.EMPTY),
        Unresolved("58", "Answer: 58", Reason.NOT_BEFORE_EFFECT),
        Unresolved("nobody", "Tom", Reason.NOT_FOUND, effect_at_fault=True),
        Unresolved("", "Tom", Reason.EMPTY, effect_at_fault=True),
    )


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("the RED  apples", "the\nred apples"),
        ("“5” eggs", '"5" eggs'),
        ("5–10 days", "5-10 days"),
    ],
)
def test_folding_finds_the_texts_own_spelling(quote: str, found: str) -> None:
    text = f"Now {found} End"
    (relation_,), _ = ground(text, len(text) - 3, [relation("End", quote)])
    assert relation_.causes[0].grounding is Grounding.FOLDED
    assert relation_.causes[0].span.of(text) == found


def test_a_cause_that_stands_only_after_its_effect_is_looked_for_in_another_spelling_before_it() -> None:
    text = "How many eggs? There are 5 of how many eggs"
    (found,), unresolved = ground(text, 25, [relation("5", "how many eggs")])
    assert unresolved == ()
    assert found.causes[0].span == Span(0, 13)
    assert found.causes[0].grounding is Grounding.FOLDED


def test_two_readings_of_a_misquote_that_tie_are_ambiguous() -> None:
    text = "the big red barns stood, the big red barny stood. Answer: 4"
    relations, (edge,) = ground(text, len(text) - 1, [relation("4", "the big red barnz stood")])
    assert relations == ()
    assert edge.reason is Reason.AMBIGUOUS


def test_a_hostile_reply_is_worked_through_in_bounded_time() -> None:
    text = "a " * 10_000 + "b"
    asked = [relation("a", *["b"] * 50, *[f"a a a {i} zzz" for i in range(50)])] * 10
    relations, unresolved = ground(text, len(text) - 1, asked)
    assert relations == ()
    assert len(unresolved) == 1000
