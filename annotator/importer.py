"""The published CAT label format: `"important": [{"effect": ["cause", ...]}, ...]` over `text = input + target`.

Also accepted: one bare object instead of the list, one string instead of a list of causes (never iterated by
character), and a number for a text. Anything else is counted as malformed, not guessed at.
"""

from collections.abc import Iterable
from typing import Any

from annotator.grounding import ground
from core.domain.annotation import GroundedRelation, Quote, QuotedRelation, Unresolved


def read_important(important: Any) -> tuple[tuple[QuotedRelation, ...], int]:
    """The relations of a published record, and how many of its entries were malformed."""
    relations: list[QuotedRelation] = []
    malformed = 0
    for entry in _entries(important):
        if not isinstance(entry, dict):
            malformed += 1
            continue
        for effect, causes in entry.items():
            quotes, bad = _causes(causes)
            malformed += bad
            if quotes or not bad:
                relations.append(QuotedRelation(Quote(str(effect)), quotes))
    return tuple(relations), malformed


def read_texts(record: Any) -> tuple[str, str] | None:
    """Input and target of a published record, a number read as it is written; None when it has not both."""
    if not isinstance(record, dict):
        return None
    input_, target = _as_text(record.get("input")), _as_text(record.get("target"))
    return None if input_ is None or target is None else (input_, target)


def write_important(relations: Iterable[QuotedRelation]) -> list[dict[str, list[str]]]:
    """Inverse of read_important (segments are not part of the format)."""
    return [{relation.effect.quote: [cause.quote for cause in relation.causes]} for relation in relations]


def ground_important(
    input_: str, target: str, important: Any
) -> tuple[tuple[GroundedRelation, ...], tuple[Unresolved, ...]]:
    """Ground the `important` value of one published record. Never raises; malformed entries are left out."""
    relations, _ = read_important(important)
    return ground(input_ + target, len(input_), relations)


def _entries(important: Any) -> list[Any]:
    if important is None:
        return []
    return important if isinstance(important, list) else [important]


def _causes(causes: Any) -> tuple[tuple[Quote, ...], int]:
    listed = causes if isinstance(causes, list) else [causes]
    texts = [text for cause in listed if (text := _as_text(cause)) is not None]
    return tuple(map(Quote, texts)), len(listed) - len(texts)


def _as_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else None
