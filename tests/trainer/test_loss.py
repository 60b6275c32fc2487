"""The forms, against numbers worked out by hand. Agreement with full maps is tests/trainer/test_attention.py's."""

import math

import pytest
import torch

from core.domain.training import Aggregate, Form, ObjectiveConfig
from trainer.attention import RowStatistics
from trainer.loss import attention_loss, row_loss

ONE = torch.tensor(1)


def loss_of(form: Form, mass: float, n1: int, n0: int, alpha: float = 2.0) -> float:
    objective = ObjectiveConfig(form=form, alpha=alpha)
    return row_loss(torch.tensor(math.log(mass)), ONE * n1, ONE * n0, objective).item()


# m = 0.4 on 2 of 5 visible columns: a1 = 0.2, a0 = 0.6 / 3 = 0.2, ratio 1
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Form.HINGE, 2 - 1),
        (Form.DIV, -1.0),
        (Form.DIV2, -math.log(1 + 0.2 / 1.2)),
        (Form.NLL, -0.5),
        (Form.LOG_MASS, -math.log(0.4)),
    ],
)
def test_forms(form, expected):
    assert loss_of(form, 0.4, 2, 3) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", [Form.HINGE, Form.DIV, Form.DIV2, Form.NLL])
def test_a_satisfied_row_counts_zero(form):
    # a1 = 0.4, a0 = 0.2 / 3: ratio 6
    assert loss_of(form, 0.8, 2, 3, alpha=5.9) == 0
    assert loss_of(form, 0.8, 2, 3, alpha=6.1) != 0


@pytest.mark.parametrize("form", [Form.HINGE, Form.DIV, Form.DIV2, Form.NLL])
@pytest.mark.parametrize("log_mass", [0.0, -1e-9, -300.0])
def test_the_ends_of_the_range_have_finite_gradients(form, log_mass):
    value = torch.tensor(log_mass, requires_grad=True)
    for others in (0, 3):
        row_loss(value, ONE * 2, ONE * others, ObjectiveConfig(form=form)).backward()
        assert value.grad.isfinite()


def statistics(log_mass: list[float], allowed: int, others: int) -> RowStatistics:
    heads = torch.tensor(log_mass).reshape(1, -1, 1)
    return RowStatistics(heads, torch.tensor([[allowed]]), torch.tensor([[others]]))


def test_mean_looks_at_the_mean_mass_and_each_at_every_one():
    layers = [statistics([math.log(0.9), math.log(0.1)], 1, 1), statistics([math.log(0.9), math.log(0.1)], 1, 1)]
    hinge = {a: ObjectiveConfig(form=Form.HINGE, aggregate=a, alpha=1.0) for a in Aggregate}
    assert attention_loss(layers, hinge[Aggregate.MEAN]).item() == pytest.approx(0, abs=1e-6)  # ratio 1
    assert attention_loss(layers, hinge[Aggregate.EACH]).item() == pytest.approx((1 - 0.1 / 0.9) / 2)


def test_a_layer_that_shows_no_cause_adds_nothing_to_each_and_no_mass_to_the_mean():
    seen, hidden = statistics([math.log(0.5)], 1, 4), statistics([0.0], 0, 0)
    each = ObjectiveConfig(form=Form.LOG_MASS, aggregate=Aggregate.EACH)
    mean = ObjectiveConfig(form=Form.LOG_MASS, aggregate=Aggregate.MEAN)
    assert attention_loss([seen, hidden], each).item() == pytest.approx(-math.log(0.5) / 2)
    assert attention_loss([seen, hidden], mean).item() == pytest.approx(-math.log(0.25))
    assert attention_loss([hidden, hidden], mean).item() == 0


def test_the_mean_of_masses_that_underflow_keeps_its_gradient():
    layer = statistics([-200.0, -201.0], 1, 4)
    layer.log_mass.requires_grad_()
    loss = attention_loss([layer], ObjectiveConfig(form=Form.LOG_MASS, aggregate=Aggregate.MEAN)).sum()
    loss.backward()
    assert layer.log_mass.grad.sum().item() == pytest.approx(-1, rel=1e-5)
