"""Costs to the billionth."""

from hypothesis import given
from hypothesis import strategies as st

from core.domain.annotation import TeacherConfig, Usage
from core.domain.spending import Budget, Cost, cost_of, nano_usd, usd

PRICED = TeacherConfig("t", "openai", prompt_price=0.15, completion_price=0.6)
USAGES = st.builds(Usage, st.integers(0, 10**7), st.integers(0, 10**5))


def test_a_million_tokens_cost_their_price() -> None:
    assert cost_of(Usage(1_000_000, 0), PRICED) == Cost(1_000_000, nano_usd(0.15))
    assert cost_of(Usage(1_000, 500), PRICED) == Cost(1_500, 450_000)
    assert cost_of(Usage(5, 5), TeacherConfig("t", "rule")) == Cost(10, 0)
    assert usd(nano_usd(12.345678912)) == 12.345678912


@given(USAGES, USAGES)
def test_more_tokens_never_cost_less(one: Usage, more: Usage) -> None:
    both = Usage(one.prompt_tokens + more.prompt_tokens, one.completion_tokens + more.completion_tokens)
    assert cost_of(both, PRICED).nano_usd >= cost_of(one, PRICED).nano_usd
    assert cost_of(both, PRICED).nano_usd <= (cost_of(one, PRICED) + cost_of(more, PRICED)).nano_usd


def test_a_budget_holds_what_is_within_each_of_its_bounds() -> None:
    assert Budget().holds(Cost(10**15, 10**15))
    assert Budget(tokens=5).holds(Cost(5, 10**15))
    assert not Budget(tokens=5).holds(Cost(6, 0))
    assert not Budget(tokens=5, nano_usd=5).holds(Cost(5, 6))
