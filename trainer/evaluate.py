"""How often a model gives the right answer: the likeliest of the given choices, else greedy decoding and exact match.

    python -m trainer.evaluate --base NAME [--revision R] [--adapter DIR] --data FILE.jsonl ... [--mass-on FILE]

prints one JSON object. The adapter is loaded by peft alone, in the model's stock attention, so what is measured is what
anybody else gets.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from core.domain.annotation import Example
from core.domain.run_folder import BaseModelSpec
from core.errors import CausewayError, InvalidInput
from trainer.adapter import load_adapter
from trainer.answers import Model, greedy_answers, likeliest_choices, never
from trainer.examples import read_examples
from trainer.maps import attention_mass
from trainer.model import load_base


def evaluate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
    chat_template: bool = False,
    should_stop: Callable[[], bool] = never,
) -> dict[str, float]:
    """Accuracy on `examples`, each judged by its choices if it has some, else by greedy decoding.

    Returns
    -------
    dict
        `accuracy`; `balanced_accuracy`, the mean over distinct targets of the share answered right; `majority`, the
        accuracy of always giving the commonest target; `n`. Shares are in [0, 1].

    Raises
    ------
    InvalidInput
        There is no example.
    NotFinite
        The model's likelihoods are not numbers.
    OutOfMemory
        Memory does not hold one example, though batches are halved where it runs out.
    Stopped
        `should_stop`, asked before every batch, said yes.
    """
    if not examples:
        raise InvalidInput("there is nothing to evaluate on", field="examples")
    closed = [example for example in examples if example.choices]
    opened = [example for example in examples if not example.choices]
    asked: dict[str, Any] = {"batch_size": batch_size, "chat_template": chat_template, "should_stop": should_stop}
    training = model.training
    model.eval()
    try:
        chosen = likeliest_choices(model, tokenizer, closed, **asked)
        written = greedy_answers(model, tokenizer, opened, **asked)
    finally:
        model.train(training)
    verdicts = [(example.target, example.target == answer) for example, answer in zip(closed, chosen, strict=True)]
    verdicts += [
        (example.target, example.target.strip() == answer) for example, answer in zip(opened, written, strict=True)
    ]
    return _metrics(verdicts)


def _metrics(verdicts: Sequence[tuple[str, bool]]) -> dict[str, float]:
    """From (target, answered right) of each example."""
    by_target: dict[str, list[bool]] = defaultdict(list)
    for target, right in verdicts:
        by_target[target].append(right)
    recalls = [sum(right) / len(right) for right in by_target.values()]
    return {
        "accuracy": sum(right for _, right in verdicts) / len(verdicts),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "majority": max(Counter(target for target, _ in verdicts).values()) / len(verdicts),
        "n": len(verdicts),
    }


def main(arguments: list[str] | None = None) -> int:
    """The command above. Errors that a user can mend go to stderr, exit 1."""
    options = _parser().parse_args(arguments)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        report = json.dumps(_report(options), indent=2)
        if options.out:
            options.out.write_text(report + "\n")
    except CausewayError as exc:
        print(f"{exc.code}: {exc.message}", file=sys.stderr)  # noqa: T201 - a command's own output
        return 1
    print(report)  # noqa: T201 - a command's own output
    return 0


def _report(options: argparse.Namespace) -> dict[str, Any]:
    spec = BaseModelSpec(options.base, options.base, options.revision)
    base = load_base(spec, precision=options.precision)
    model: Model = base.model
    if options.adapter:
        model = load_adapter(base.model, options.adapter)
    report: dict[str, Any] = {"base": options.base, "revision": base.revision, "adapter": None, "splits": {}}
    if options.adapter:
        report["adapter"] = str(options.adapter)
    for path in options.data:
        report["splits"][path.stem] = evaluate(
            model,
            base.tokenizer,
            read_examples(path),
            batch_size=options.batch_size,
            chat_template=options.chat_template,
        )
    if options.mass_on:
        examples = read_examples(options.mass_on)
        report["mass"] = attention_mass(model, base.tokenizer, examples, chat_template=options.chat_template)
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.evaluate", description="Measure a base model or adapter.")
    parser.add_argument("--base", required=True, help="builtin:small, a folder, or a hub id")
    parser.add_argument("--revision", help="of a hub id")
    parser.add_argument(
        "--adapter", type=Path, metavar="DIR", help="an adapter folder; without it the base is measured"
    )
    parser.add_argument("--data", type=Path, metavar="FILE.jsonl", action="append", default=[], help="may be repeated")
    parser.add_argument("--mass-on", type=Path, metavar="FILE.jsonl", help="measure attention on its relations")
    parser.add_argument("--batch-size", type=int, default=64, help="texts per forward pass")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--chat-template", action="store_true", help="as the adapter was trained with")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
