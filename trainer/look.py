"""What a model looks at: the attention of chosen rows over the words of a text, base model against adapter.

    python -m trainer.look ADAPTER --text TEXT [--rows -1 5 ...] [--layer L] [--head H] --out x.png|x.html
    python -m trainer.look --base NAME --adapter sft=DIR --adapter cat=DIR --example FILE.jsonl[:LINE] --out ...

The first compares an adapter with the base model that its config names; more can be added with --adapter. The second
compares adapters with each other; without any it draws the base alone. A PNG has a panel for each row and model, for a
layer and head or the mean over them; an HTML file lets any row, layer and head be chosen, and loads nothing from
elsewhere. Attention is the model's own eager one.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils.logging import disable_progress_bar

from core.domain.annotation import Example
from core.domain.run_folder import BaseModelSpec
from core.errors import CausewayError, InvalidInput
from trainer.adapter import base_of, load_adapter
from trainer.examples import read_examples
from trainer.model import load_base
from trainer.page import write_page
from trainer.panels import Heads, look_at
from trainer.picture import MOST_ROWS, draw
from trainer.words import Words, shortened, words_of

_LONGEST_NAME = 60  # characters of an answer or a word in a title


def main(arguments: list[str] | None = None) -> int:
    """The command above. Errors that a user can mend go to stderr, exit 1."""
    options = _parser().parse_args(arguments)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        _check(options)
        _look(options)
    except CausewayError as exc:
        print(f"{exc.code}: {exc.message}", file=sys.stderr)  # noqa: T201 - a command's own output
        return 1
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what can be refused before a model is loaded, and what would go unheeded."""
    is_png = options.out.suffix == ".png"
    faults = {
        "--out must end in .png or .html": not is_png and options.out.suffix != ".html",
        "name an ADAPTER, or a --base": options.folder is None and options.base is None,
        "--revision is of a --base: name one": options.revision is not None and options.base is None,
        "--target is the answer to a --text; an --example has its own": bool(options.target and options.example),
        f"a PNG shows at most {MOST_ROWS} rows: ask for fewer, or for --out x.html": (
            is_png and len(options.rows) > MOST_ROWS
        ),
    }
    for out in (options.out, options.json):
        faults |= {f"there is no folder {out.parent}: create it first": not out.parent.is_dir()} if out else {}
    if found := [fault for fault, present in faults.items() if present]:
        raise InvalidInput("; ".join(found))


def _look(options: argparse.Namespace) -> None:
    example = _example_at(options.example) if options.example else Example(options.text, options.target)
    spec = (
        BaseModelSpec(options.base, options.base, options.revision)
        if options.base is not None
        else base_of(options.folder)
    )
    adapters = [("adapter", options.folder)] if options.folder else []
    adapters += [_named(one) for one in options.adapter]
    base = load_base(spec)
    words = words_of(base.tokenizer, example, chat_template=options.chat_template)
    rows = _positions(words, options.rows)
    heads = [look_at("base", base.model, words, rows)] if options.folder or not adapters else []
    model: Any = base.model
    for name, folder in adapters:
        adapted = load_adapter(model, folder)
        heads.append(look_at(name, adapted, words, rows))
        model = adapted.unload()
    captions = [_caption(words, row, example.target) for row in rows]
    try:
        _write(options, words, heads, list(zip(rows, captions, strict=True)))
    except OSError as exc:
        raise InvalidInput(f"cannot write {exc.filename}: {exc.strerror}", field="out") from exc


def _caption(words: Words, row: int, target: str) -> str:
    if row != words.answer_row:
        word = int(words.word_of_token[row])
        return f"when it has read up to “{shortened(words.labels[word], _LONGEST_NAME)}” (word {word})"
    return f"when it answers “{shortened(target, _LONGEST_NAME)}”" if target.strip() else "when it answers"


def _write(options: argparse.Namespace, words: Words, heads: Sequence[Heads], rows: Sequence[tuple[int, str]]) -> None:
    subject = rows[0][1] if len(rows) == 1 else f"in {len(rows)} rows"
    title = f"What the model looks at {subject}"
    chosen = {"layer": options.layer, "head": options.head}
    panels = [[one.panel(row=place, **chosen) for one in heads] for place in range(len(rows))]
    if options.out.suffix == ".html":
        write_page(words, heads, rows, title=title, out=options.out, **chosen)
    else:
        places = [f"{what} {number}" for what, number in chosen.items() if number is not None]
        named = [(caption, row) for (_, caption), row in zip(rows, panels, strict=True)]
        scale = f"attention, {', '.join(places) or 'mean of layers and heads'}"
        draw(words, named, title=title, scale=scale, out=options.out)
    if options.json:
        # Row by row, model by model. "row" is the number of the word that it has read last.
        listed = [
            {"row": int(words.word_of_token[position]), **asdict(panel)}
            for (position, _), row in zip(rows, panels, strict=True)
            for panel in row
        ]
        numbers = {"words": words.labels, "is_cause": words.is_cause, "panels": listed}
        options.json.write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _positions(words: Words, chosen: Sequence[int]) -> list[int]:
    """The last token of each chosen word: the one that has read the whole word."""
    count = len(words.labels)
    for number in chosen:
        if not -count <= number < count:
            raise InvalidInput(f"there is no word {number}: the text has {count}", field="rows")
    last_tokens = np.flatnonzero(np.diff(words.word_of_token, append=count))
    return [int(last_tokens[number]) for number in chosen]


def _example_at(place: str) -> Example:
    """The example of FILE.jsonl:LINE, counted from 1 without empty lines; the first one without :LINE."""
    name, _, line = place.rpartition(":")
    path, number = (Path(name), int(line)) if name and line.isdigit() else (Path(place), 1)
    try:
        examples = read_examples(path)
    except OSError as exc:  # a folder, or not ours to read
        raise InvalidInput(f"cannot read {path}: {exc.strerror}", field="example") from exc
    if not 0 < number <= len(examples):
        raise InvalidInput(f"{path} has {len(examples)} examples, not {number}", line=number)
    return examples[number - 1]


def _named(adapter: str) -> tuple[str, Path]:
    name, separator, folder = adapter.partition("=")
    return (name, Path(folder)) if separator else (Path(adapter).name, Path(adapter))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.look", description="Draw what a model looks at.")
    parser.add_argument("folder", nargs="?", type=Path, metavar="ADAPTER", help="compared with its own base model")
    parser.add_argument("--base", help="builtin:small, a folder, or a hub id, in place of the ADAPTER's own")
    parser.add_argument("--revision", help="of a hub id")
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="[NAME=]DIR", help="may be repeated, and beside an ADAPTER"
    )
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", help="up to where the answer begins")
    text.add_argument("--example", "--data", metavar="FILE.jsonl[:LINE]", help="the first line if none")
    parser.add_argument("--target", default="", help="the answer to --text, for the title")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[-1], metavar="WORD", help="counted from 0, or from the end: -1 is the "
        f"row that predicts the answer; at most {MOST_ROWS} in a PNG",
    )  # fmt: skip
    parser.add_argument("--layer", type=int, help="from 0; the mean over all if none. What an HTML file shows first")
    parser.add_argument("--head", type=int, help="as --layer")
    parser.add_argument("--chat-template", action="store_true", help="as the adapters were trained with")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG|HTML")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers of the panels there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
