"""What calls to a teacher cost, and whether one more fits a budget. Exact integers: no rounding passes a cap."""

import math
from dataclasses import dataclass, replace
from decimal import Decimal

from core.domain.annotation import TeacherConfig, Usage

_NANO = 1_000_000_000  # of a USD


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens, prompt and reply together, and billionths of a USD."""

    tokens: int = 0
    nano_usd: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens + other.tokens, self.nano_usd + other.nano_usd)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens - other.tokens, self.nano_usd - other.nano_usd)


@dataclass(frozen=True, slots=True)
class Budget:
    """The most a job may cost; None is no bound."""

    tokens: int | None = None
    nano_usd: int | None = None

    def holds(self, cost: Cost) -> bool:
        """Whether `cost` is within it."""
        return (self.tokens is None or cost.tokens <= self.tokens) and (
            self.nano_usd is None or cost.nano_usd <= self.nano_usd
        )


def cost_of(usage: Usage, teacher: TeacherConfig) -> Cost:
    """What a teacher charges for these tokens, rounded up."""
    # A USD for a million tokens is a thousand billionths for one.
    prices = Decimal(str(teacher.prompt_price)), Decimal(str(teacher.completion_price))  # as they are written
    price = usage.prompt_tokens * prices[0] + usage.completion_tokens * prices[1]
    return Cost(usage.prompt_tokens + usage.completion_tokens, math.ceil(price * 1000))


def in_batches(teacher: TeacherConfig) -> TeacherConfig:
    """The same teacher at what it charges for questions in a batch."""
    paid = 1 - Decimal(str(teacher.batch_discount))
    prompt, completion = (
        float(Decimal(str(price)) * paid) for price in (teacher.prompt_price, teacher.completion_price)
    )
    return replace(teacher, prompt_price=prompt, completion_price=completion)


def nano_usd(usd: float) -> int:
    """Billionths of a USD."""
    return round(usd * _NANO)


def usd(nano: int) -> float:
    """USD."""
    return nano / _NANO
