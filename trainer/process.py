"""What a trainer asks of the operating system: its memory to keep, an end with torchrun's, and its run folder alone."""

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.distributed import DistError

from core.errors import RunBusy
from trainer.checkpoints import disk_errors

_LOCK = "run.lock"
_PATIENCE = 5.0  # seconds that a trainer which was just killed may take to be gone
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_PR_SET_PDEATHSIG = 1  # sys/prctl.h


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


def _is_locked(file: int) -> bool:
    """Whether the lock is ours now. It goes with the process, however that ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
