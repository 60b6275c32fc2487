"""Encoded examples on disk, so that a run that is gone on with does not encode its data again.

One safetensors file: the examples' arrays end to end, with how long each one's are. Its metadata holds the key, which
is a digest of all that decides the encoding, and a digest of the arrays. A file with another key or other bytes is
passed over.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase

from core.domain.annotation import Example
from core.domain.training import Rows
from trainer.checkpoints import disk_errors
from trainer.encoding import Encoded, encode_all
from trainer.tensors import save_tensors

_FORMAT = 1  # to be raised whenever trainer.encoding would encode the same examples otherwise
_ARRAYS = ("ids", "row_positions", "column_starts", "columns")
_NUMBERS = ("prompt_length", "over", "cut_effects", "cut_causes", "straddling_causes")
# Of a tokenizer's settings, those that say where it came from: a base that moved is still the same.
_WHENCE = ("name_or_path", "is_local", "local_files_only", "_commit_hash")
_PATHS = ("_file", "_path", "_dir")


def encoded_once(
    examples: Sequence[Example],
    data: Path,
    cache: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    rows: Rows | None,
    chat_template: bool,
) -> list[Encoded]:
    """As encode_all, from `cache` where that is of the same; else written there. `examples` are those in `data`.

    Raises
    ------
    InvalidInput
        As encode_all does.
    DiskFull, TrainingFailed
        The cache cannot be written.
    """
    if not tokenizer.is_fast:  # it has no key; encode_all says what is wrong with it
        return encode_all(tokenizer, examples, max_length=max_length, rows=rows, chat_template=chat_template)
    key = cache_key(data, tokenizer, max_length=max_length, rows=rows, chat_template=chat_template)
    encoded = load_encoded(cache, key)
    if encoded is None:
        encoded = encode_all(tokenizer, examples, max_length=max_length, rows=rows, chat_template=chat_template)
        with disk_errors("the encoded examples", cache.parent):
            save_encoded(encoded, cache, key)
    return encoded


def cache_key(
    data: Path, tokenizer: PreTrainedTokenizerBase, *, max_length: int, rows: Rows | None, chat_template: bool
) -> str:
    """Digest of a file of examples, of a fast tokenizer, and of what encoding was asked for."""
    with data.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    asked = [_FORMAT, content, max_length, rows, chat_template, tokenizer.chat_template, tokenizer.eos_token_id]
    digest = hashlib.sha256(json.dumps(asked).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(json.dumps(_settings(tokenizer)).encode())
    return digest.hexdigest()


def save_encoded(encoded: Sequence[Encoded], path: Path, key: str) -> None:
    """Write the examples under a key. The file is there whole or not at all. OSError when it cannot be written."""
    arrays = {name: _joined([getattr(e, name) for e in encoded]) for name in _ARRAYS}
    arrays |= {f"{name}.lengths": np.array([len(getattr(e, name)) for e in encoded], np.int64) for name in _ARRAYS}
    arrays |= {name: np.array([getattr(e, name) for e in encoded], np.int64) for name in _NUMBERS}
    arrays["example_ids"] = np.array(bytearray(json.dumps([e.example_id for e in encoded]).encode()))
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(descriptor)
    try:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        save_tensors(tensors, Path(partial), {"key": key, "sha256": _digest(arrays)})
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


def load_encoded(path: Path, key: str) -> list[Encoded] | None:
    """The examples that were saved under this key; None where there are none, or their file is damaged."""
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}  # None in a file that is not ours
            if metadata.get("key") != key:
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (FileNotFoundError, SafetensorError):
        return None  # torn: the answer to the question, not a failure
    if _digest(arrays) != metadata.get("sha256"):
        return None
    example_ids = json.loads(arrays["example_ids"].tobytes())
    parts = [_parted(arrays[name], arrays[f"{name}.lengths"]) for name in _ARRAYS]
    numbers = [arrays[name].tolist() for name in _NUMBERS]
    encoded = []
    for example_id, *fields in zip(example_ids, *parts, *numbers, strict=True):
        named = dict(zip((*_ARRAYS, *_NUMBERS), fields, strict=True))
        encoded.append(Encoded(example_id=example_id, **{**named, "over": bool(named["over"])}))
    return encoded


def _settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """What a tokenizer does beside its backend, as `split_special_tokens`; not where it was found."""
    plain = {name: value for name, value in tokenizer.init_kwargs.items() if isinstance(value, bool | int | str)}
    own = {name: plain[name] for name in sorted(plain) if not (name in _WHENCE or name.endswith(_PATHS))}
    return own | {"split_special_tokens": tokenizer.split_special_tokens}  # it may have been set since


def _joined(arrays: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)


def _parted(array: NDArray[np.generic], lengths: NDArray[np.int64]) -> list[NDArray[np.generic]]:
    return [array[begin:end] for begin, end in pairwise([0, *np.cumsum(lengths).tolist()])]


def _digest(arrays: dict[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
