"""What the supervised rows of one attention layer cost over its kernel alone, in either way of working them out.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.layer [--length 1024] [--rounds 10]

The reference model's heads and batch, forward and backward. Every round takes each way once; shown is the least CPU
time of the kernel, and what the others take more. Whole rows are what a GPU, bf16 and densely labelled rows still pay.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.report import TARGETS
from benchmarks.speed.scene import BATCH, PAD, Scene, examples
from trainer.attention import Supervision, causeway_attention
from trainer.batching import collate
from trainer.cells import Cells


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.layer")
    parser.add_argument("--length", type=int, default=1024, help="tokens of an example")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    table = Table("rows", "guided", "kernel, ms", "whole rows", "pairs")
    for share in TARGETS:
        for guided in (True, False):
            kernel, whole, pairs = _least(
                [
                    partial(_step, Scene(options.length, share, checkpointing=False), way, guided)
                    for way in (None, 0.0, 1.0)
                ],
                options.rounds,
            )
            table.add_row(
                f"{share:.0%}",
                "yes" if guided else "no",
                f"{kernel:.0f}",
                f"{whole - kernel:+.1f}",
                f"{pairs - kernel:+.1f}",
            )
    Console(width=100).print(table)


def _step(scene: Scene, pairs_up_to: float | None, guided: bool) -> Callable[[], None]:  # noqa: FBT001
    """A layer's forward and backward, without supervision for None."""
    scale, generator = scene.scale, torch.Generator().manual_seed(0)
    shape = BATCH, scene.length, scale.heads, scale.width // scale.heads  # as it lies in memory
    query, key, value = (torch.randn(shape, generator=generator).transpose(1, 2).requires_grad_() for _ in range(3))
    upward = torch.randn(shape, generator=generator)
    module, supervision = torch.nn.Module(), None
    if pairs_up_to is not None:
        batch = collate(examples(scene, BATCH), pad_id=PAD)
        allowed = Cells(batch["allowed_slots"], batch["allowed_columns"])
        supervision = Supervision(batch["row_index"], allowed, guided=guided, pairs_up_to=pairs_up_to)

    def step() -> None:
        output, statistics = causeway_attention(module, query, key, value, None, supervision=supervision)
        loss = (output * upward).sum()
        torch.autograd.grad(loss if statistics is None else loss - statistics.log_mass.sum(), (query, key, value))

    return step


def _least(ways: list[Callable[[], Callable[[], None]]], rounds: int) -> list[float]:
    """Milliseconds of each."""
    steps = [way() for way in ways]
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds + 1):
        for step, taken in zip(steps, times, strict=True):
            begun = time.process_time()
            step()
            taken.append(1000 * (time.process_time() - begun))
    return [min(taken[1:]) for taken in times]


if __name__ == "__main__":
    main()
