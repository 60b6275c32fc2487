"""A trainer as a child process: started alone in its group, listened to through its files, stopped politely or not.

The run folder is locked by whoever trains in it. The child inherits the lock, so it outlives a worker that was killed,
and the next worker knows that a trainer is still running there, and which.
"""

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from core.domain.run_folder import EXIT_INTERRUPTED
from core.errors import TrainingFailed, Unavailable

_LOCK = "trainer.lock"  # holds the process group of the trainer, while there is one
_LOG = "trainer.log"
_EVENTS = "events.jsonl"
_BATCH = 1 << 20  # bytes of events read at a time
_TAKEOVER = 10.0  # seconds that a killed trainer may take to be gone

# All that a trainer needs of our environment. No database, no broker, no keys of teachers.
_KEPT = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "CAUSEWAY_CACHE", "PYTHONPATH"})
_KEPT_PREFIXES = (
    "HF_", "CUDA_", "NVIDIA_", "NCCL_", "TORCH_", "PYTORCH_", "OMP_", "MKL_", "LC_", "TOKENIZERS_", "ATEN_",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exit:
    """How a trainer ended: its exit code, or the signal that killed it."""

    code: int

    @property
    def signal(self) -> str | None:
        """SIGKILL, SIGSEGV, ...; None when it exited by itself."""
        return signal.Signals(-self.code).name if self.code < 0 else None

    @property
    def interrupted(self) -> bool:
        """Whether it saved a checkpoint and can be resumed."""
        return self.code == EXIT_INTERRUPTED


@dataclass(frozen=True, slots=True)
class Events:
    """Whole lines that the trainer appended, and where the next ones will begin."""

    events: list[dict[str, Any]]
    end: int  # byte offset in events.jsonl
    unreadable: int = 0  # lines that are not JSON objects with a type


class Child:
    """A running trainer. Leaving the block kills whatever is left of its group."""

    def __init__(self, argv: Sequence[str], folder: Path) -> None:
        self._argv, self._folder = list(argv), folder
        self._begun_at = 0  # byte of events.jsonl where this attempt's events begin
        self._stop_by: float | None = None  # on the monotonic clock

    def __enter__(self) -> Self:
        self._lock = _locked(self._folder / _LOCK)
        self._begun_at = _end_of_lines(self._folder / _EVENTS)
        try:
            self._process = self._start()
        except OSError as exc:
            self._lock.close()
            raise TrainingFailed("the trainer cannot be started") from exc
        self._lock.write(str(self._process.pid).encode())
        self._lock.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._process.wait()
        self._lock.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        with (self._folder / _LOG).open("ab") as log:
            return subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(os.environ),
                start_new_session=True,
                pass_fds=[self._lock.fileno()],
            )

    def poll(self) -> Exit | None:
        """How it ended, None while it runs. A trainer that was asked to stop and takes too long is killed.

        torchrun has one exit code for whatever its processes' were, so the trainer's word counts there.
        """
        if self._stop_by is not None and time.monotonic() > self._stop_by:
            self.kill()
        code = self._process.poll()
        if code is None:
            return None
        return Exit(EXIT_INTERRUPTED if code > 0 and self._says_stopped() else code)

    def _says_stopped(self) -> bool:
        """Whether this attempt was stopped, and not by a failure of one of its processes before that."""
        at = self._begun_at
        while (new := read_events(self._folder / _EVENTS, at)).end > at:
            for event in new.events:
                if event["type"] in ("stopped", "failed"):
                    return bool(event["type"] == "stopped")
            at = new.end
        return False

    def stop(self, *, grace: float) -> None:
        """Ask it to save a checkpoint and go, within `grace` seconds. Asking again changes nothing."""
        if self._stop_by is None:
            self._stop_by = time.monotonic() + grace
            _signal_group(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the whole group now."""
        _signal_group(self._process.pid, signal.SIGKILL)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of our environment that a trainer gets."""
    return {k: v for k, v in environment.items() if k in _KEPT or k.startswith(_KEPT_PREFIXES)}


def end_left_behind(folder: Path) -> None:
    """End the trainer that a dead worker left in a run folder, if there is one.

    Raises
    ------
    Unavailable
        When it cannot be ended.
    """
    _locked(folder / _LOCK).close()


def read_events(path: Path, start: int) -> Events:
    """The whole lines of events.jsonl from byte `start`, at most a megabyte of them; a torn last line waits."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < start:
                start = 0  # another folder than the one we read before: the run begins anew
            file.seek(start)
            content = file.read(_BATCH)
    except FileNotFoundError:
        return Events([], start)
    whole = content[: content.rfind(b"\n") + 1]
    if not whole and len(content) == _BATCH:
        whole = content  # no event is as long as this: skip it, or nothing would ever come after it
    parsed = [_event(line) for line in whole.splitlines()]
    events = [event for event in parsed if event is not None]
    return Events(events, start + len(whole), len(parsed) - len(events))


def _end_of_lines(path: Path) -> int:
    """The byte after the last whole line; a torn one is cut off by the next trainer."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 0
    return content.rfind(b"\n") + 1


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None


def _locked(path: Path) -> BinaryIO:
    """The lock of a run folder; a trainer that a dead worker left behind is killed for it.

    Raises
    ------
    Unavailable
        When somebody holds it whom we cannot end.
    """
    lock = path.open("a+b")
    if _try_lock(lock):
        return lock
    lock.seek(0)
    left_behind = lock.read(20)
    if left_behind.isdigit():
        _signal_group(int(left_behind), signal.SIGKILL)
    deadline = time.monotonic() + _TAKEOVER
    while time.monotonic() < deadline:
        if _try_lock(lock):
            return lock
        time.sleep(0.05)
    lock.close()
    raise Unavailable("another trainer still works in the run folder")


def _try_lock(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    lock.truncate(0)  # whoever it named is gone
    return True


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # gone already
