"""Answers out of a batch's results: which item each is of, what it makes of that, and what it cost."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from annotator.batch_items import read
from annotator.teachers.batch_lines import Result
from annotator.teachers.dialogue import is_kept, total_usage
from annotator.wire import annotation_to_json
from core.batch_items import BatchItem
from core.domain.annotation import Usage
from core.domain.batches import FirstReply
from core.domain.spending import Cost
from worker.batches.scene import Scene
from worker.cache import LONGEST, reply_to_json

AT_ONCE = 200  # results a transaction
_OURS = re.compile(r"[0-9]{1,18}")


@dataclass(slots=True)
class Answers:
    """What one transaction writes."""

    labels: dict[int, dict[str, Any]] = field(default_factory=dict)
    unreadable: dict[int, FirstReply] = field(default_factory=dict)
    replies: dict[str, dict[str, Any]] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)

    def take(self, scene: Scene, item: BatchItem, result: Result) -> None:
        """Add the answer to an item."""
        question = scene.question(item)
        # Where nobody says what was charged, it was as much as could be.
        charged = result.reply.usage if result.reply.usage != Usage() else question.most(scene.config)
        self.cost += scene.price(charged)
        answer = read(question, result.reply)
        if isinstance(answer, FirstReply):
            self.unreadable[item.id] = answer
            return
        self.labels[item.id] = annotation_to_json(answer)
        if scene.shown.as_before and is_kept(answer) and len(result.reply.text) <= LONGEST:
            usage = result.reply.usage if item.first is None else total_usage(item.first.usage, result.reply.usage)
            self.replies[question.key] = reply_to_json(replace(result.reply, usage=usage))


def in_chunks(results: Iterable[Result | None]) -> Iterator[list[Result | None]]:
    """As many results at a time as one transaction writes."""
    waiting = iter(results)
    while chunk := list(islice(waiting, AT_ONCE)):
        yield chunk


def item_of(result: Result) -> int:
    """The item a result is of; one that there is not, when its id is none of ours."""
    return int(result.custom_id) if _OURS.fullmatch(result.custom_id) else 0
