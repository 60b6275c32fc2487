"""What is asked of the attention of supervised rows: pure functions of the mass.

Notation: m mass of a row on its allowed columns, n1 and n0 the numbers of allowed and of other visible columns,
a1 = m / n1 and a0 = (1 - m) / n0 the mean attention on each. The forms hinge, div, div2 and nll are those of Causal
Attention Tuning (arXiv 2509.01535: hinge as in the paper, the others as in its published code). For them a row with
a1 / a0 >= alpha is satisfied: it counts 0 and stays in the divisor. `log_mass` is ours and is never satisfied.

Shapes: L layers, B batch, H heads, R rows.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.domain.training import Aggregate, Form, ObjectiveConfig
from trainer.attention import RowStatistics


def attention_loss(layers: Sequence[RowStatistics], objective: ObjectiveConfig) -> Tensor:
    """(B, R) loss of each row, 0 where no layer shows it an allowed column; the caller sums and divides by the rows."""
    stacked = RowStatistics(*(torch.stack(parts) for parts in zip(*layers, strict=True)))  # (L, B, H, R) and (L, B, R)
    return _AGGREGATES[objective.aggregate](stacked, objective)


def each(layers: RowStatistics, objective: ObjectiveConfig) -> Tensor:
    """(B, R) mean over layers and heads of the form of each one's mass.

    A layer whose window hides all of a row's allowed columns adds no loss.
    """
    losses = row_loss(layers.log_mass, layers.allowed[:, :, None], layers.others[:, :, None], objective)
    return (losses * layers.kept[:, :, None]).mean((0, 2))


def mean(layers: RowStatistics, objective: ObjectiveConfig) -> Tensor:
    """(B, R) form of the mean mass over layers and heads, as in the paper.

    A layer whose window hides all of a row's allowed columns adds no mass; n1 and n0 are those of the layer that shows
    the most.
    """
    log_mass = _mean_log_mass(layers.log_mass, layers.kept)
    losses = row_loss(log_mass, layers.allowed.amax(0), layers.others.amax(0), objective)
    return losses * layers.kept.any(0)


def row_loss(log_mass: Tensor, allowed: Tensor, others: Tensor, objective: ObjectiveConfig) -> Tensor:
    """The objective's form of each mass, shaped as `log_mass`; `allowed` = n1 and `others` = n0 broadcast to it."""
    if objective.form is Form.LOG_MASS:
        return minus_log(log_mass)
    mean_allowed = log_mass.exp() / allowed.clamp(min=1)  # a1
    mean_others = -torch.expm1(log_mass) / others.clamp(min=1)  # a0, exact where the mass is near 1
    # Compared without a division, so that nothing left of alpha and nothing unsatisfied has a0 = 0.
    wanting = mean_allowed < objective.alpha * mean_others
    # Satisfied rows get harmless numbers before the form, since a NaN gradient survives being masked after it.
    losses = _FORMS[objective.form](
        torch.where(wanting, mean_allowed, 1.0), torch.where(wanting, mean_others, 1.0), objective.alpha
    )
    return torch.where(wanting, losses, 0.0)


def minus_log(log_mass: Tensor) -> Tensor:
    """-ln m. Without a clamp: that would take the gradient away where the mass is worst."""
    return -log_mass


def hinge(a1: Tensor, a0: Tensor, alpha: float) -> Tensor:
    """max(0, alpha - a1 / a0), for a1 / a0 < alpha."""
    return alpha - a1 / a0


def div(a1: Tensor, a0: Tensor, alpha: float) -> Tensor:  # noqa: ARG001 (one signature for all forms)
    """-ln(1 + a1) / ln(1 + a0)."""
    return -torch.log1p(a1) / torch.log1p(a0)


def div2(a1: Tensor, a0: Tensor, alpha: float) -> Tensor:  # noqa: ARG001
    """-ln(1 + a1 / (1 + a0))."""
    return -torch.log1p(a1 / (1 + a0))


def nll(a1: Tensor, a0: Tensor, alpha: float) -> Tensor:  # noqa: ARG001
    """-a1 / (a1 + a0)."""
    return -a1 / (a1 + a0)


_AGGREGATES: dict[Aggregate, Callable[[RowStatistics, ObjectiveConfig], Tensor]] = {
    Aggregate.EACH: each,
    Aggregate.MEAN: mean,
}
_FORMS: dict[Form, Callable[[Tensor, Tensor, float], Tensor]] = {
    Form.HINGE: hinge,
    Form.DIV: div,
    Form.DIV2: div2,
    Form.NLL: nll,
}


def _mean_log_mass(log_mass: Tensor, kept: Tensor) -> Tensor:
    """(B, R) ln of the mean mass over layers and heads, from logarithms: it does not underflow. 0 in dropped rows."""
    present = log_mass.masked_fill(~kept[:, :, None], -torch.inf)
    present = present.masked_fill(~kept.any(0)[:, None], 0.0)
    return present.logsumexp((0, 2)) - math.log(log_mass.shape[0] * log_mass.shape[2])
