"""The training loop: accumulation, normalisation, and refusing numbers that are none."""

import json

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from core.domain.training import Aggregate, Exclude, Form, Method, ObjectiveConfig, Rows, Sharding, TrainingConfig
from core.errors import NotFinite
from tests.trainer.families import encoded, model_of
from trainer import attention
from trainer.events import EventLog
from trainer.masses import BINS
from trainer.tuner import Tuner

attention.register()

CONSTANT = {"gamma": 0.5, "gamma_from": 0.0, "gamma_full": 0.0}
GUIDED = ObjectiveConfig(guide_until=1, guide_end=1, **CONSTANT)
EXAMPLES = [
    encoded(12, {8: [1, 2], 9: [1, 2, 5]}, prompt_length=8),
    encoded(7, {}),
    encoded(9, {5: [0], 6: [0, 1], 7: [3], 2: [2]}, prompt_length=3),
    encoded(10, {}),
    encoded(8, {6: [2]}),
    encoded(11, {4: [4], 5: [4, 5], 6: [1, 6], 7: [2], 8: [0, 3]}),
]


class Tokenizer:
    pad_token_id = 0


class Gradients(TrainerCallback):
    """Copies the gradients of the first optimiser step, as they are before clipping would matter."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.seen = {name: p.grad.clone() for name, p in model.named_parameters()}


def tuner(tmp_path, examples=EXAMPLES, *, model=None, **config):
    return Tuner(
        model or model_of("llama_gqa", attention.NAME),
        Tokenizer(),
        examples,
        config=TrainingConfig(epochs=1, max_grad_norm=0, **config),
        folder=tmp_path / "checkpoints",
        events=EventLog(tmp_path / "events.jsonl"),
        should_stop=lambda: False,
    )


def first_gradients(tmp_path, **config):
    tmp_path.mkdir(exist_ok=True)
    training = tuner(tmp_path, **config)
    gradients = Gradients()
    training.add_callback(gradients)
    training.train()
    return gradients.seen, json.loads((tmp_path / "events.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    "objective",
    [
        GUIDED,
        ObjectiveConfig(form=Form.HINGE, aggregate=Aggregate.MEAN, alpha=50, guide_until=0, guide_end=0, **CONSTANT),
        ObjectiveConfig(guide_until=1, guide_end=1, layers_from=0.5, exclude=Exclude.SINK, **CONSTANT),
    ],
    ids=["causeway", "paper", "last layers without sink"],
)
@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 6), (2, 3), (4, 2)])
def test_accumulation_equals_one_big_batch(tmp_path, objective, batch_size, accumulation):
    whole, whole_event = first_gradients(tmp_path / "whole", objective=objective, batch_size=6)
    parts, parts_event = first_gradients(
        tmp_path / "parts", objective=objective, batch_size=batch_size, gradient_accumulation=accumulation
    )
    assert_same_step(parts, parts_event, whole, whole_event)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(6, 1), (3, 2), (4, 2)])
def test_packing_changes_no_step(tmp_path, batch_size, accumulation):
    padded, padded_event = first_gradients(tmp_path / "padded", objective=GUIDED, batch_size=6)
    packed, packed_event = first_gradients(
        tmp_path / "packed",
        objective=GUIDED,
        batch_size=batch_size,
        gradient_accumulation=accumulation,
        packing=True,
        max_length=24,
    )
    assert_same_step(packed, packed_event, padded, padded_event)
    tokens = sum(len(e.ids) for e in EXAMPLES)
    assert padded_event["padding"] == pytest.approx(1 - tokens / (6 * max(len(e.ids) for e in EXAMPLES)))
    assert packed_event["padding"] < padded_event["padding"]


def test_one_process_holds_it_all_whatever_the_sharding(tmp_path):
    whole, whole_event = first_gradients(tmp_path / "whole", batch_size=6)
    alone, alone_event = first_gradients(tmp_path / "alone", batch_size=6, sharding=Sharding.FSDP)
    assert_same_step(alone, alone_event, whole, whole_event)


def assert_same_step(parts, parts_event, whole, whole_event):
    scale = max(g.abs().max() for g in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name] / scale, gradient / scale, rtol=0, atol=1e-5)
    for metric in ("loss", "token_loss", "attention_loss", "mass", "grad_norm", "supervised_rows", "ratio"):
        assert parts_event[metric] == pytest.approx(whole_event[metric], rel=1e-4), metric
    for metric in ("mass_p10", "mass_p50", "mass_p90"):
        assert parts_event[metric] == pytest.approx(whole_event[metric], abs=2 / BINS), metric


def test_the_token_loss_is_the_models_own(tmp_path):
    _, event = first_gradients(tmp_path, method=Method.SFT, batch_size=6)
    model, batch = model_of("llama_gqa", "sdpa"), tuner(tmp_path).data_collator(EXAMPLES)
    with torch.no_grad():
        loss = model(**{k: batch[k] for k in ("input_ids", "attention_mask", "labels")}).loss
    assert event["token_loss"] == event["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for metric in ("attention_loss", "mass", "mass_p50", "ratio", "gamma", "guided"):
        assert event[metric] is None
    assert event["memory_bytes"] > 0


def test_a_batch_without_supervised_rows_trains_on_tokens_alone(tmp_path):
    plain = [e for e in EXAMPLES if not len(e.row_positions)]
    training = tuner(tmp_path, plain, objective=GUIDED, batch_size=2)
    training.train()
    event = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[0])
    assert (event["supervised_rows"], event["attention_loss"], event["mass"]) == (0, 0, 0)
    assert event["mass_p50"] is event["ratio"] is None
    assert event["loss"] == pytest.approx(event["token_loss"])


@pytest.mark.parametrize(("exclude", "hidden"), [(Exclude.NONE, 0), (Exclude.SELF, 2)])
def test_rows_that_are_shown_none_of_their_columns_are_counted(tmp_path, exclude, hidden):
    """Two rows are allowed themselves alone."""
    tuner(tmp_path, objective=ObjectiveConfig(exclude=exclude, **CONSTANT), log_every=1).train()
    [event] = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines() if '"step"' in line][
        :1
    ]
    assert (event["supervised_rows"], event["hidden_rows"]) == (12, hidden)


def test_a_loss_that_is_no_number_fails_at_once_and_names_the_examples(tmp_path):
    model = model_of("llama_gqa", attention.NAME)
    model.lm_head.weight.data[3, 0] = torch.nan
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(NotFinite) as caught:
        tuner(tmp_path, model=model, batch_size=2).train()
    assert caught.value.facts["step"] == 1
    assert len(caught.value.facts["examples"]) == 2
    assert {*caught.value.facts["examples"]} <= {e.example_id for e in EXAMPLES}
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) or p.isnan().any()
    assert not (tmp_path / "checkpoints").exists() or not [*(tmp_path / "checkpoints").iterdir()]


def test_a_gradient_that_is_no_number_fails_before_the_step(tmp_path):
    model = model_of("llama_gqa", attention.NAME)
    model.model.norm.weight.register_hook(lambda gradient: gradient * torch.inf)
    weights = model.lm_head.weight.clone()
    with pytest.raises(NotFinite, match="the gradient of step 1"):
        tuner(tmp_path, model=model, batch_size=6).train()
    assert torch.equal(model.lm_head.weight, weights)


def test_steps_are_logged_by_the_clock_asked_for_and_at_the_end(tmp_path):
    tuner(tmp_path, batch_size=1, log_every=4, checkpoint_every=5).train()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["type"] == "step"] == [4, 6]
    assert [event["step"] for event in events if event["type"] == "checkpoint"] == [5, 6]
    last = events[-2]
    assert (last["step"], last["steps"], last["epoch"], last["eta_seconds"]) == (6, 6, 1.0, 0.0)
    assert np.isfinite([last["loss"], last["grad_norm"], last["tokens_per_second"], last["learning_rate"]]).all()


def test_effects_only_and_closure_are_both_rows_of_the_data(tmp_path):
    event = first_gradients(tmp_path, objective=ObjectiveConfig(rows=Rows.EFFECTS), batch_size=6)[1]
    assert event["supervised_rows"] == sum(len(e.row_positions) for e in EXAMPLES)
