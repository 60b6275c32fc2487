"""What a run will do, and what it refuses, before its first step."""

import json

import pytest

from core.domain.annotation import Example
from core.domain.relations import Relation
from core.domain.spans import Span
from core.domain.training import Method, Overflow, TrainingConfig
from core.errors import EffectCutOff, InvalidInput, NoUsableRelations
from tests.trainer.tokenizers_for_tests import tokenizer_of
from trainer.encoding import encode_all
from trainer.events import EventLog
from trainer.plan import announce, prepare, refusal

TOKENIZER = tokenizer_of("whole_words")
SHORT = Example(
    "20 gulls 15 terns birds: ", "35", "short", relations=(Relation(Span(25, 27), (Span(0, 8), Span(9, 17))),)
)
PLAIN = Example("How many birds? ", "65", "plain")
LONG = Example("gulls " * 30, "35", "long", relations=(Relation(Span(180, 182), (Span(174, 179),)),))


def plan_of(examples, tmp_path, **config):
    path = tmp_path / "events.jsonl"
    training = TrainingConfig(**config)
    rows = training.attention.rows if training.attention else None
    encoded = encode_all(TOKENIZER, examples, max_length=training.max_length, rows=rows)
    prepared = prepare(encoded, training)
    if refused := refusal(prepared.plan, training):
        raise refused
    announce(prepared, EventLog(path))
    return prepared, [json.loads(line) for line in path.read_text().splitlines()]


def test_a_plan_counts_tokens_rows_and_steps(tmp_path):
    prepared, events = plan_of([SHORT] * 5 + [PLAIN], tmp_path, epochs=3, batch_size=2, gradient_accumulation=2)
    plan = prepared.plan
    assert plan.examples == 6
    assert plan.steps == 3 * 2  # 3 batches of 2, two to a step
    assert plan.tokens == sum(len(e.ids) for e in prepared.encoded)
    assert plan.supervised_rows == 5 * 5  # four cause tokens and the row before the answer
    assert plan.unsupervised_examples == 1
    lengths = sorted(len(e.ids) for e in prepared.encoded)
    assert (plan.length_p50, plan.length_p90, plan.longest) == (lengths[2], lengths[5], lengths[5])
    assert [event["type"] for event in events] == ["plan"]
    assert events[0]["supervised_rows"] == 25


def test_too_long_is_refused_with_the_numbers(tmp_path):
    with pytest.raises(EffectCutOff, match="1 of 2 examples are longer than max_length 16") as caught:
        plan_of([SHORT, LONG], tmp_path, max_length=16)
    assert caught.value.facts["cut_effects"] == caught.value.facts["cut_causes"] == 1


@pytest.mark.parametrize("method", Method)
def test_too_long_can_be_dropped_counted_and_warned_about(tmp_path, method):
    dropping = {"overflow": Overflow.DROP, "overflow_limit": 0.5, "max_length": 16}
    prepared, events = plan_of([SHORT, LONG], tmp_path, **dropping, method=method)
    assert [e.example_id for e in prepared.encoded] == ["short"]
    assert prepared.plan.dropped_examples == prepared.plan.cut_effects == 1
    assert events[1]["code"] == "examples_dropped"


def test_the_limit_is_not_rounded(tmp_path):
    dropping = {"overflow": Overflow.DROP, "overflow_limit": 0.29, "max_length": 16}  # 0.29 * 100 is below 29
    assert plan_of([SHORT] * 71 + [LONG] * 29, tmp_path, **dropping)[0].plan.dropped_examples == 29
    with pytest.raises(EffectCutOff):
        plan_of([SHORT] * 70 + [LONG] * 30, tmp_path, **dropping)


@pytest.mark.parametrize(("limit", "allowed"), [(0.0, 0), (0.1, 0), (0.39, 1), (0.4, 2), (1.0, 5)])
def test_more_than_the_limit_is_never_dropped(tmp_path, limit, allowed):
    dropping = {"overflow": Overflow.DROP, "overflow_limit": limit, "max_length": 16}
    for long in range(5):
        examples = [SHORT] * (5 - long) + [LONG] * long
        if long <= allowed:
            assert plan_of(examples, tmp_path, **dropping)[0].plan.dropped_examples == long
        else:
            told = f"{long} of 5 examples are longer than .* the share that may be left out is {limit:g}"
            with pytest.raises(EffectCutOff, match=told) as caught:
                plan_of(examples, tmp_path, **dropping)
            assert caught.value.facts["field"] == "config.overflow_limit"


def test_cat_without_a_usable_relation_is_refused_and_sft_is_not(tmp_path):
    with pytest.raises(NoUsableRelations):
        plan_of([PLAIN], tmp_path)
    assert plan_of([PLAIN], tmp_path, method=Method.SFT)[0].plan.supervised_rows == 0


def test_nothing_left_is_refused(tmp_path):
    for examples in ([], [LONG]):
        with pytest.raises(InvalidInput, match="no example to train on"):
            plan_of(examples, tmp_path, max_length=16, overflow=Overflow.DROP, overflow_limit=1.0, method=Method.SFT)


def test_a_cause_that_shares_its_effects_token_is_warned_about(tmp_path):
    straddling = Example("20 gulls there ", "terns", relations=(Relation(Span(11, 14), (Span(0, 2), Span(9, 11))),))
    _, events = plan_of([straddling], tmp_path)
    assert events[1]["code"] == "causes_straddle_effects"
