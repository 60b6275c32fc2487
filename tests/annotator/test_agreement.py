from annotator.agreement import Agreement, score_to_json
from annotator.quality import Score
from core.domain.relations import Relation
from core.domain.spans import Span

WHOLE = Relation(Span(10, 14), (Span(0, 4), Span(5, 9)))
SHORTER = Relation(Span(10, 14), (Span(0, 4), Span(5, 7)))


def test_scores_add_up_over_examples() -> None:
    agreement = Agreement()
    exact, characters = agreement.add([SHORTER], [WHOLE])
    assert (exact, characters) == (Score(1, 2, 2), Score(24, 24, 32))
    agreement.add([], [WHOLE])
    agreement.add([], [])
    found = agreement.to_json()
    assert found["examples"] == 3
    assert found["exact"] == {
        "precision": 0.5,
        "recall": 0.25,
        "f1": 0.3333,
        "shared": 1,
        "predicted": 2,
        "expected": 4,
    }
    assert found["characters"]["recall"] == 0.375


def test_shares_of_nothing_are_one() -> None:
    shares = score_to_json(Score())
    assert (shares["precision"], shares["recall"], shares["f1"]) == (1.0, 1.0, 1.0)
