import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.relations import Relation, relation_from_json, relation_to_json
from core.domain.spans import Span
from core.errors import InvalidSpan

spans = st.tuples(st.integers(0, 200), st.integers(1, 50)).map(lambda p: Span(p[0], p[0] + p[1]))


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (3, 3), (4, 2)])
def test_a_span_is_never_negative_or_empty(start: int, end: int) -> None:
    with pytest.raises(InvalidSpan):
        Span(start, end)


@given(spans, spans)
def test_two_spans_overlap_unless_one_precedes_the_other(a: Span, b: Span) -> None:
    assert a.overlaps(b) == (not a.precedes(b) and not b.precedes(a))
    assert a.overlaps(b) == bool(set(range(a.start, a.end)) & set(range(b.start, b.end)))


def test_offsets_are_code_points_not_utf16_units() -> None:
    text = "\N{PILE OF POO} smoke"  # two units in JavaScript, one here
    assert Span(2, 7).of(text) == "smoke"


def test_a_relation_without_causes_says_nothing() -> None:
    with pytest.raises(InvalidSpan, match="at least one cause"):
        Relation(Span(0, 1), ())


def test_a_cause_may_touch_its_effect_but_not_reach_into_it() -> None:
    text = "rain floods"
    Relation(Span(4, 11), (Span(0, 4),)).check_against(text)
    with pytest.raises(InvalidSpan, match="does not end before"):
        Relation(Span(4, 11), (Span(0, 5),)).check_against(text)


def test_a_span_beyond_the_text_is_refused_with_its_length() -> None:
    with pytest.raises(InvalidSpan, match="4 code points"):
        Relation(Span(2, 5), (Span(0, 1),)).check_against("abcd")


@given(spans, st.lists(spans, min_size=1, max_size=5))
def test_the_wire_form_round_trips(effect: Span, causes: list[Span]) -> None:
    relation = Relation(effect, tuple(causes))
    assert relation_from_json(relation_to_json(relation)) == relation
