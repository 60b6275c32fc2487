"""How much memory this process has used at most, and whether it was that which ran out."""

import resource
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

_T = TypeVar("_T")

# How torch says so where it has no class for it: of main memory, and of what libraries on the GPU wanted.
_SAID = ("can't allocate memory", "CUDA error: out of memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch's says that memory ran out, the accelerator's or this machine's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def within_memory(work: Callable[[], _T]) -> _T | None:
    """What `work` returns, or None where memory ran out in it, whichever library said so. All it held is let go."""
    try:
        return work()
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        return None


def peak_memory() -> int:
    """Bytes: allocated by torch on the accelerator in use where there is one, else resident in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts KiB, on a Mac bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
