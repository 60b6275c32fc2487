"""Annotations as JSON, for the database, the API and files. Spans count code points."""

from collections.abc import Mapping
from typing import Any

from core.domain.annotation import (
    Annotation,
    GroundedRelation,
    Outcome,
    Phrase,
    Reason,
    Unresolved,
    Usage,
)
from core.domain.spans import Grounding, Span


def annotation_to_json(annotation: Annotation) -> dict[str, Any]:
    """The whole annotation as one JSON object."""
    return {
        "outcome": annotation.outcome.value,
        "relations": [grounded_to_json(relation) for relation in annotation.relations],
        "unresolved": [unresolved_to_json(edge) for edge in annotation.unresolved],
        "raw_reply": annotation.raw_reply,
        "usage": {
            "prompt_tokens": annotation.usage.prompt_tokens,
            "completion_tokens": annotation.usage.completion_tokens,
        },
        "prompt_hash": annotation.prompt_hash,
        "detail": annotation.detail,
    }


def annotation_from_json(value: Mapping[str, Any]) -> Annotation:
    """Inverse of annotation_to_json, for JSON that we wrote ourselves."""
    return Annotation(
        outcome=Outcome(value["outcome"]),
        relations=tuple(grounded_from_json(relation) for relation in value["relations"]),
        unresolved=tuple(unresolved_from_json(edge) for edge in value["unresolved"]),
        raw_reply=value["raw_reply"],
        usage=Usage(**value["usage"]),
        prompt_hash=value["prompt_hash"],
        detail=value["detail"],
    )


def grounded_to_json(relation: GroundedRelation) -> dict[str, Any]:
    """{"effect": phrase, "causes": [phrase, ...]}; a phrase has start, end, quote, grounding, candidates, doubtful."""
    return {"effect": _phrase_to_json(relation.effect), "causes": [_phrase_to_json(c) for c in relation.causes]}


def grounded_from_json(value: Mapping[str, Any]) -> GroundedRelation:
    """Inverse of grounded_to_json, for JSON that we wrote ourselves."""
    return GroundedRelation(_phrase_from_json(value["effect"]), tuple(_phrase_from_json(c) for c in value["causes"]))


def unresolved_to_json(edge: Unresolved) -> dict[str, Any]:
    """{"effect", "cause", "reason", "effect_at_fault"}."""
    return {
        "effect": edge.effect,
        "cause": edge.cause,
        "reason": edge.reason.value,
        "effect_at_fault": edge.effect_at_fault,
    }


def unresolved_from_json(value: Mapping[str, Any]) -> Unresolved:
    """Inverse of unresolved_to_json, for JSON that we wrote ourselves."""
    return Unresolved(value["effect"], value["cause"], Reason(value["reason"]), bool(value.get("effect_at_fault")))


def _phrase_to_json(phrase: Phrase) -> dict[str, Any]:
    return {
        "start": phrase.span.start,
        "end": phrase.span.end,
        "quote": phrase.quote,
        "grounding": phrase.grounding.value,
        "candidates": phrase.candidates,
        "doubtful": phrase.doubtful,
    }


def _phrase_from_json(value: Mapping[str, Any]) -> Phrase:
    return Phrase(
        Span(value["start"], value["end"]),
        value["quote"],
        Grounding(value["grounding"]),
        value["candidates"],
        value["doubtful"],
    )
