"""What steps cost: measured on real ones, of which nothing stays."""

import pytest
import torch

from core.domain.training import PRESETS, Method, ObjectiveConfig, Preset, TrainingConfig
from tests.trainer.families import encoded, model_of
from trainer import attention, rehearsal
from trainer.rehearsal import rehearse
from trainer.tuner import Tuner

attention.register()

EXAMPLES = [encoded(n, {n - 3: [1, 2]}, name=f"{n}-{copy}") for n in range(6, 18) for copy in range(2)]


class Tokenizer:
    pad_token_id = 0


@pytest.fixture
def steps(monkeypatch):
    """The lengths of each micro-batch's examples, and what was decided for its step."""
    seen = []

    class Watched(Tuner):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.append((inputs["attention_mask"].sum(-1).tolist(), self._step))
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr(rehearsal, "Tuner", Watched)
    return seen


def rehearsed(**config):
    model = model_of("llama_gqa", attention.NAME)
    before = {name: p.clone() for name, p in model.named_parameters()}
    cost = rehearse(model, Tokenizer(), EXAMPLES, TrainingConfig(**config))
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]), name
    assert cost.memory_bytes > 0
    assert cost.seconds_per_step > 0


def test_memory_is_of_the_longest_and_time_of_the_mean(steps):
    rehearsed(batch_size=2, gradient_accumulation=2, method=Method.SFT)
    longest, typical = steps[:2], steps[2:]
    assert [sorted(lengths) for lengths, _ in longest] == [[17, 17]] * 2
    assert len(typical) == 3 * 2  # a step to warm up and two timed, each of two micro-batches
    lengths = [n for micro_batch, _ in typical for n in micro_batch]
    assert sum(lengths) / len(lengths) == pytest.approx(sum(range(6, 18)) / 12, abs=1)


@pytest.mark.parametrize(
    ("objective", "guided"),
    [
        (PRESETS[Preset.CAUSEWAY], True),
        (PRESETS[Preset.PAPER], False),
        (ObjectiveConfig(gamma_from=1, gamma_full=1), True),
    ],
)
def test_a_step_is_of_the_costliest_kind_that_the_run_will_see(steps, objective, guided):
    rehearsed(batch_size=4, objective=objective)
    assert {step.guided for _, step in steps} == {guided}
    assert {step.gamma for _, step in steps} == {objective.gamma}


def test_more_asked_for_than_there_is(steps):
    rehearsed(batch_size=64)
    assert {len(lengths) for lengths, _ in steps} == {len(EXAMPLES)}
