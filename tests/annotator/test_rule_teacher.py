import asyncio
from pathlib import Path
from types import ModuleType

import pytest

from annotator.annotate import annotate_one, open_teacher
from annotator.prior import load_prior
from benchmarks import stg, stg_h
from core.domain.annotation import Annotation, Example, Outcome, Prior, Rule, TeacherConfig
from core.errors import InvalidInput

PRIORS = Path(__file__).parents[2] / "examples" / "priors"
STG = load_prior((PRIORS / "stg.yaml").read_text(encoding="utf-8"))
STG_H = load_prior((PRIORS / "stg_h.yaml").read_text(encoding="utf-8"))


def label(prior: Prior, *examples: Example) -> list[Annotation]:
    async def run() -> list[Annotation]:
        async with open_teacher(TeacherConfig("rule", "rule"), prior) as teacher:
            return [await annotate_one(teacher, example) for example in examples]

    return asyncio.run(run())


def ruled(*rules: Rule) -> Prior:
    return Prior("p", "1", "i", rules=rules)


@pytest.mark.parametrize("ood", [False, True])
@pytest.mark.parametrize(("prior", "generator"), [(STG, stg), (STG_H, stg_h)], ids=["stg", "stg_h"])
def test_the_shipped_rules_label_as_the_generator_does(prior: Prior, generator: ModuleType, ood: bool) -> None:
    examples = list(generator.generate(200, seed=4, ood=ood))
    for example, annotation in zip(examples, label(prior, *examples), strict=True):
        assert annotation.outcome is Outcome.LABELLED
        assert tuple(r.relation for r in annotation.relations) == example.relations


def test_every_match_of_an_effect_pattern_has_the_causes_before_it() -> None:
    example = Example("a1 b a2 ", "b a3")
    (annotation,) = label(ruled(Rule((r"a\d",), "b")), example)
    found = [(r.effect.span.start, [c.span.of(example.text) for c in r.causes]) for r in annotation.relations]
    assert found == [(3, ["a1"]), (8, ["a1", "a2"])]


def test_a_group_narrows_the_span() -> None:
    (annotation,) = label(ruled(Rule((r"fee: (\d+)",))), Example("fee: 12 ", "yes"))
    assert [c.quote for c in annotation.relations[0].causes] == ["12"]


def test_nothing_found_is_empty() -> None:
    assert [a.outcome for a in label(ruled(Rule(("x*",))), Example("abc ", "y"), Example("", "xx"))] == [
        Outcome.EMPTY,
        Outcome.EMPTY,
    ]


def test_a_pattern_that_explodes_costs_its_item_only() -> None:
    bad, good = label(ruled(Rule((r"ok|(?:a|aa)+$",))), Example("a" * 5000 + "b", "y"), Example("ok ", "y"))
    assert (bad.outcome, good.outcome) == (Outcome.FAILED, Outcome.LABELLED)
    assert "longer" in bad.detail


def test_an_empty_target_fails_and_a_prior_without_rules_is_refused() -> None:
    assert label(STG, Example("a", ""))[0].outcome is Outcome.FAILED
    with pytest.raises(InvalidInput, match="no rules"):
        label(ruled(), Example("a", "b"))


def test_an_unknown_kind_of_teacher_is_refused() -> None:
    async def run() -> None:
        async with open_teacher(TeacherConfig("t", "oracle"), STG):
            pass

    with pytest.raises(InvalidInput, match="oracle"):
        asyncio.run(run())
