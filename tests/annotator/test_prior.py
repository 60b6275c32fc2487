import json
from pathlib import Path

import pytest

from annotator.prior import MAX_PATTERN, check_prior, load_prior, prior_from_json, prior_to_json
from core.domain.annotation import Prior, Quote
from core.errors import InvalidInput, PriorNotGrounded

SHIPPED = sorted((Path(__file__).parents[2] / "examples" / "priors").glob("*.yaml"))
YAML = """
name: fees
version: 1
instructions: The fee follows from the weight.
demonstrations:
  - input: "Weight: 5. Colour: red. Fee: "
    target: 80.0
    relations:
      - effect: 80.0
        causes: ["Weight: 5"]
  - input: "Weight: 6. Fee: "
    target: No
    relations:
      - effect: {quote: No, segment: 3}
        causes: [{quote: "Weight: 6", segment: 1}]
rules:
  - causes: ['Weight: \\d+']
  - causes: ['Weight: \\d+']
    effect: '\\d+\\.\\d'
"""


def changed(**changes: object) -> dict[str, object]:
    return {**prior_to_json(load_prior(YAML)), **changes}


def demonstration(**changes: object) -> list[object]:
    good = {"input": "Weight: 5. ", "target": "80", "relations": [{"effect": "80", "causes": ["Weight: 5"]}]}
    return [{**good, **changes}]


def test_scalars_stay_the_text_that_was_written() -> None:
    prior = load_prior(YAML)
    assert prior.version == "1"
    assert [d.target for d in prior.demonstrations] == ["80.0", "No"]
    assert prior.demonstrations[1].relations[0].effect == Quote("No", 3)
    check_prior(prior)


def test_a_prior_survives_json() -> None:
    prior = load_prior(YAML)
    assert prior_from_json(prior_to_json(prior)) == prior
    assert load_prior(json.dumps(prior_to_json(prior))) == prior


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "prior"),
        ({"name": "a", "version": "1"}, "prior.instructions"),
        (changed(colour="red"), "prior"),
        (changed(name=""), "name"),
        (changed(name="a/b"), "name"),
        (changed(version=1), "version"),
        (changed(instructions=" "), "instructions"),
        (changed(instructions="x" * 20_001), "instructions"),
        (changed(demonstrations={}), "demonstrations"),
        (changed(demonstrations=[], rules=[]), "demonstrations"),
        (changed(demonstrations=demonstration() * 21), "demonstrations"),
        (changed(demonstrations=demonstration(target="")), "demonstrations[0].target"),
        (changed(demonstrations=demonstration(relations=[])), "demonstrations[0]"),
        (changed(demonstrations=demonstration(relations=[{"effect": "80"}])), "demonstrations[0].relations[0].causes"),
        (
            changed(demonstrations=demonstration(relations=[{"effect": 80, "causes": []}])),
            "demonstrations[0].relations[0].effect",
        ),
        (
            changed(demonstrations=demonstration(relations=[{"effect": {"quote": "80", "segment": 0}, "causes": []}])),
            "demonstrations[0].relations[0].effect.segment",
        ),
        (changed(rules=[{"causes": []}]), "rules[0].causes"),
        (changed(rules=[{"causes": ["("]}]), "rules[0].causes[0]"),
        (changed(rules=[{"causes": ["a" * (MAX_PATTERN + 1)]}]), "rules[0].causes[0]"),
        (changed(rules=[{"causes": ["(((a{999}){999}){999})"]}]), "rules[0].causes[0]"),
        (changed(rules=[{"causes": [r"\p{L}"]}]), "rules[0].causes[0]"),
        (changed(rules=[{"causes": ["a"], "effect": "[z-a]"}]), "rules[0].effect"),
    ],
)
def test_what_is_wrong_is_named(document: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        prior_from_json(document)
    assert caught.value.facts["field"] == field


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "not valid YAML"),
        ("a: &x [1]\nb: *x", "aliases are not allowed"),
        ("name: a\nname: b", "'name' is given twice"),
        ("- " * 300_000, "may have 400000 characters"),
        ("\x00", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("!!python/object:os.system {}", "lacks"),  # a tag makes no object: it is an empty mapping
    ],
)
def test_what_is_not_plain_yaml_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        load_prior(text)


@pytest.mark.parametrize(
    ("relation", "phrase", "reason"),
    [
        ({"effect": "80", "causes": ["Weight: 7"]}, "Weight: 7", "not_found"),
        ({"effect": "90", "causes": ["Weight: 5"]}, "90", "not_found"),
        ({"effect": "Weight", "causes": ["80"]}, "80", "not_before_effect"),
        ({"effect": "80", "causes": []}, "80", "empty"),
        ({"effect": "80", "causes": ["Weights: 5"]}, "Weights: 5", "misquoted"),
    ],
)
def test_a_demonstration_that_does_not_ground_is_named(relation: object, phrase: str, reason: str) -> None:
    prior = prior_from_json(changed(demonstrations=demonstration() + demonstration(relations=[relation])))
    with pytest.raises(PriorNotGrounded) as caught:
        check_prior(prior)
    assert caught.value.facts["phrase"] == phrase
    assert caught.value.facts["reason"] == reason
    assert caught.value.facts["field"] == "demonstrations[1]"
    assert phrase in caught.value.message


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_priors_that_ship_ground(path: Path) -> None:
    prior: Prior = load_prior(path.read_text(encoding="utf-8"))
    check_prior(prior)
    assert prior.name == path.stem
    assert 2 <= len(prior.demonstrations) <= 5
