"""What Trainer is told, and the learning rate."""

import pytest

from core.domain.training import TrainingConfig
from trainer.arguments import relative_rate, trainer_arguments


def test_the_rate_rises_then_falls_to_its_floor():
    rates = [relative_rate(step, steps=100, warmup_ratio=0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == pytest.approx(0.9)  # the line down begins with the run, not after warm-up
    assert rates[50] == pytest.approx(0.5)
    assert rates[95:] == [pytest.approx(0.05)] * 5


def test_without_warm_up_it_begins_at_the_peak():
    assert relative_rate(0, steps=10, warmup_ratio=0) == 1


def test_what_would_hide_trouble_is_off(tmp_path):
    arguments = trainer_arguments(TrainingConfig(activation_checkpointing=True), tmp_path, bf16=False)
    assert arguments.logging_nan_inf_filter is False
    assert arguments.remove_unused_columns is False
    assert arguments.activation_checkpointing_kwargs == {"use_reentrant": False}
    assert arguments.report_to == []
