"""Priors as people write them (YAML or JSON), read strictly: every error names the field and how to mend it."""

import math
import re
from collections.abc import Mapping
from typing import Any

import regex
import yaml

from annotator.grounding import ground
from annotator.prior_yaml import parse_yaml
from core.domain.annotation import Demonstration, Prior, Quote, QuotedRelation, Rule
from core.domain.spans import Grounding
from core.errors import InvalidInput, PriorNotGrounded

MAX_PRIOR = 400_000  # characters of YAML
MAX_TEXT = 20_000  # characters of instructions, of an input, of a target
MAX_DEMONSTRATIONS = 20
MAX_RELATIONS = 200  # of one demonstration
MAX_RULES = 50
MAX_PATTERN = 500  # characters of one regular expression; its running time is bounded where it runs
MAX_REPEATS = 1000  # product of the counts of a pattern: `regex` unrolls them, and ((a{999}){999}){999} fills memory
_COUNT = re.compile(r"\{(\d*),?(\d*)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def load_prior(text: str) -> Prior:
    """A prior from YAML (or JSON) text. Raises InvalidInput naming the field; see also check_prior."""
    if len(text) > MAX_PRIOR:
        raise InvalidInput(f"a prior may have {MAX_PRIOR} characters, this one has {len(text)}", field="prior")
    try:
        document = parse_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"the prior is not valid YAML: {_where(exc)}", field="prior") from exc
    return prior_from_json(document)


def prior_from_json(value: Any) -> Prior:
    """A prior from a JSON object.

    {"name", "version", "instructions", "demonstrations": [{"input", "target", "relations": [{"effect": "quote" or
    {"quote", "segment"}, "causes": [the same, ...]}]}], "rules": [{"causes": [regex, ...], "effect": regex}]}.
    Demonstrations and rules may be missing, but not both. Raises InvalidInput naming the field.
    """
    _check_fields(value, "prior", {"name", "version", "instructions"}, {"demonstrations", "rules"})
    prior = Prior(
        name=_name(value["name"], "name"),
        version=_name(value["version"], "version"),
        instructions=_text(value["instructions"], "instructions"),
        demonstrations=tuple(
            _demonstration(entry, f"demonstrations[{i}]")
            for i, entry in enumerate(_list(value.get("demonstrations", []), "demonstrations", MAX_DEMONSTRATIONS))
        ),
        rules=tuple(
            _rule(entry, f"rules[{i}]") for i, entry in enumerate(_list(value.get("rules", []), "rules", MAX_RULES))
        ),
    )
    if not prior.demonstrations and not prior.rules:
        raise InvalidInput("a prior needs at least one demonstration or rule", field="demonstrations")
    return prior


def prior_to_json(prior: Prior) -> dict[str, Any]:
    """Inverse of prior_from_json."""
    return {
        "name": prior.name,
        "version": prior.version,
        "instructions": prior.instructions,
        "demonstrations": [
            {
                "input": demonstration.input,
                "target": demonstration.target,
                "relations": [
                    {"effect": _quote_to_json(r.effect), "causes": [_quote_to_json(cause) for cause in r.causes]}
                    for r in demonstration.relations
                ],
            }
            for demonstration in prior.demonstrations
        ],
        "rules": [
            {"causes": list(rule.causes)} | ({} if rule.effect is None else {"effect": rule.effect})
            for rule in prior.rules
        ],
    }


def check_prior(prior: Prior) -> None:
    """Raise PriorNotGrounded naming the first phrase of a demonstration that is not in it word for word."""
    for index, demonstration in enumerate(prior.demonstrations):
        where = f"demonstrations[{index}]"
        text = demonstration.input + demonstration.target
        relations, unresolved = ground(text, len(demonstration.input), demonstration.relations)
        for edge in unresolved:
            phrase = edge.effect if edge.effect_at_fault or not edge.cause else edge.cause
            raise PriorNotGrounded(
                f"{where}: the phrase {phrase!r} {_TROUBLE[edge.reason.value]}; quote the demonstration word for word",
                field=where,
                phrase=phrase,
                reason=edge.reason.value,
            )
        for located in (p for relation in relations for p in (relation.effect, *relation.causes)):
            if located.grounding is Grounding.FUZZY:
                raise PriorNotGrounded(
                    f"{where}: the phrase {located.quote!r} is misquoted, the text has {located.span.of(text)!r}",
                    field=where,
                    phrase=located.quote,
                    reason="misquoted",
                )


_TROUBLE = {
    "not_found": "is not in it",
    "not_before_effect": "is a cause but does not end before its effect begins",
    "ambiguous": "resembles two different parts of it equally",
    "empty": "is empty, or an effect without causes",
}


def _demonstration(value: Any, where: str) -> Demonstration:
    _check_fields(value, where, {"input", "target", "relations"}, set())
    relations = _list(value["relations"], f"{where}.relations", MAX_RELATIONS)
    if not relations:
        raise InvalidInput(f"{where}.relations is empty: a demonstration shows at least one", field=where)
    return Demonstration(
        input=_text(value["input"], f"{where}.input"),
        target=_text(value["target"], f"{where}.target"),
        relations=tuple(_relation(entry, f"{where}.relations[{i}]") for i, entry in enumerate(relations)),
    )


def _relation(value: Any, where: str) -> QuotedRelation:
    _check_fields(value, where, {"effect", "causes"}, set())
    causes = _list(value["causes"], f"{where}.causes", MAX_RELATIONS)
    return QuotedRelation(
        _quote(value["effect"], f"{where}.effect"),
        tuple(_quote(cause, f"{where}.causes[{i}]") for i, cause in enumerate(causes)),
    )


def _quote(value: Any, where: str) -> Quote:
    if isinstance(value, str):
        return Quote(_text(value, where))
    _check_fields(value, where, {"quote"}, {"segment"})
    segment = value.get("segment")
    if isinstance(segment, str) and segment.isascii() and segment.isdigit():
        segment = int(segment)
    if segment is not None and (type(segment) is not int or not 1 <= segment <= MAX_TEXT):
        raise InvalidInput(f"{where}.segment must be the number of a segment, from 1", field=f"{where}.segment")
    return Quote(_text(value["quote"], f"{where}.quote"), segment)


def _rule(value: Any, where: str) -> Rule:
    _check_fields(value, where, {"causes"}, {"effect"})
    causes = _list(value["causes"], f"{where}.causes", MAX_RULES)
    if not causes:
        raise InvalidInput(f"{where}.causes needs at least one regular expression", field=f"{where}.causes")
    effect = value.get("effect")
    return Rule(
        tuple(_pattern(cause, f"{where}.causes[{i}]") for i, cause in enumerate(causes)),
        None if effect is None else _pattern(effect, f"{where}.effect"),
    )


def _pattern(value: Any, where: str) -> str:
    pattern = _text(value, where)
    if len(pattern) > MAX_PATTERN:
        raise InvalidInput(f"{where} has {len(pattern)} characters, at most {MAX_PATTERN} are allowed", field=where)
    repeats = math.prod(max(int(low or 1), int(high or 1), 1) for low, high in _COUNT.findall(pattern))
    if repeats > MAX_REPEATS:
        raise InvalidInput(f"{where}: its counted repeats multiply to more than {MAX_REPEATS}", field=where)
    try:
        re.compile(pattern)  # what is promised is the syntax of Python's re; `regex` alone would allow more
        regex.compile(pattern)
    except (re.error, regex.error, OverflowError, RecursionError) as exc:
        raise InvalidInput(f"{where} is not a regular expression: {exc}", field=where) from exc
    return pattern


def _check_fields(value: Any, where: str, needed: set[str], optional: set[str]) -> None:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where} must be an object with {', '.join(sorted(needed))}", field=where)
    for name in sorted(needed - value.keys()):
        raise InvalidInput(f"{where} lacks {name}", field=f"{where}.{name}")
    for name in sorted(value.keys() - needed - optional, key=str):
        known = ", ".join(sorted(needed | optional))
        raise InvalidInput(f"{where} has an unknown field {str(name)[:50]!r}; known are {known}", field=where)


def _list(value: Any, where: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"{where} must be a list", field=where)
    if len(value) > most:
        raise InvalidInput(f"{where} has {len(value)} entries, at most {most} are allowed", field=where)
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{where} must be text, got {type(value).__name__}: put it in quotes", field=where)
    if not value.strip():
        raise InvalidInput(f"{where} is empty", field=where)
    if len(value) > MAX_TEXT:
        raise InvalidInput(f"{where} has {len(value)} characters, at most {MAX_TEXT} are allowed", field=where)
    return value


def _name(value: Any, where: str) -> str:
    text = _text(value, where)
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            f"{where} must be 1 to 100 letters, digits, dots, dashes or underscores, starting with a letter or digit",
            field=where,
        )
    return text


def _where(exc: Exception) -> str:
    """The trouble and its line, without the user's text around it."""
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None) or type(exc).__name__
    return f"{problem} (line {mark.line + 1})" if mark is not None else str(problem)


def _quote_to_json(quote: Quote) -> str | dict[str, Any]:
    return quote.quote if quote.segment is None else {"quote": quote.quote, "segment": quote.segment}
