"""What a trainer asks of the operating system: its memory to keep, its run folder alone, and to be told of its end."""

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from torch.distributed import DistError

from core.errors import RunBusy
from trainer.checkpoints import disk_errors

_LOCK = "run.lock"
_PATIENCE = 5.0  # seconds that a trainer which was just killed may take to be gone
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_PR_SET_PDEATHSIG = 1  # sys/prctl.h
_STOPS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def sole_trainer(folder: Path) -> Iterator[None]:
    """Hold a run folder. Two trainers in it would write one another's checkpoints and events.

    Raises
    ------
    RunBusy
        Another trainer holds it.
    DiskFull, TrainingFailed
        There cannot be a lock.
    """
    with disk_errors("its lock", folder):
        lock = (folder / _LOCK).open("ab")
    with lock:
        give_up = time.monotonic() + _PATIENCE
        while not _is_locked(lock.fileno()):
            if time.monotonic() > give_up:
                raise RunBusy(f"another trainer is at work in {folder}; wait for it, or stop it", folder=str(folder))
            time.sleep(0.1)
        yield


def stop_request() -> Callable[[], bool]:
    """From now on SIGTERM and Ctrl-C only ask: whether one has come, says what is returned. A second Ctrl-C ends all.

    It holds until the process is gone: its exit status is the run's, whatever comes while the interpreter ends.
    """
    request = _StopRequest()
    for number in _STOPS:
        signal.signal(number, request)
    return request.has_come


@contextmanager
def stops_withheld() -> Iterator[None]:
    """Have a process that is started in here never hear of them, though they are sent to the whole group: who started
    it decides. None is lost to this process: this thread takes them afterwards, another one at once.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # a new process begins with what is blocked here
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error means that another process of the training is gone: what they do together then fails in all."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def end_with_torchrun() -> None:
    """Be killed when torchrun is. It starts its processes in sessions of their own, where no signal to it reaches them.

    Only Linux knows how to ask for that.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors for the next ones.

    By default it returns each to the kernel, which clears it page by page when it is asked for again: up to a fifth of
    the time of a small model's step. Other C libraries have no such setting.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the largest that glibc accepts
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


class _StopRequest:
    """A handler of signals."""

    def __init__(self) -> None:
        self._came = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._came:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            os.write(2, b"stopping after this step, with a checkpoint; Ctrl-C again ends it at once\n")
        self._came = True

    def has_come(self) -> bool:
        return self._came


def _is_locked(file: int) -> bool:
    """Whether the lock is ours now. It goes with the process, however that ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
