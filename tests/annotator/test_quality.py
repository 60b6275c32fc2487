from hypothesis import given
from hypothesis import strategies as st

from annotator.quality import Quality, Score, confidence, score_characters, score_edges
from core.domain.annotation import Annotation, Example, GroundedRelation, Outcome, Phrase, Reason, Unresolved
from core.domain.relations import Relation
from core.domain.spans import Grounding, Span

spans = st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda pair: Span(pair[0], pair[0] + pair[1]))
relations = st.lists(
    st.builds(lambda effect, causes: Relation(effect, tuple(causes)), spans, st.lists(spans, min_size=1, max_size=3)),
    max_size=4,
)


def pairs(said: list[Relation]) -> set[tuple[int, int]]:
    """Slow reference: every pair of characters, spelled out."""
    return {
        (e, c)
        for relation in said
        for cause in relation.causes
        for e in range(relation.effect.start, relation.effect.end)
        for c in range(cause.start, cause.end)
    }


@given(relations, relations)
def test_agreement_by_characters_equals_the_slow_reference(one: list[Relation], other: list[Relation]) -> None:
    a, b = pairs(one), pairs(other)
    assert score_characters(one, other) == Score(len(a & b), len(a), len(b))


@given(relations, relations)
def test_agreement_is_symmetric_and_whole_with_oneself(one: list[Relation], other: list[Relation]) -> None:
    for score in (score_edges, score_characters):
        assert score(one, other).f1 == score(other, one).f1
        assert score(one, other).precision == score(other, one).recall
        assert score(one, one).f1 == 1
        assert 0 <= score(one, other).f1 <= 1


def test_scores_of_examples_add_up() -> None:
    total = Score(1, 2, 4) + Score(3, 3, 4)
    assert (total.precision, total.recall, total.f1) == (0.8, 0.5, 8 / 13)
    assert (Score().precision, Score().recall, Score().f1) == (1, 1, 1)


def test_a_cause_quoted_shorter_agrees_in_part() -> None:
    gold = [Relation(Span(20, 22), (Span(0, 10),))]
    said = [Relation(Span(20, 22), (Span(0, 5),))]
    assert score_edges(said, gold).f1 == 0
    assert (score_characters(said, gold).precision, score_characters(said, gold).recall) == (1, 0.5)


def test_confidence_is_the_votes_agreement() -> None:
    one, other = [Relation(Span(9, 10), (Span(0, 2),))], [Relation(Span(9, 10), (Span(3, 5),))]
    assert confidence([one]) == 1
    assert confidence([one, one, one]) == 1
    assert confidence([one, one, other]) == 1 / 3
    assert confidence([one, []]) == 0


def test_quality_adds_up() -> None:
    example = Example("Tom has 5. ", "5")
    phrase = Phrase(Span(11, 12), "5", Grounding.EXACT, 2, doubtful=True)
    cause = Phrase(Span(0, 3), "Tom", Grounding.EXACT)
    labelled = Annotation(
        Outcome.LABELLED,
        (GroundedRelation(phrase, (cause,)), GroundedRelation(Phrase(Span(8, 9), "5", Grounding.EXACT), (cause,))),
        (Unresolved("5", "6", Reason.NOT_FOUND), Unresolved("Tom", "5", Reason.NOT_BEFORE_EFFECT)),
    )
    quality = Quality()
    quality.add(example, labelled)
    quality.add(example, Annotation(Outcome.UNREADABLE))
    assert quality.to_json() == {
        "examples": 2,
        "outcomes": {"labelled": 1, "unreadable": 1},
        "edges": 4,
        "kept": 2,
        "doubtful": 1,
        "unresolved": {"not_found": 1, "not_before_effect": 1},
        "answer_supervised": 1,
        "grounded_share": 0.5,
        "backward_edges": 1,
    }
