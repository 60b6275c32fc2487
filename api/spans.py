"""Relations that users send as spans, checked against their text."""

from collections.abc import Sequence

from api.schemas.datasets import RelationIn
from core.domain.relations import Relation
from core.domain.spans import Span
from core.errors import InvalidSpan, PayloadTooLarge


def read_relations(sent: Sequence[RelationIn], text: str, *, most: int) -> list[Relation]:
    """What was sent as relations of `text`.

    Raises
    ------
    InvalidSpan
        When a span is empty or lies outside the text, or a cause is not before its effect. Facts: `field`.
    PayloadTooLarge
        When there are more than `most`.
    """
    check_number(len(sent), "relations", most=most)
    relations = []
    for index, one in enumerate(sent):
        try:
            relation = Relation(Span(one.effect.start, one.effect.end), tuple(Span(c.start, c.end) for c in one.causes))
            relation.check_against(text)
        except InvalidSpan as exc:
            raise InvalidSpan(exc.message, field=f"relations[{index}]", **exc.facts) from exc
        relations.append(relation)
    return relations


def check_number(number: int, field: str, *, most: int) -> None:
    """Raise PayloadTooLarge when there are more than `most` relations in `field`."""
    if number > most:
        raise PayloadTooLarge(f"{field}: {number} relations, at most {most} are allowed", field=field, limit=most)
