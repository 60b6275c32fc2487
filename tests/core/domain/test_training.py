import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.annotation import Example
from core.domain.relations import Relation
from core.domain.run_folder import (
    BaseModelSpec,
    RunConfig,
    example_from_json,
    example_to_json,
    run_from_json,
    run_to_json,
)
from core.domain.spans import Span
from core.domain.training import (
    PRESETS,
    Form,
    Method,
    ObjectiveConfig,
    Preset,
    TrainingConfig,
    training_from_json,
    with_method,
)
from core.errors import InvalidInput, InvalidSpan


def test_every_number_has_a_range_and_every_field_says_what_it_is() -> None:
    for kind in (TrainingConfig, ObjectiveConfig):
        for field in fields(kind):
            assert field.metadata["about"]
            if type(field.default) in (int, float):
                assert field.metadata["low"] <= field.default <= field.metadata["high"]


@pytest.mark.parametrize("preset", list(Preset))
@pytest.mark.parametrize("method", list(Method))
def test_a_run_survives_json(preset: Preset, method: Method) -> None:
    config = TrainingConfig(method=method, preset=preset, objective=PRESETS[preset])
    run = RunConfig(BaseModelSpec("small", "builtin:small"), config, data_sha256="ab", run_id="tj_1")
    assert run_from_json(json.loads(json.dumps(run_to_json(run)))) == run


@pytest.mark.parametrize(
    ("value", "field", "told"),
    [
        ({"trainig": {}}, "trainig", "unknown field trainig in config.json; it has base, training"),
        ({"training": []}, "training", "must be an object"),
        ({"run_id": 5}, "run_id", "must be text"),
        ({"base": {"source": 5}}, "base.source", "must be text"),
        ({"base": {"source": "a", "revision": 7}}, "base.revision", "must be text"),
        ({"base": {"source": "a", "name": None}}, "base.name", "must be text"),
        ({"base": {"source": "a", "sauce": "b"}}, "base.sauce", "unknown field base.sauce"),
        ({"base": {"source": ""}}, "base", "needs"),
        ({"base": "a"}, "base", "must be an object"),
        ({"base": None}, "base", "must be an object"),
    ],
)
def test_a_run_that_is_not_one_names_the_field(value: dict, field: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        run_from_json({"base": {"source": "a"}} | value)
    assert caught.value.facts["field"] == field


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"epochs": 0}, "config.epochs"),
        ({"epochs": "3"}, "config.epochs"),
        ({"epochs": True}, "config.epochs"),
        ({"learning_rate": 2}, "config.learning_rate"),
        ({"learning_rate": float("nan")}, "config.learning_rate"),
        ({"method": "dpo"}, "config.method"),
        ({"precision": "fp8"}, "config.precision"),
        ({"objective": {"gamma": -1}}, "objective.gamma"),
        ({"objective": {"gamma_from": 0.9, "gamma_full": 0.1}}, "objective.gamma_from"),
        ({"objective": {"layers_from": 0.9, "layers_to": 0.1}}, "objective.layers_from"),
        ({"objective": {"exclude": "first"}}, "objective.exclude"),
        ({"best_metric": "iid.accuracy"}, "config.evaluate_every"),
        ({"best_metric": "accuracy", "evaluate_every": 1}, "config.best_metric"),
        ({"best_metric": "iid.n", "evaluate_every": 1}, "config.best_metric"),
        ({"patience": 2, "evaluate_every": 1}, "config.patience"),
        ({"objective": {"colour": 1}}, "objective.colour"),
        ({"objective": 3}, "config.objective"),
        ({"lr": 1e-3}, "config.lr"),
    ],
)
def test_bad_values_are_refused_by_the_name_of_their_field(value: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        training_from_json(value)
    assert caught.value.facts["field"] == field


def test_a_whole_number_is_a_fine_rate() -> None:
    assert training_from_json({"weight_decay": 0}).weight_decay == 0.0


def test_sft_has_no_attention_objective_and_an_explicit_one_beats_the_preset() -> None:
    assert TrainingConfig(method=Method.SFT).attention is None
    assert TrainingConfig().attention == PRESETS[Preset.CAUSEWAY]
    hinge = ObjectiveConfig(form=Form.HINGE)
    assert TrainingConfig(objective=hinge).attention == hinge


def test_with_method_changes_nothing_else() -> None:
    config = TrainingConfig(seed=7, epochs=4)
    assert with_method(with_method(config, Method.SFT), Method.CAT) == config


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=10), st.data())
def test_an_example_survives_its_line(input_text: str, target: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(input_text)))
    relation = Relation(Span(len(input_text), len(input_text) + len(target)), (Span(cut - 1, cut),))
    example = Example(input_text, target, "x", (target, "no"), (relation,))
    assert example_from_json(json.loads(json.dumps(example_to_json(example)))) == example


def test_a_line_whose_span_leaves_its_text_is_refused() -> None:
    line = {
        "input": "ab",
        "target": "c",
        "relations": [{"effect": {"start": 2, "end": 9}, "causes": [{"start": 0, "end": 1}]}],
    }
    with pytest.raises(InvalidSpan):
        example_from_json(line)


@pytest.mark.parametrize("line", [{"input": "a"}, {"input": "a", "target": "b", "relations": [{"effect": 3}]}])
def test_a_line_that_is_no_example_is_refused(line: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        example_from_json(line)
