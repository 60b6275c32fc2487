"""What does CAT cost over plain fine-tuning, in time and in memory, and what did the published way cost?

One model (a Llama of 8 layers x 512, LoRA of rank 16 on every linear layer), one batch of 2, and per length:

    sft, sft_again  plain fine-tuning through our trainer, twice: their ratio is the noise of the measurement
    trl             TRL's SFTTrainer, where installed: pip install -e ".[trainer,benchmarks]"
    cat             our attention objective with guided masking on every step; cat_unguided without
    eager           every attention map kept, the loss as tensor operations
    published       the same with a Python loop over the supervised rows, as published

    python -m benchmarks.training_speed                        # the whole grid, or what is still missing of it
    python -m benchmarks.training_speed --lengths 64,512       # a piece of it, into the same file
    python -m benchmarks.training_speed --quick                # does it run at all? Into a file of its own

The grid: 64, 512, 1,024 and 2,048 tokens, with 2, 10 and 50 % of the rows supervised, without and with activation
checkpointing. A length and checkpointing are a scene. In each, all contestants make one step a round, in an order drawn
anew, so that a slow moment of the machine meets them alike; 30 rounds, then peak memory, a process each. Every round is
written as it ends. A run that is stopped, at any moment, is gone on with by the same command: rounds add up, a
finished scene is skipped, and one of another machine, library or version of our code is begun anew unless it is whole.
What is left is estimated after each scene's first round.

The last line is JSON: {"time_ratio", "memory_ratio" (cat / sft at 1,024 tokens, by share of rows),
"published_over_cat_time" (at 10 % rows)}. Pin the threads (OMP_NUM_THREADS=1) on a machine that is shared, and read
sft_again first: where it is far from 1, the wall clock tells nothing, and --clock cpu a little more.
"""

import argparse
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

import trainer
from benchmarks.speed.contestants import Contestant, trl_installed
from benchmarks.speed.measure import Entrant, peak_memory, rounds
from benchmarks.speed.record import Measured, load, save
from benchmarks.speed.report import TARGETS, Result, compare, last_line, plain, plot, table
from benchmarks.speed.scene import Scale, Scene

LENGTHS = (64, 512, 1024, 2048)
STEPS = 30
_RESULTS = Path(__file__).parent / "results"
_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_TINY = Scale(layers=2, width=64, heads=4, vocabulary=256, lora_rank=4)
_DURATION = """The whole grid takes many hours on one core, more than half of them at 2,048 tokens. Its pieces may be
run apart, and a run may be stopped: the first round of each scene tells how long is left."""
# What a step runs through. Elsewhere a change does not make earlier rounds another thing.
_TIMED = "attention fused pairs row_attention supervision batching loss masses step tuner".split()  # noqa: SIM905


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, print, write."""
    options = _options(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if Contestant.TRL in options.contestants and not trl_installed():
        options.contestants.remove(Contestant.TRL)
        print('trl is not installed and sits out: pip install -e ".[trainer,benchmarks]"')
    console = Console(width=140)
    path = options.out.with_suffix(".json")
    kept = {} if options.again else load(path)
    scale = _TINY if options.quick else Scale()
    scenes = [Scene(length, 0.0, ckpt, scale) for ckpt in options.checkpointing for length in options.lengths]
    for place, scene in enumerate(scenes):
        measured = _begin(scene, options, device, kept)
        for times in _missing_rounds(measured, scene, scenes[place + 1 :], options, device):
            measured.rounds.append([round(seconds, 5) for seconds in times])
            _write(kept, path)
        for entrant in measured.entrants[len(measured.memories) :] if options.memory else ():
            measured.memories.append(peak_memory(scene, entrant, device=device))
            _write(kept, path)
        console.print(table(compare(measured)))
    everything = _results(kept)
    plot(everything).savefig(options.out.with_suffix(".png"))
    print(json.dumps(last_line(everything)))


def _begin(
    scene: Scene, options: argparse.Namespace, device: torch.device, kept: dict[tuple[int, bool], Measured]
) -> Measured:
    """What is kept of the scene, or a blank sheet in its place."""
    entrants = [
        Entrant(contestant, share)
        for contestant in options.contestants
        for share in (options.rows if contestant.has_rows else (0.0,))
    ]
    blank = Measured(scene.length, scene.checkpointing, _settings(device, options), entrants)
    known = kept.get((scene.length, scene.checkpointing))
    name = _name(scene)
    if known is not None and known.is_whole(options.steps, memory=options.memory):
        other = "" if known.goes_on_with(blank) else " (of another machine, library or code: --again measures anew)"
        print(f"{name}: has its {len(known.rounds)} rounds{other}", flush=True)
        return known
    if known is not None and known.goes_on_with(blank):
        print(f"{name}: goes on after {len(known.rounds)} rounds", flush=True)
        return known
    kept[scene.length, scene.checkpointing] = blank
    return blank


def _missing_rounds(
    measured: Measured, scene: Scene, later: Sequence[Scene], options: argparse.Namespace, device: torch.device
) -> Iterator[list[float]]:
    missing = options.steps - len(measured.rounds)
    if missing <= 0:
        return
    done, begun = len(measured.rounds), time.perf_counter()
    print(f"{_name(scene)}: {missing} rounds of {len(measured.entrants)} steps", flush=True)
    clock, seed = _CLOCKS[options.clock], done
    for times in rounds(scene, measured.entrants, steps=missing, device=device, clock=clock, seed=seed):
        measured.loads.append(round(os.getloadavg()[0], 1))
        yield times
        if len(measured.rounds) in (done + 1, done + missing // 2):
            # The first had a step of warming up before it.
            seconds = (time.perf_counter() - begun) / (len(measured.rounds) - done + 1)
            left = seconds * (missing - len(measured.rounds) + done)
            others = sum(_times_longer(one, scene) for one in later) * seconds * options.steps
            print(
                f"  {seconds:.1f} s a round, {_minutes(left)} left here, then memory; later scenes {_minutes(others)}"
            )


def _times_longer(one: Scene, than: Scene) -> float:
    """A guess: attention grows with the square of the length, the rest with the length."""
    longer: float = (one.length / than.length) ** 1.4
    return longer * (1.3 if one.checkpointing else 1) / (1.3 if than.checkpointing else 1)


def _minutes(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min"


def _name(scene: Scene) -> str:
    return f"{scene.length:,} tokens, {'with' if scene.checkpointing else 'without'} checkpointing"


def _write(kept: dict[tuple[int, bool], Measured], path: Path) -> None:
    results = _results(kept)
    save(path, [*kept.values()], **last_line(results), results=[plain(one) for one in results])


def _results(kept: dict[tuple[int, bool], Measured]) -> list[Result]:
    return [result for measured in kept.values() if measured.rounds for result in compare(measured)]


def _settings(device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    sources = [Path(trainer.__path__[0]) / f"{name}.py" for name in _TIMED]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "dtype": "bf16" if device.type == "cuda" else "fp32",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "clock": options.clock,
        "quick": options.quick,
        "code": hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12],
    }


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_DURATION,
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model at 64 tokens, 5 rounds: does it run at all?")
    parser.add_argument("--lengths", type=_numbers(int), help="tokens of an example; default 64,512,1024,2048")
    parser.add_argument("--rows", type=_numbers(float), help="shares of supervised rows; default 0.02,0.1,0.5")
    parser.add_argument("--steps", type=int, help="rounds, after one to warm up; default 30")
    parser.add_argument("--checkpointing", choices=("no", "yes", "both"), help="of activations; default both")
    parser.add_argument(
        "--contestants", type=Contestant, nargs="+", choices=list(Contestant), help="sft and cat always; default all"
    )
    parser.add_argument(
        "--clock", choices=tuple(_CLOCKS), default="wall", help="cpu where others keep the machine busy; default wall"
    )
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="time only")
    parser.add_argument("--again", action="store_true", help="forget what the file holds")
    parser.add_argument("--out", type=Path, help="without suffix; default benchmarks/results/training_speed")
    options = parser.parse_args(arguments)
    fewer = options.quick, options.rows, options.contestants, not options.memory, (options.steps or STEPS) < STEPS
    # Scenes that lack something go to a file of their own.
    options.out = options.out or _RESULTS / ("training_speed-part" if any(fewer) else "training_speed")
    options.lengths = options.lengths or ([64] if options.quick else LENGTHS)
    options.rows = options.rows or list(TARGETS)
    options.steps = options.steps or (5 if options.quick else STEPS)
    chosen = options.checkpointing or ("no" if options.quick else "both")
    options.checkpointing = {"no": [False], "yes": [True], "both": [False, True]}[chosen]
    wanted = {*(options.contestants or Contestant), Contestant.SFT, Contestant.CAT}
    options.contestants = [contestant for contestant in Contestant if contestant in wanted]
    return options


def _numbers(of: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Reads "64,512"."""

    def numbers(text: str) -> list[Any]:
        return [of(one) for one in text.split(",")]

    return numbers


if __name__ == "__main__":
    main()
