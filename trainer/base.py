"""`builtin:small`: a toy Llama whose weights are a function of a seed alone, trained on nothing.

It exists so that the demo and the tests run anywhere with nothing to download. `python -m trainer.base export DIR`
writes it out as an ordinary model folder, for loading an adapter trained on it elsewhere.

The bytes are the same on every machine: integers from SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) in counter mode,
scaled by exact float32 arithmetic, never through a library's own random floats.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from core.errors import BaseModelUnavailable, CausewayError, DiskFull
from trainer.base_tokenizer import EOS, PAD, build_tokenizer
from trainer.checkpoints import NO_SPACE

SMALL = "builtin:small"
WEIGHTS = "model.safetensors"

_SEED = 20250901
_WIDTH, _HIDDEN, _LAYERS, _HEADS, _POSITIONS = 64, 192, 2, 4, 4096
# Uniform on [-bound, bound). LoRA leaves embeddings and head as they are, so both must already be at a scale that tells
# tokens apart; the projections between them are near the usual 1 / sqrt(fan-in).
_EMBEDDING_BOUND = 1.75  # standard deviation about 1
_HEAD_BOUND = 0.6875  # standard deviation about 0.4
_PROJECTION_BOUND = 1.75  # over sqrt(fan-in)


@cache
def small_files() -> dict[str, bytes]:
    """The whole model folder of `builtin:small`, file name to content. About a megabyte."""
    tokenizer = build_tokenizer()
    vocabulary = tokenizer.get_vocab()
    files = {
        "config.json": _json(_config(vocabulary)),
        WEIGHTS: save(_weights(len(vocabulary), _SEED), metadata={"format": "pt"}),
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(_tokenizer_config()),
    }
    return files | {"README.md": _card(files).encode()}


def small_revision() -> str:
    """What stands for a commit of `builtin:small`: the head of the sha256 of its weights."""
    return hashlib.sha256(small_files()[WEIGHTS]).hexdigest()[:12]


def export_small(folder: Path) -> None:
    """Write `builtin:small` to `folder`, which must not exist or be empty. It is there whole or not at all.

    Raises
    ------
    BaseModelUnavailable
        When the folder holds other files, or cannot be written.
    DiskFull
        There is no space, or no quota, left for it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            staging.chmod(0o755)
            for name, content in small_files().items():
                (staging / name).write_bytes(content)
            staging.replace(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)  # gone already when it was renamed
    except OSError as exc:
        if _is_small(folder):  # another process may have put it there meanwhile
            return
        told = f"cannot write {SMALL} to {folder}: {exc.strerror}"
        if exc.errno in NO_SPACE:
            raise DiskFull(f"{told}; make room there", folder=str(folder)) from exc
        raise BaseModelUnavailable(f"{told}; name an empty or new folder", folder=str(folder)) from exc


def small_folder() -> Path:
    """The folder of `builtin:small` in the cache, made on first use.

    The cache is $CAUSEWAY_CACHE, else $XDG_CACHE_HOME/causeway, else ~/.cache/causeway. A folder with other bytes in it
    (a torn disk, another version of a library) is replaced.
    """
    folder = _cache() / f"small-{_digest(small_files())[:12]}"
    if _is_small(folder):
        return folder
    try:
        export_small(folder)
    except BaseModelUnavailable:
        if not folder.is_dir():
            raise
        # Never removed in place: another process may have just put the good one there.
        broken = Path(tempfile.mkdtemp(prefix=".broken-", dir=folder.parent))
        folder.replace(broken)
        shutil.rmtree(broken)
        export_small(folder)
    return folder


def _cache() -> Path:
    if chosen := os.environ.get("CAUSEWAY_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "causeway"


def _is_small(folder: Path) -> bool:
    try:
        return all((folder / name).read_bytes() == content for name, content in small_files().items())
    except OSError:
        return False


def _config(vocabulary: dict[str, int]) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": len(vocabulary),
        "hidden_size": _WIDTH,
        "intermediate_size": _HIDDEN,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "max_position_embeddings": _POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": vocabulary[EOS],
        "pad_token_id": vocabulary[PAD],
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": _POSITIONS,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # "<|end|>" written by a user is text
    }


def _weights(vocabulary: int, seed: int) -> dict[str, NDArray[np.float32]]:
    projections = {
        "self_attn.q_proj": (_WIDTH, _WIDTH),
        "self_attn.k_proj": (_WIDTH, _WIDTH),
        "self_attn.v_proj": (_WIDTH, _WIDTH),
        "self_attn.o_proj": (_WIDTH, _WIDTH),
        "mlp.gate_proj": (_HIDDEN, _WIDTH),
        "mlp.up_proj": (_HIDDEN, _WIDTH),
        "mlp.down_proj": (_WIDTH, _HIDDEN),
    }
    weights = {
        "model.embed_tokens.weight": _uniform("embed", seed, (vocabulary, _WIDTH), _EMBEDDING_BOUND),
        "lm_head.weight": _uniform("head", seed, (vocabulary, _WIDTH), _HEAD_BOUND),
        "model.norm.weight": np.ones(_WIDTH, np.float32),
    }
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}."
        for name, shape in projections.items():
            bound = _PROJECTION_BOUND / shape[1] ** 0.5
            weights[f"{prefix}{name}.weight"] = _uniform(prefix + name, seed, shape, bound)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{name}.weight"] = np.ones(_WIDTH, np.float32)
    return weights


def _uniform(name: str, seed: int, shape: tuple[int, int], bound: float) -> NDArray[np.float32]:
    """Floats on [-bound, bound), the i-th a function of name, seed and i. One rounding each: the product with bound."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")
    counter = np.arange(1, shape[0] * shape[1] + 1, dtype=np.uint64)
    mixed = _splitmix64(counter * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key))
    whole = (mixed >> np.uint64(40)).astype(np.int64) - 2**23  # 24 bits: exact in float32
    return ((whole.astype(np.float32) / np.float32(2**23)) * np.float32(bound)).reshape(shape)


def _splitmix64(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64, modulo 2^64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _json(value: dict[str, object]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _digest(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _card(files: dict[str, bytes]) -> str:
    return f"""\
---
license: apache-2.0
library_name: transformers
tags: [toy, untrained]
---

# builtin:small

**A seeded toy, trained on nothing.** A Llama of {_LAYERS} layers, {_WIDTH} wide, {_HEADS} heads, whose weights are
pseudo-random numbers from seed {_SEED}. It knows no language and answers nothing. Causeway makes it for its demo and
its tests, where an adapter has to learn the whole task by itself.

- Weights: SplitMix64 in counter mode, uniform, the same bytes on every machine;
  sha256 of `{WEIGHTS}`: `{hashlib.sha256(files[WEIGHTS]).hexdigest()}`.
- Tokenizer: a fixed list of words and the whole numbers from 0 on as tokens, single bytes for everything else, so that
  every text round-trips.
- Written by `python -m trainer.base export DIR`.
"""


def main(arguments: list[str] | None = None) -> int:
    """`python -m trainer.base export DIR`."""
    parser = argparse.ArgumentParser(prog="python -m trainer.base", description=f"Write {SMALL} to a folder.")
    commands = parser.add_subparsers(required=True)
    export = commands.add_parser("export", help=f"write {SMALL} to DIR")
    export.add_argument("folder", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        export_small(options.folder)
    except CausewayError as exc:
        print(exc.message, file=sys.stderr)  # noqa: T201 - a command's own output
        return 1
    print(f"{options.folder} {SMALL} {small_revision()}")  # noqa: T201 - a command's own output
    return 0


if __name__ == "__main__":
    sys.exit(main())
