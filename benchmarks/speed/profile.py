"""Where the time of cat over plain fine-tuning goes, operation by operation.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.profile [--rows 0.5] [--length 1024] [--steps 5] [--unguided]

An operation's milliseconds are those it spends itself, all calls of a step together, in the step where they were
fewest: on a machine that others use, that is the one they disturbed least.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.speed.contestants import Contestant, Setting, build
from benchmarks.speed.scene import Scene

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one operation in a step."""

    milliseconds: float
    calls: int


class _Profiled(TrainerCallback):
    """Profiles every step but the first, which also builds the optimiser."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Cost]] = []
        self._profile: profile | None = None

    def on_step_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: object,  # noqa: ARG002
    ) -> None:
        if state.global_step > 0:
            self._profile = profile(activities=[ProfilerActivity.CPU])
            self._profile.start()

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **kwargs: object,  # noqa: ARG002
    ) -> None:
        if self._profile is not None:
            self._profile.stop()
            averages = self._profile.key_averages()
            self.steps.append({one.key: Cost(one.self_cpu_time_total / 1000, one.count) for one in averages})


def costs(contestant: Contestant, scene: Scene, steps: int) -> dict[str, Cost]:
    """Of every operation in a step of `contestant`."""
    profiled = _Profiled()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = build(contestant, Setting(scene, steps, Path(scratch), torch.device("cpu")))
        trainer.add_callback(profiled)
        trainer.train()
    least: dict[str, Cost] = {}
    for name in {name for step in profiled.steps for name in step}:
        least[name] = min((step[name] for step in profiled.steps if name in step), key=lambda cost: cost.milliseconds)
    return least


def difference(sft: Mapping[str, Cost], cat: Mapping[str, Cost]) -> Table:
    """What cat spends more, most first."""
    none = Cost(0.0, 0)
    more = {name: cat.get(name, none).milliseconds - sft.get(name, none).milliseconds for name in {*sft, *cat}}
    table = Table("operation", "sft ms", "calls", "cat ms", "calls", "more")
    for name in sorted(more, key=lambda name: -abs(more[name]))[:_SHOWN]:
        before, after = sft.get(name, none), cat.get(name, none)
        cells = before.milliseconds, before.calls, after.milliseconds, after.calls, more[name]
        table.add_row(name[:60], *(f"{cell:,.1f}" if isinstance(cell, float) else str(cell) for cell in cells))
    table.add_section()
    for name, which in (("all", [*more]), ("those that cat calls more often", _more_often(sft, cat))):
        totals = [sum(of.get(name, none).milliseconds for name in which) for of in (sft, cat)]
        table.add_row(name, f"{totals[0]:,.1f}", "", f"{totals[1]:,.1f}", "", f"{totals[1] - totals[0]:,.1f}")
    return table


def _more_often(sft: Mapping[str, Cost], cat: Mapping[str, Cost]) -> list[str]:
    """What both call alike differs by noise alone, unless it is handed something larger."""
    return [name for name, cost in cat.items() if name not in sft or cost.calls > sft[name].calls]


def main() -> None:
    """Profile both, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.profile")
    parser.add_argument("--rows", type=float, default=0.5, help="share of supervised rows")
    parser.add_argument("--length", type=int, default=1024, help="tokens of an example")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--unguided", action="store_true", help="without guided masking")
    options = parser.parse_args()
    scene = Scene(options.length, options.rows, checkpointing=False)
    cat = Contestant.CAT_UNGUIDED if options.unguided else Contestant.CAT
    both = [costs(contestant, scene, options.steps) for contestant in (Contestant.SFT, cat)]
    Console(width=140).print(difference(*both))


if __name__ == "__main__":
    main()
