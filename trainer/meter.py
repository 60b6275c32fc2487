"""Sums over the steps since the last `step` event, kept on the device so that no step has to wait for them."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from core.domain.run_folder import StepMetrics
from trainer.masses import BINS, quantile
from trainer.memory import peak_memory

_NUMBERS = ("mass", "masses", "a1", "a0", "rows", "tokens", "positions")
_SHARES = ("loss", "token_loss", "attention_loss", "grad_norm", "gamma", "guided")


class Meter:
    """Collects what micro-batches and steps report, and turns it into StepMetrics.

    Parameters
    ----------
    attention
        Whether there is an attention objective to report on.
    gather
        Adds a tensor up over all processes.
    processes
        How many those are.
    """

    def __init__(
        self, *, attention: bool, gather: Callable[[Tensor], Tensor] = lambda sums: sums, processes: int = 1
    ) -> None:
        self._attention = attention
        self._gather = gather
        self._processes = processes
        self._started_at = self._read_at = time.monotonic()
        self._first_step = self._read_step = 0
        self._sums: dict[str, Tensor | float] = {}

    def start(self, step: int) -> None:
        """Count steps and time from here."""
        self._started_at = self._read_at = time.monotonic()
        self._first_step = self._read_step = step
        self._sums = {}

    def add(self, **values: Tensor | float) -> None:
        """Add to the sums.

        loss, token_loss, attention_loss, grad_norm, gamma, guided: a step's value, or a micro-batch's share of it.
        mass, masses, a1, a0, histogram: as in trainer.masses. rows, tokens, positions: numbers. All of this
        process alone.
        """
        for name, value in values.items():
            added = value.detach() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums.get(name, 0.0) + added

    def leave_out(self, seconds: float) -> None:
        """Time just spent on something else than training does not count for the pace in tokens."""
        self._read_at += seconds

    def read(self, step: int, steps: int, *, epoch: float, learning_rate: float) -> StepMetrics:
        """Means since the last read, at optimiser step `step` of `steps`."""
        now = time.monotonic()
        totals, histogram = self._totals()
        made = step - self._read_step
        pace = (now - self._started_at) / (step - self._first_step)  # seconds a step
        metrics = StepMetrics(
            step=step,
            steps=steps,
            epoch=epoch,
            loss=totals["loss"] / made,
            token_loss=totals["token_loss"] / made,
            learning_rate=learning_rate,
            grad_norm=totals["grad_norm"] / made,
            tokens_per_second=totals["tokens"] / max(now - self._read_at, 1e-9),
            eta_seconds=pace * (steps - step),
            attention_loss=totals["attention_loss"] / made if self._attention else None,
            mass=totals["mass"] / max(totals["masses"], 1) if self._attention else None,
            gamma=totals["gamma"] / made if self._attention else None,
            guided=totals["guided"] / made if self._attention else None,
            supervised_rows=round(totals["rows"]),
            hidden_rows=round(totals["rows"] - float(histogram.sum())) if self._attention else 0,
            mass_p10=quantile(histogram, 0.1),
            mass_p50=quantile(histogram, 0.5),
            mass_p90=quantile(histogram, 0.9),
            ratio=totals["a1"] / totals["a0"] if totals["a0"] > 0 else None,
            memory_bytes=peak_memory(),
            padding=1 - totals["tokens"] / max(totals["positions"], 1),
        )
        self._read_at, self._read_step, self._sums = now, step, {}
        return metrics

    def _totals(self) -> tuple[dict[str, float], Tensor]:
        """The sums over all processes, for what is a share of a step the mean over them; and the histogram."""
        names = (*_NUMBERS, *_SHARES)
        sums = torch.stack([torch.as_tensor(self._sums.get(name, 0.0)).double().cpu() for name in names])
        histogram = torch.as_tensor(self._sums.get("histogram", torch.zeros(BINS))).double().cpu()
        everything = self._gather(torch.cat([sums, histogram])).cpu()
        over = [1] * len(_NUMBERS) + [self._processes] * len(_SHARES)
        shares, histogram = everything[: len(names)].tolist(), everything[len(names) :]
        return {name: total / n for name, total, n in zip(names, shares, over, strict=True)}, histogram
