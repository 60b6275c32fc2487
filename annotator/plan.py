"""What labelling would do and cost, before anybody is asked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from annotator.prompts import render
from annotator.teachers.base import Message
from annotator.teachers.chat_format import estimate_tokens
from annotator.teachers.rule import silent_patterns
from core.domain.annotation import Demonstration, Example, Prior, TeacherConfig

_SHOWN = 3  # prompts
_TRIED = 1000  # examples that rules are tried on


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """Counts of a whole file. Tokens and cost are estimates, of prompts and replies together; 0 for rules."""

    examples: int
    tokens: int
    usd: float
    silent: tuple[str, ...]  # patterns that match in none of the first thousand examples
    prompts: tuple[list[Message], ...]  # the first three, as the teacher would see them

    def to_json(self) -> dict[str, Any]:
        """The plan without its prompts."""
        return {
            "examples": self.examples,
            "tokens": self.tokens,
            "usd": round(self.usd, 6),
            "silent_patterns": list(self.silent),
        }


def plan_labels(
    prior: Prior,
    config: TeacherConfig,
    examples: Iterable[Example],
    *,
    draw: Callable[[Example], Sequence[Demonstration]] = lambda _: (),
) -> LabelPlan:
    """What labelling `examples` by `prior` with this teacher takes; `draw` adds to the demonstrations of each."""
    first: list[Example] = []
    prompts: list[list[Message]] = []
    count = prompt_tokens = reply_tokens = 0
    for example in examples:
        count += 1
        if len(first) < _TRIED:
            first.append(example)
        if config.kind == "rule":
            continue
        messages = render(prior, example, draw(example))
        estimate = estimate_tokens(messages)
        prompt_tokens += estimate.prompt
        reply_tokens += estimate.reply
        if len(prompts) < _SHOWN:
            prompts.append(messages)
    usd = (prompt_tokens * config.prompt_price + reply_tokens * config.completion_price) / 1e6
    silent = silent_patterns(prior, first) if config.kind == "rule" else ()
    return LabelPlan(count, prompt_tokens + reply_tokens, usd, silent, tuple(prompts))
