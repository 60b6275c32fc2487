"""Small run folders on `builtin:small`, and what came out of them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.stg import generate
from core.domain.annotation import Example
from core.domain.relations import Relation
from core.domain.run_folder import BaseModelSpec, RunConfig, example_to_json, run_to_json
from core.domain.spans import Span
from core.domain.training import TrainingConfig
from core.settings import JobSettings
from worker.runtime import trainer_command
from worker.supervisor import Child

SMALL = BaseModelSpec("builtin:small", "builtin:small")
TWO = trainer_command(JobSettings(training_processes=2))  # what starts a trainer of two processes


def run_folder(folder: Path, config: TrainingConfig, *, train: Sequence[Example] | int = 24, test: int = 4) -> Path:
    """A run folder; `train` is a list of examples or a number of generated ones."""
    (folder / "eval").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(run_to_json(RunConfig(SMALL, config))))
    examples = [*generate(train, seed=5)] if isinstance(train, int) else train
    write_examples(folder / "train.jsonl", examples)
    write_examples(folder / "eval" / "ood.jsonl", [*generate(test, seed=6, ood=True)])
    return folder


def uneven(count: int) -> list[Example]:
    """Generated examples of unlike lengths: before three of four stands something else, in short, middling and long."""
    examples = []
    for number, example in enumerate(generate(count, seed=5)):
        before = "Age: 7, " * (12 * (number % 4))
        relations = tuple(
            Relation(_later(r.effect, len(before)), tuple(_later(c, len(before)) for c in r.causes))
            for r in example.relations
        )
        examples.append(replace(example, input=before + example.input, relations=relations))
    return examples


def _later(span: Span, by: int) -> Span:
    return Span(span.start + by, span.end + by)


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    path.write_text("".join(json.dumps(example_to_json(example)) + "\n" for example in examples))


def events_of(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The whole lines of a run's events, those of one type if given."""
    path = folder / "events.jsonl"
    text = path.read_text() if path.exists() else ""
    events = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [event for event in events if kind in (None, event["type"])]


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """`python -m trainer FOLDER` as a process of its own, one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", str(folder), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


class StopAfter:
    """Says yes from its n-th asking on. The loop asks after every step, once more before the first."""

    def __init__(self, steps: int) -> None:
        self.left = steps + 1

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def in_two_processes(folder: Path, *options: str, stop_at: int | None = None) -> tuple[int, str]:
    """Run the trainer as a worker does, told to stop once it has saved a checkpoint of that step. Code and log."""
    with Child([*TWO, *options, str(folder)], folder) as child:
        while (ended := child.poll()) is None:
            if stop_at and any(event["step"] >= stop_at for event in events_of(folder, "checkpoint")):
                child.stop(grace=600)
            time.sleep(0.02)
    return ended.code, (folder / "trainer.log").read_text()
