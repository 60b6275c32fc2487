"""Writing tensors so that a full disk is an OSError, as for any other file."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Raises
    ------
    OSError
        With its errno: safetensors 0.8 has an error of its own for everything, and the number in the text alone.
    """
    with os_errors(path):
        save_file(tensors, path, metadata)


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Translate what libraries written in Rust say about a file there into OSError.

    Safetensors 0.8 has an error of its own for everything and tokenizers 0.23 a bare Exception, with the number of the
    system's error in the text alone.
    """
    try:
        yield
    except Exception as exc:
        number = re.search(r"\(os error (\d+)\)", str(exc))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from exc
