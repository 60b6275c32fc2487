"""What does CAT cost over plain fine-tuning, in time and in memory, and what did the published way cost?

One model (a Llama of 8 layers x 512, LoRA of rank 16 on every linear layer), one batch of 2, and per length:

    sft, sft_again  plain fine-tuning through our trainer, twice: their ratio is the noise of the measurement
    trl             TRL's SFTTrainer, where installed: pip install -e ".[trainer,benchmarks]"
    cat             our attention objective with guided masking on every step; cat_unguided without
    eager           every attention map kept, the loss as tensor operations
    published       the same with a Python loop over the supervised rows, as published

    python -m benchmarks.training_speed [--quick] [--lengths 64 1024] [--rows 0.1] [--steps 30]

All make one step a round, in an order drawn anew, so that a slow moment of the machine meets them alike. The last line
is JSON: {"time_ratio", "memory_ratio" (cat / sft at 1,024 tokens, by share of rows), "published_over_cat_time" (at 10 %
rows)}. Pin the threads (OMP_NUM_THREADS=1) on a machine that is shared, and read sft_again first: where it is far from
1, the wall clock tells nothing, and --clock cpu a little more. Part of the grid goes to files of its own.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

from benchmarks.speed.contestants import Contestant, trl_installed
from benchmarks.speed.measure import Entrant, Memory, peak_memory, step_times
from benchmarks.speed.ratios import paired_ratio
from benchmarks.speed.report import TARGETS, Result, last_line, table, write
from benchmarks.speed.scene import Scale, Scene

_LENGTHS = (64, 512, 1024, 2048)
_STEPS = 30
_RESULTS = Path(__file__).parent / "results"
_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_TINY = Scale(layers=2, width=64, heads=4, vocabulary=256, lora_rank=4)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = _options(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if Contestant.TRL in options.contestants and not trl_installed():
        options.contestants.remove(Contestant.TRL)
        print('trl is not installed and sits out: pip install -e ".[trainer,benchmarks]"')
    facts = _facts(device, options)
    console = Console(width=140)
    results: list[Result] = []
    for scene in _scenes(options):
        cell = measure(scene, options, device)
        console.print(table(cell))
        results += cell
        write(results, facts, options.out)  # after each: a full run takes hours
    print(json.dumps(last_line(results)))


def measure(scene: Scene, options: argparse.Namespace, device: torch.device) -> list[Result]:
    """All contestants at one length, those with rows once for each share of them."""
    entrants = [
        Entrant(contestant, share)
        for contestant in options.contestants
        for share in (options.rows if contestant.has_rows else (0.0,))
    ]
    times = step_times(scene, entrants, steps=options.steps, device=device, clock=_CLOCKS[options.clock])
    memories = {entrant: peak_memory(scene, entrant, device=device) for entrant in entrants} if options.memory else {}
    sft = Entrant(Contestant.SFT, 0.0)
    results = []
    for share in options.rows:
        for entrant in entrants:
            if entrant.share not in (0.0, share):
                continue
            results.append(
                Result(
                    scene.length,
                    scene.checkpointing,
                    share,
                    entrant.contestant,
                    statistics.median(times[entrant]),
                    paired_ratio(times[entrant], times[sft]),
                    paired_ratio(times[entrant], times[Entrant(Contestant.CAT, share)]),
                    **_memory_fields(memories.get(entrant), memories.get(sft)),
                )
            )
    return results


def _memory_fields(ours: Memory | None, base: Memory | None) -> dict[str, float]:
    if ours is None or base is None:
        return {}
    return {
        "memory_mib": ours.above_idle,
        "memory_above_model_mib": ours.above_model,
        "memory": ours.above_idle / base.above_idle,
        "memory_above_model": ours.above_model / base.above_model,
    }


def _scenes(options: argparse.Namespace) -> Iterator[Scene]:
    scale = _TINY if options.quick else Scale()
    for checkpointing in options.checkpointing:
        for length in options.lengths:
            yield Scene(length, 0.0, checkpointing, scale)


def _facts(device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "dtype": "bf16" if device.type == "cuda" else "fp32",
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),  # before: what others ask of the machine
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "steps": options.steps,
        "clock": options.clock,
        "quick": options.quick,
    }


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_speed")
    parser.add_argument("--quick", action="store_true", help="a tiny model at 64 tokens, 5 steps: does it run at all?")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens of an example")
    parser.add_argument("--rows", type=float, nargs="+", help="shares of supervised rows")
    parser.add_argument("--steps", type=int, help="rounds, after one to warm up")
    parser.add_argument("--checkpointing", choices=("no", "yes", "both"), help="activation checkpointing")
    parser.add_argument(
        "--contestants", type=Contestant, nargs="+", choices=list(Contestant), help="sft and cat always"
    )
    parser.add_argument(
        "--clock", choices=tuple(_CLOCKS), default="wall", help="cpu where others keep the machine busy"
    )
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="time only")
    parser.add_argument("--out", type=Path, help="without suffix")
    options = parser.parse_args(arguments)
    asked = (
        options.clock == "cpu",
        options.quick,
        options.lengths,
        options.rows,
        options.steps,
        options.checkpointing,
        options.contestants,
    )
    name = "training_speed-part" if any(asked) or not options.memory else "training_speed"
    options.out = options.out or _RESULTS / name
    options.lengths = options.lengths or ([64] if options.quick else _LENGTHS)
    options.rows = options.rows or list(TARGETS)
    options.steps = options.steps or (5 if options.quick else _STEPS)
    chosen = options.checkpointing or ("no" if options.quick else "both")
    options.checkpointing = {"no": [False], "yes": [True], "both": [False, True]}[chosen]
    wanted = {*(options.contestants or Contestant), Contestant.SFT, Contestant.CAT}
    options.contestants = [contestant for contestant in Contestant if contestant in wanted]
    return options


if __name__ == "__main__":
    main()
