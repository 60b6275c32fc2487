"""Step times, taken in turns, and peak memory, a process each."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.speed.contestants import Contestant, Setting, build, trl_installed
from benchmarks.speed.pace import Paced, share_one_heap
from benchmarks.speed.scene import Scale, Scene

_MIB = 1 << 20
# Every tensor of more than 128 KiB is mapped by itself. By default glibc raises that bound as it goes, and two equal
# runs differ by 4 % in memory; so it is 0.1 %.
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 17), "MALLOC_MMAP_MAX_": "1000000"}
_MEMORY_STEPS = 2  # the optimiser's state exists from the second on


@dataclass(frozen=True, slots=True, order=True)
class Entrant:
    """A contestant at a share of supervised rows; 0 where its cost does not depend on that."""

    contestant: Contestant
    share: float


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of a process: idle with everything imported, with the model, at the highest."""

    idle: float
    loaded: float
    peak: float

    @property
    def above_idle(self) -> float:
        """What training took: weights, activations, gradients, optimiser."""
        return self.peak - self.idle

    @property
    def above_model(self) -> float:
        """The same without the weights: stricter, for they are equal for all."""
        return self.peak - self.loaded


def rounds(
    scene: Scene,
    entrants: Sequence[Entrant],
    *,
    steps: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> Iterator[list[float]]:
    """Seconds of a step of each entrant, `steps` times. In every round all make one step, in an order drawn anew."""
    share_one_heap()
    with tempfile.TemporaryDirectory() as scratch:
        settings = [
            Setting(_with_share(scene, entrant), steps + 1, Path(scratch) / str(place), device)
            for place, entrant in enumerate(entrants)
        ]
        paced = [
            Paced(build(entrant.contestant, asked), clock=clock)
            for entrant, asked in zip(entrants, settings, strict=True)
        ]
        order = np.random.default_rng(seed)
        for _ in range(steps):
            times = dict.fromkeys(entrants, 0.0)
            for place in order.permutation(len(entrants)):
                times[entrants[place]] = paced[place].step()
            yield [*times.values()]
        for one in paced:
            one.stop()


def peak_memory(scene: Scene, entrant: Entrant, *, device: torch.device) -> Memory:
    """In a fresh process, in which what is freed is given back: what an allocator keeps differs from run to run."""
    asked = json.dumps({**asdict(_with_share(scene, entrant)), "contestant": entrant.contestant})
    command = [sys.executable, "-m", "benchmarks.speed.measure", "--device", str(device), asked]
    environment = {**os.environ, **_GIVE_BACK}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def _with_share(scene: Scene, entrant: Entrant) -> Scene:
    return replace(scene, share=entrant.share)


class _StopAfter(TrainerCallback):
    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,  # noqa: ARG002
    ) -> None:
        control.should_training_stop = state.global_step >= _MEMORY_STEPS


def _measured(asked: dict[str, Any], device: torch.device) -> Memory:
    contestant = Contestant(asked.pop("contestant"))
    scene = Scene(**{**asked, "scale": Scale(**asked["scale"])})
    if contestant is Contestant.TRL:
        trl_installed()  # imports it, so that its own weight is not taken for the training's
    idle = _used(device)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = build(contestant, Setting(scene, _MEMORY_STEPS, Path(scratch), device))
        loaded = _used(device)
        trainer.add_callback(_StopAfter())
        trainer.train()
    return Memory(idle, loaded, _peak(device))


def _used(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / _MIB
    return _status("VmRSS:")


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    return _status("VmHWM:")


def _status(name: str) -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def main() -> None:
    """The fresh process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.measure")
    parser.add_argument("--device", type=torch.device, required=True)
    parser.add_argument("asked", type=json.loads)
    options = parser.parse_args()
    print(json.dumps(asdict(_measured(options.asked, options.device))))


if __name__ == "__main__":
    main()
