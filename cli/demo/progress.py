"""Jobs as they go: live bars on a terminal, now and then a line anywhere else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.demo.client import TERMINAL

_LINE_EVERY = 15.0  # seconds between two lines about a job where there is no terminal


@dataclass
class Board:
    """What is shown of the jobs that run now."""

    console: Console
    progress: Progress
    live: bool
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _said: dict[str, float] = field(default_factory=dict)

    def show(self, name: str, job: dict[str, Any]) -> None:
        """Bring what is shown of the job `name` up to its newest state."""
        total, done = job["counts"]["total"] or None, job["counts"]["done"]
        words = describe(job)
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(name, total=total, words=words)
        self.progress.update(self._tasks[name], total=total, completed=done, words=words)
        now = time.monotonic()
        due = now - self._said.get(name, now - _LINE_EVERY) >= _LINE_EVERY
        if not self.live and (due or job["state"] in TERMINAL):
            self._said[name] = now
            self.console.print(f"  {name}: {done}/{total or '?'}  {words}", markup=False, soft_wrap=True)


@contextmanager
def board(console: Console) -> Iterator[Board]:
    """A board for the time of the block."""
    columns = (
        TextColumn("  {task.description:<10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    live = console.is_terminal
    with Progress(*columns, console=console, disable=not live) as progress:
        yield Board(console, progress, live)


def describe(job: dict[str, Any]) -> str:
    """State, losses, attention mass and time left, as far as they are known."""
    if job["state"] != "running":
        return str(job["state"])
    progress: dict[str, Any] = job["progress"]
    names = (("token_loss", "loss"), ("attention_loss", "attention loss"), ("mass", "mass on causes"))
    words = [f"{label} {progress[name]:.3f}" for name, label in names if progress.get(name) is not None]
    eta = progress.get("eta_seconds")
    return "  ".join(words + ([] if eta is None else [f"{_minutes(eta)} left"])) or "running"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
