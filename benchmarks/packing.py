"""How much of a batch is padding, and what does it save to pack examples into shared rows instead?

    python -m benchmarks.packing [--steps 15] [--quick]

Examples of 20 to 512 tokens (lognormal, median 90), a tenth of them supervised, 16 a step, through our trainer with cat
guided on every step, on a Llama of 4 layers x 256. Two data sets: `large`, in which the trainer finds examples of like
length for each step, and `one batch`, which is all there is and holds every length. Padded and packed make a step in
turns, of the same examples; the ratio is packed / padded, with its bootstrap 95 % interval. The last line is JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.contestants import GUIDED
from benchmarks.speed.pace import Paced, share_one_heap
from benchmarks.speed.ratios import Ratio, paired_ratio
from benchmarks.speed.scene import PAD, Scale, Scene, base_model, examples
from core.domain.training import TrainingConfig
from trainer import attention
from trainer.encoding import Encoded
from trainer.events import EventLog
from trainer.model import add_lora
from trainer.tuner import Tuner

_BATCH, _LONGEST = 16, 512
_SIZES = {"large": 800, "one batch": _BATCH}
_SCALE = Scale(layers=4, width=256, heads=4)
_TINY = Scale(layers=2, width=64, heads=4, vocabulary=256, lora_rank=4)


class _Padding:
    pad_token_id = PAD


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description="Packed against padded.")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="a smaller model, three steps")
    options = parser.parse_args(arguments)
    attention.register()
    share_one_heap()
    scale, steps = (_TINY, 3) if options.quick else (_SCALE, options.steps)
    table = Table("data set", "padding, padded", "padding, packed", "step time, packed / padded")
    found = {}
    for name, size in _SIZES.items():
        paddings, ratio = _compared(uneven(size, scale), scale, steps)
        table.add_row(
            name, *(f"{share:.1%}" for share in paddings), f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        )
        found[name] = {"padding": paddings, "time_ratio": ratio.median}
    Console(width=120).print(table)
    print(json.dumps(found))


def uneven(count: int, scale: Scale) -> list[Encoded]:
    """Pseudo-random examples of lognormal lengths."""
    lengths = np.random.default_rng(0).lognormal(np.log(90), 0.8, count).clip(20, _LONGEST).astype(int)
    return [examples(Scene(int(length), 0.1, checkpointing=False, scale=scale), 1)[0] for length in lengths]


def _compared(encoded: list[Encoded], scale: Scale, steps: int) -> tuple[list[float], Ratio]:
    """The share of padding of each, padded first, and the ratio of their step times."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / "padded", Path(scratch) / "packed"]
        paced = [Paced(_tuner(encoded, scale, folder, steps)) for folder in folders]
        times: list[list[float]] = [[], []]
        order = np.random.default_rng(0)
        for _ in range(steps):
            for place in order.permutation(2):
                times[place].append(paced[place].step())
        for one in paced:
            one.stop()
        return [_padding(folder) for folder in folders], paired_ratio(times[1], times[0])


def _tuner(encoded: list[Encoded], scale: Scale, folder: Path, steps: int) -> Tuner:
    folder.mkdir()
    config = TrainingConfig(
        batch_size=_BATCH,
        max_length=_LONGEST,
        packing=folder.name == "packed",
        objective=GUIDED,
        epochs=steps + 2,
        lora_rank=scale.lora_rank,
        log_every=1,
        checkpoint_every=1_000_000,
    )
    model = base_model(scale, attention=attention.NAME, device=torch.device("cpu"))
    return Tuner(
        add_lora(model, config),
        _Padding(),  # type: ignore[arg-type]  # all that the loop asks of a tokenizer
        encoded,
        config=config,
        folder=folder / "checkpoints",
        events=EventLog(folder / "events.jsonl"),
        should_stop=lambda: False,
    )


def _padding(folder: Path) -> float:
    """Mean share over the steps, which hold about as many positions each."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return float(np.mean([event["padding"] for event in events if event["type"] == "step"]))


if __name__ == "__main__":
    main()
