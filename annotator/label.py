"""Label a file: the engine without the service. What is written stays, so a run that stopped goes on where it was."""

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from annotator.annotate import annotate_one, open_teacher
from annotator.jsonl import read_examples, read_records, whole_lines
from annotator.teachers.base import Purse, ReplyCache, Teacher
from annotator.wire import annotation_to_json
from core.domain.annotation import Annotation, Example, Prior, TeacherConfig, Usage
from core.domain.relations import relation_to_json
from core.errors import BudgetExhausted, Conflict

_WINDOW = 4  # examples under way for each call in flight: enough that none waits for the slowest before it


@dataclass(slots=True)
class LabelCounts:
    """What became of a file so far. The outcomes add up to `done`; usage is of this run only."""

    done: int = 0
    resumed: int = 0  # of `done`: found in the output of an earlier run
    relations: int = 0
    unresolved: int = 0
    exhausted: bool = False  # it stopped because the next call did not fit the budget
    usage: Usage = field(default_factory=Usage)
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, annotation: Annotation) -> None:
        """Count one more annotation."""
        self.done += 1
        self.relations += len(annotation.relations)
        self.unresolved += len(annotation.unresolved)
        self.outcomes[annotation.outcome.value] += 1
        self.usage = Usage(
            self.usage.prompt_tokens + annotation.usage.prompt_tokens,
            self.usage.completion_tokens + annotation.usage.completion_tokens,
        )


async def label_file(
    source: Path,
    out: Path,
    *,
    prior: Prior,
    config: TeacherConfig,
    cache: ReplyCache | None = None,
    purse: Purse | None = None,
    on_progress: Callable[[LabelCounts], None] = lambda _: None,
) -> LabelCounts:
    """Label every example of `source` into `out`, line by line in the same order.

    Each line is the example with its relations as spans, ready to be trained on or posted, and the whole `annotation`.
    Lines that are already in `out` are kept. When `purse` does not hold the next call, what is under way is finished
    and the counts say `exhausted`: a later run with more in it goes on from there.

    Raises
    ------
    Conflict
        When `out` holds the labels of another file.
    TeacherUnreachable, TeacherRejected
        See annotate_one. What was labelled before is in `out`.
    InvalidInput
        When a line is not an example.
    """
    counts = LabelCounts()
    _resume(source, out, counts)
    examples = islice(read_examples(source), counts.done, None)
    with out.open("a", encoding="utf-8") as lines:
        async with open_teacher(config, prior, purse=purse) as teacher:
            try:
                async for example, annotation in _label_all(teacher, examples, cache, _WINDOW * config.concurrency):
                    lines.write(json.dumps(_line(example, annotation), ensure_ascii=False) + "\n")
                    lines.flush()
                    counts.add(annotation)
                    on_progress(counts)
            except BudgetExhausted:
                counts.exhausted = True
    return counts


async def _label_all(
    teacher: Teacher, examples: Iterable[Example], cache: ReplyCache | None, window: int
) -> AsyncIterator[tuple[Example, Annotation]]:
    """Annotations in the order of their examples, with at most `window` under way.

    An example for whose call there is no money left waits until those under way are settled, which often cost less
    than was set aside for them. When that helps none, BudgetExhausted is raised; what came for those behind it is in
    the cache.
    """

    def start(example: Example) -> asyncio.Task[Annotation]:
        return asyncio.create_task(annotate_one(teacher, example, cache=cache))

    waiting = iter(examples)
    under_way: deque[tuple[Example, asyncio.Task[Annotation]]] = deque()
    unpaid = window + 1  # of those under way, when last asked: to ask again is of use while they become fewer
    try:
        while True:
            under_way.extend((example, start(example)) for example in islice(waiting, window - len(under_way)))
            if not under_way:
                return
            example, task = under_way[0]
            try:
                annotation = await task
            except BudgetExhausted:
                await asyncio.wait([task for _, task in under_way])
                before, unpaid = unpaid, sum(_is_unpaid(task) for _, task in under_way)
                if unpaid >= before:
                    raise
                under_way = deque((one, start(one) if _is_unpaid(task) else task) for one, task in under_way)
                continue
            unpaid = window + 1
            under_way.popleft()
            yield example, annotation
    finally:
        tasks = [task for _, task in under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_unpaid(task: asyncio.Task[Annotation]) -> bool:
    return isinstance(task.exception(), BudgetExhausted)


def _resume(source: Path, out: Path, counts: LabelCounts) -> None:
    """Count what an earlier run has written, and check that it belongs to this file."""
    whole_lines(out)
    examples = read_examples(source)
    for number, record in enumerate(_written(out), start=1):
        example = next(examples, None)
        if example is None or (example.input, example.target) != (record.get("input"), record.get("target")):
            raise Conflict(
                f"{out.name}, line {number} is not the label of line {number} of {source.name}: choose another --out",
                line=number,
            )
        annotation = record["annotation"]
        counts.done += 1
        counts.resumed += 1
        counts.relations += len(annotation["relations"])
        counts.unresolved += len(annotation["unresolved"])
        counts.outcomes[annotation["outcome"]] += 1


def _written(out: Path) -> Iterator[dict[str, Any]]:
    if not out.exists():
        return
    for number, record in enumerate(read_records(out), start=1):
        if not isinstance(record, dict) or "annotation" not in record:
            raise Conflict(f"{out.name}, line {number} was not written by this command", line=number)
        yield record


def _line(example: Example, annotation: Annotation) -> dict[str, Any]:
    return {
        "id": example.id,
        "input": example.input,
        "target": example.target,
        "choices": list(example.choices),
        "relations": [relation_to_json(grounded.relation) for grounded in annotation.relations],
        "annotation": annotation_to_json(annotation),
    }
