"""Does cat generalise where sft does not, and is it the causes that do it?

    python -m benchmarks.accuracy --runs sft cat                       # over seeds 0, 1, 2
    python -m benchmarks.accuracy --runs cat cat:permuted cat:random cat:shortcuts    # controls: wrong causes

Trains on the Spurious Token Game through `python -m trainer`, sft and cat on the same data, order and seed. A run is a
method, a preset of cat (`paper`), or cat with causes that are wrong in one of these ways:

permuted    each example has the labels of another, so its causes are spans at the places where another's are
random      three of its eight phrases, drawn for each example
shortcuts   always the three phrases that only go along with the causes
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

from benchmarks import stg
from core.domain.annotation import Example
from core.domain.relations import Relation
from core.domain.run_folder import BaseModelSpec, RunConfig, example_to_json, run_to_json
from core.domain.spans import Span
from core.domain.training import Method, Preset, TrainingConfig

_HELD_OUT = 400
_PHRASE = re.compile(r"[A-Z][a-z]+(?: [a-z]+)?: \d+")

Relabel = Callable[[list[Example]], list[Example]]


@dataclass(frozen=True, slots=True)
class Score:
    """One training, in %."""

    run: str
    seed: int
    majority_iid: float
    majority_ood: float
    iid: float
    ood: float
    balanced_iid: float
    balanced_ood: float
    seconds: float


def permuted(examples: list[Example]) -> list[Example]:
    """Each example with the causes of another, where these lie inside its own input."""
    others = [example.relations[0].causes for example in examples]
    random.Random("permuted").shuffle(others)
    return [_with_causes(example, causes) for example, causes in zip(examples, others, strict=True)]


def at_random(examples: list[Example]) -> list[Example]:
    """Each example with three of its eight phrases as causes."""
    rng = random.Random("random")
    return [_with_causes(example, sorted(rng.sample(_phrases(example), 3))) for example in examples]


def shortcuts(examples: list[Example]) -> list[Example]:
    """Each example with its three spurious phrases as causes."""
    return [
        _with_causes(example, [span for span in _phrases(example) if span.of(example.text).startswith(stg.SPURIOUS)])
        for example in examples
    ]


CONTROLS: dict[str, Relabel] = {"permuted": permuted, "random": at_random, "shortcuts": shortcuts}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print a table, end with a JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ["sft", "cat", "paper", *(f"cat:{name}" for name in CONTROLS)]
    parser.add_argument("--runs", nargs="+", choices=known, default=["sft", "cat"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--examples", type=int, default=6400)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--parallel", type=int, default=min(2, os.cpu_count() or 1), help="trainings at once")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.parallel) as pool:
        wanted = [(run, seed) for seed in options.seeds for run in options.runs]

        def score(run: str, seed: int) -> Score:
            folder_of_run = Path(folder) / f"{run.replace(':', '-')}-{seed}"
            found = _train(folder_of_run, run, seed, options.examples, options.epochs)
            print(f"{run} seed {seed}: {found.iid:.1f} / {found.ood:.1f}", file=sys.stderr, flush=True)
            return found

        scores = list(pool.map(lambda pair: score(*pair), wanted))
    _print_table(options.runs, scores)
    print(json.dumps([asdict(score) for score in scores]))


def _train(folder: Path, run: str, seed: int, examples: int, epochs: int) -> Score:
    name, _, control = run.partition(":")
    config = TrainingConfig(
        method=Method.SFT if name == "sft" else Method.CAT,
        preset=Preset.PAPER if name == "paper" else Preset.CAUSEWAY,
        epochs=epochs,
        batch_size=64,
        learning_rate=2e-3,
        seed=seed,
    )
    # The demo's own seeds: `make demo ARGS="--seed S"` trains on this data.
    train = list(stg.generate(examples, seed=3 * seed))
    _write(folder / "train.jsonl", CONTROLS[control](train) if control else train)
    _write(folder / "eval" / "iid.jsonl", stg.generate(_HELD_OUT, seed=3 * seed + 1))
    _write(folder / "eval" / "ood.jsonl", stg.generate(_HELD_OUT, seed=3 * seed + 2, ood=True))
    base = BaseModelSpec("builtin:small", "builtin:small")
    (folder / "config.json").write_text(json.dumps(run_to_json(RunConfig(base, config))))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run([sys.executable, "-m", "trainer", str(folder)], check=True, env=environment, capture_output=True)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    [finished] = [event for event in events if event["type"] == "finished"]
    iid, ood = finished["metrics"]["iid"], finished["metrics"]["ood"]
    return Score(
        run,
        seed,
        majority_iid=_percent(iid["majority"]),
        majority_ood=_percent(ood["majority"]),
        iid=_percent(iid["accuracy"]),
        ood=_percent(ood["accuracy"]),
        balanced_iid=_percent(iid["balanced_accuracy"]),
        balanced_ood=_percent(ood["balanced_accuracy"]),
        seconds=round(finished["seconds"], 1),
    )


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _write(path: Path, examples: Iterable[Example]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(example_to_json(example)) + "\n")


def _phrases(example: Example) -> list[Span]:
    return [Span(*match.span()) for match in _PHRASE.finditer(example.input)]


def _with_causes(example: Example, causes: Sequence[Span]) -> Example:
    effect = example.relations[0].effect
    inside = tuple(cause for cause in causes if cause.precedes(effect))
    return replace(example, relations=(Relation(effect, inside),) if inside else ())


def _print_table(runs: Sequence[str], scores: Sequence[Score]) -> None:
    print(f"{'run':<14} {'seed':>4} {'majority':>13} {'IID / OOD':>13} {'balanced':>13} {'seconds':>8}")
    for run in runs:
        mine = [score for score in scores if score.run == run]
        for s in mine:
            pairs = ((s.majority_iid, s.majority_ood), (s.iid, s.ood), (s.balanced_iid, s.balanced_ood))
            cells = " ".join(f"{f'{a:.1f} / {b:.1f}':>13}" for a, b in pairs)
            print(f"{run:<14} {s.seed:>4} {cells} {s.seconds:>8.0f}")
        means = f"{mean(s.iid for s in mine):.1f} / {mean(s.ood for s in mine):.1f}"
        balanced = f"{mean(s.balanced_iid for s in mine):.1f} / {mean(s.balanced_ood for s in mine):.1f}"
        print(f"{run:<14} {'mean':>4} {'':>13} {means:>13} {balanced:>13}")


if __name__ == "__main__":
    main()
