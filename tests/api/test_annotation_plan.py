import pytest

from annotator.prior import prior_from_json
from annotator.prompts import render
from api import annotation_plan
from api.annotation_plan import plan_view
from core.annotations import AnnotationPlan
from core.db.models import PriorRow
from core.domain.annotation import Example, TeacherConfig
from tests.api.conftest import PRIOR

SAMPLE = [Example(f"There are {n} eagles here. ", f"{n} eagles", str(n)) for n in range(10)]
GPT = TeacherConfig("gpt", "openai", prompt_price=2.0, completion_price=10.0)


def plan(items: int, *patterns: str) -> AnnotationPlan:
    body = PRIOR | ({"rules": [{"causes": list(patterns)}]} if patterns else {})
    return AnnotationPlan(items, {"train": items}, SAMPLE, PriorRow(body=body))


def test_three_prompts_and_a_cost_that_grows_with_the_items() -> None:
    ten, thousand = (plan_view(plan(items), GPT) for items in (10, 1000))
    assert ten.prompts == [render(prior_from_json(PRIOR), example) for example in SAMPLE[:3]]
    assert ten.estimated_from == thousand.estimated_from == 10
    assert thousand.tokens == 100 * ten.tokens > 0
    assert thousand.usd == pytest.approx(100 * ten.usd)
    assert 2e-6 * ten.tokens < ten.usd < 10e-6 * ten.tokens
    assert ten.silent_patterns == []  # a model does not use them


def test_rules_cost_nothing_and_are_tried() -> None:
    found = plan_view(plan(10, "[0-9]+ eagles", "[0-9]+ owls"), TeacherConfig("rule", "rule"))
    assert (found.tokens, found.usd, len(found.prompts)) == (0, 0.0, 3)
    assert found.silent_patterns == ["rules[0].causes[1]"]


def test_patterns_that_explode_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotation_plan, "_PATIENCE", -1.0)
    found = plan_view(plan(10, "[0-9]+ eagles"), TeacherConfig("rule", "rule"))
    assert found.silent_patterns == ["rules[0].causes[0]"]  # never tried, so never seen to match
