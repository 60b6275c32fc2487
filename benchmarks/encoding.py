"""How many examples a second become tokens and supervised rows, and how much of that is the tokenizer's own part?

Examples of STG, with the tokenizer of builtin:small (whole words) and with a byte-level BPE of few merges, trained on
the spot on other STG texts (subwords). `tokenise` is the tokenizer alone, called as the trainer calls it. `encode` adds
the rows of closure. `all` is read train.jsonl, encode, write the cache, load it, collate in batches of 16. CPU time of
the process, which has no second thread; median of the repeats.

    python -m benchmarks.encoding [--examples 2000] [--repeats 7] [--vocabulary 275]

The last line is JSON, by tokenizer: {"examples", "tokens" and "rows" an example, and examples a second of each}.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks import stg
from core.domain.annotation import Example
from core.domain.run_folder import example_to_json
from core.domain.training import Rows
from trainer.base import SMALL, small_folder
from trainer.batching import collate
from trainer.encoded_cache import cache_key, encoded_once, load_encoded
from trainer.encoding import encode_all
from trainer.examples import read_examples

_BATCH = 16
_AT_ONCE = 256  # texts a call, as in trainer.encoding
_LEARNED_FROM = 500  # texts for the BPE, of another seed than those that are encoded
_PAD, _EOS = "<pad>", "</s>"
_NAMES = ("tokenise", "encode", "all")
_ASKED: dict[str, Any] = {"max_length": 4096, "rows": Rows.CLOSURE, "chat_template": False}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both tokenizers and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoding")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--vocabulary", type=int, default=275, help="tokens of the BPE, 258 of them bytes and special")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core is what is asked about
    examples = list(stg.generate(options.examples, seed=1))
    tokenizers = {
        SMALL: AutoTokenizer.from_pretrained(small_folder()),
        f"BPE of {options.vocabulary}": subwords(options.vocabulary),
    }
    found = {name: measure(tokenizer, examples, options.repeats) for name, tokenizer in tokenizers.items()}
    table = Table("tokenizer", "tokens/example", "rows/example", *(f"{name}: examples/s" for name in _NAMES))
    for name, one in found.items():
        speeds = [f"{one[f'{measured}_per_second']:,}" for measured in _NAMES]
        table.add_row(name, f"{one['tokens']:.1f}", f"{one['rows']:.1f}", *speeds)
    Console(width=120).print(table)
    print(json.dumps(found))


def subwords(vocabulary: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE of so many tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((example.text for example in stg.generate(_LEARNED_FROM, seed=2)), trainer)
    fast: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers types none
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_EOS
    )
    return fast


def measure(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], repeats: int) -> dict[str, Any]:
    """Tokens and rows an example, and examples a second of CPU time; each repeat does all three, one after another."""
    texts = [example.text for example in examples]
    counts: list[tuple[int, int]] = []
    times: dict[str, list[float]] = {name: [] for name in _NAMES}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lines = [json.dumps(example_to_json(example)) + "\n" for example in examples]
        (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")
        works: dict[str, Callable[[], object]] = {
            "tokenise": lambda: _tokenised(tokenizer, texts),
            "encode": lambda: encode_all(tokenizer, examples, **_ASKED),
            "all": lambda: counts.append(_everything(tokenizer, folder)),
        }
        for _ in range(repeats):
            for name, work in works.items():
                times[name].append(_timed(work))
    [(tokens, rows)] = {*counts}
    result: dict[str, Any] = {
        "examples": len(examples),
        "tokens": round(tokens / len(examples), 2),
        "rows": round(rows / len(examples), 2),
    }
    return result | {f"{name}_per_second": round(len(examples) / statistics.median(times[name])) for name in _NAMES}


def _tokenised(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
    for begin in range(0, len(texts), _AT_ONCE):
        tokenizer(
            list(texts[begin : begin + _AT_ONCE]),
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )


def _everything(tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[int, int]:
    """From train.jsonl to batches, through a cache that is not there yet; the tokens and rows that arrived."""
    data, cache = folder / "train.jsonl", folder / "encoded.safetensors"
    cache.unlink(missing_ok=True)
    encoded_once(read_examples(data), data, cache, tokenizer, **_ASKED)
    encoded = load_encoded(cache, cache_key(data, tokenizer, **_ASKED))
    if encoded is None:
        raise SystemExit("what was just cached was not found again")
    starts, pad = range(0, len(encoded), _BATCH), int(tokenizer.pad_token_id)
    batches = [collate(encoded[begin : begin + _BATCH], pad_id=pad) for begin in starts]
    return sum(batch["tokens"] for batch in batches), sum(batch["rows"] for batch in batches)


def _timed(work: Callable[[], object]) -> float:
    """Seconds of CPU time, of all threads."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
