import pytest

from benchmarks import accuracy, stg
from core.domain.annotation import Example

EXAMPLES = list(stg.generate(40, seed=5))


def _causes(example: Example) -> list[str]:
    return [cause.of(example.text) for relation in example.relations for cause in relation.causes]


@pytest.mark.parametrize("control", sorted(accuracy.CONTROLS))
def test_a_control_changes_the_causes_and_nothing_else(control: str) -> None:
    relabelled = accuracy.CONTROLS[control](EXAMPLES)
    assert [(e.id, e.input, e.target) for e in relabelled] == [(e.id, e.input, e.target) for e in EXAMPLES]
    assert sum(_causes(a) != _causes(b) for a, b in zip(relabelled, EXAMPLES, strict=True)) > 30
    for example in relabelled:
        for relation in example.relations:
            relation.check_against(example.text)


def test_shortcuts_are_the_three_that_only_go_along() -> None:
    for example in accuracy.shortcuts(EXAMPLES):
        assert sorted(cause.rpartition(":")[0] for cause in _causes(example)) == sorted(stg.SPURIOUS)


def test_random_causes_are_whole_phrases_of_the_example() -> None:
    for example in accuracy.at_random(EXAMPLES):
        names = {cause.rpartition(":")[0] for cause in _causes(example)}
        assert len(names) == 3
        assert names <= {*stg.CAUSAL, *stg.SPURIOUS, *stg.IRRELEVANT}
