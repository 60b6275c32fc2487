"""How long does an item wait for its demonstrations?

A pool of reviewed examples, and for other examples the three that resemble each most: by annotator.nearest (TF-IDF), in
whole with the quoting of what it finds, and by two measures of rapidfuzz over the same texts. CPU time of one thread.

    python -m benchmarks.demonstrations [FILE.jsonl ...] [--pool 2000] [--items 200]

Files are in the published format ("important"); without any, examples of STG. The last line is JSON, by file:
{"pool", "characters", "build_ms", and the median and the worst of each search in ms}.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz, process
from rich.console import Console
from rich.table import Table

from annotator.importer import ground_important, read_texts
from annotator.jsonl import read_records
from annotator.nearest import Pool
from benchmarks import stg
from core.domain.annotation import Example

_K = 3
_NAMES = ("draw", "ratio", "token_set_ratio")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every file and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demonstrations")
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE.jsonl")
    parser.add_argument("--pool", type=int, default=2000, help="reviewed examples")
    parser.add_argument("--items", type=int, default=200, help="searches of each kind")
    options = parser.parse_args(arguments)
    sources = {path.stem: list(_examples(path)) for path in options.files}
    if not sources:
        sources = {"stg": list(stg.generate(options.pool + options.items, seed=1))}
    found = {name: measure(examples, options.pool, options.items) for name, examples in sources.items()}
    table = Table("texts", "pool", "characters", "build ms", *(f"{name}: median, worst ms" for name in _NAMES))
    for name, one in found.items():
        searches = [f"{one[f'{search}_ms']:.2f}, {one[f'{search}_worst_ms']:.2f}" for search in _NAMES]
        table.add_row(name, f"{one['pool']:,}", f"{one['characters']:,.0f}", f"{one['build_ms']:.0f}", *searches)
    Console(width=140).print(table)
    print(json.dumps(found))


def measure(examples: Sequence[Example], pool: int, items: int) -> dict[str, Any]:
    """The last `items` of the examples searched for in `pool` of the others, which are repeated where they are few."""
    asked = examples[-items:]
    others = list(islice(cycle(examples[:-items] or examples), pool))
    made, build = _timed(partial(Pool, others))
    texts = [example.text.casefold() for example in others]

    def by(scorer: Any) -> Callable[[Example], object]:
        return lambda example: process.extract(example.text.casefold(), texts, scorer=scorer, limit=_K)

    searches: Sequence[Callable[[Example], object]] = (
        lambda example: made.draw(example, _K),
        by(fuzz.ratio),
        by(fuzz.token_set_ratio),
    )
    result: dict[str, Any] = {
        "pool": pool,
        "characters": round(statistics.mean(map(len, texts)), 1),
        "build_ms": round(build, 1),
    }
    for name, search in zip(_NAMES, searches, strict=True):
        times = [_timed(partial(search, example))[1] for example in asked]
        result |= {f"{name}_ms": round(statistics.median(times), 3), f"{name}_worst_ms": round(max(times), 3)}
    return result


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gave, and the milliseconds of CPU it took."""
    begun = time.thread_time()
    given = work()
    return given, (time.thread_time() - begun) * 1e3


def _examples(path: Path) -> Iterable[Example]:
    for number, record in enumerate(read_records(path)):
        texts = read_texts(record)
        if texts is not None:
            grounded, _ = ground_important(*texts, record.get("important"))
            yield Example(*texts, id=str(number), relations=tuple(one.relation for one in grounded))


if __name__ == "__main__":
    main()
