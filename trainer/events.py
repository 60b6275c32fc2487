"""The run's events, appended to events.jsonl as core.domain.run_folder describes them."""

import json
import os
import time
from dataclasses import asdict
from io import RawIOBase
from pathlib import Path
from typing import Any

from core.domain.run_folder import Plan, StepMetrics, TrainingResult
from core.errors import CausewayError
from trainer.checkpoints import disk_errors


class EventLog:
    """Appends events to a file. Each line is on disk before the call returns; else DiskFull or TrainingFailed.

    Opening it cuts off a line that a killed process left half-written, so that every line can be read.

    Parameters
    ----------
    leads
        Of several processes that train together one leads; the others write nothing but `failed`.
    """

    def __init__(self, path: Path, *, leads: bool = True) -> None:
        self._path = path
        self._leads = leads
        if leads:
            with disk_errors("the events", path):
                path.touch()
                with path.open("r+b") as file:
                    file.truncate(_whole_lines(file.read()))

    def plan(self, plan: Plan) -> None:
        """What the run is going to do."""
        self._append("plan", asdict(plan))

    def step(self, metrics: StepMetrics) -> None:
        """Means since the previous `step` event."""
        self._append("step", asdict(metrics))

    def evaluation(self, split: str, step: int, metrics: dict[str, float]) -> None:
        """How the model does on a split."""
        self._append("evaluation", {"split": split, "step": step, "metrics": metrics})

    def checkpoint(self, step: int) -> None:
        """A checkpoint is whole on disk."""
        self._append("checkpoint", {"step": step})

    def warning(self, code: str, message: str, **facts: Any) -> None:
        """Something the user should know, though the run goes on."""
        self._append("warning", {"code": code, "message": message, "facts": facts})

    def finished(self, result: TrainingResult) -> None:
        """The adapter is whole on disk."""
        self._append("finished", asdict(result))

    def stopped(self) -> None:
        """The run was told to stop, and can be gone on with."""
        self._append("stopped", {})

    def failed(self, error: CausewayError) -> None:
        """The run cannot go on."""
        self._append("failed", {"code": error.code, "message": error.message, "facts": error.facts})

    def _append(self, kind: str, fields: dict[str, Any]) -> None:
        if not self._leads and kind != "failed":
            return
        line = json.dumps({"type": kind, "at": time.time(), **fields}, ensure_ascii=False) + "\n"
        with disk_errors("an event", self._path), self._path.open("ab", buffering=0) as file:
            begin = file.seek(0, os.SEEK_END)
            try:
                _write_whole(file, line.encode())
            except OSError:
                file.truncate(begin)  # half a line would take the next one with it
                raise
            os.fsync(file.fileno())


def _write_whole(file: RawIOBase, content: bytes) -> None:
    """A write to a disk that fills up is cut short without an error; the next one has it."""
    while content:
        content = content[file.write(content) :]


def _whole_lines(content: bytes) -> int:
    """Bytes up to and including the last newline."""
    return content.rfind(b"\n") + 1
