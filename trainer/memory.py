"""How much memory this process has used at most."""

import resource
import sys

import torch


def peak_memory() -> int:
    """Bytes: allocated by torch on the accelerator in use where there is one, else resident in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts KiB, on a Mac bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
