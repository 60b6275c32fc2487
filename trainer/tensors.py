"""Writing tensors so that a full disk is an OSError, as for any other file."""

import os
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Raises
    ------
    OSError
        With its errno: safetensors 0.8 has an error of its own for everything, and the number in the text alone.
    """
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as exc:
        number = re.search(r"\(os error (\d+)\)", str(exc))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from exc
