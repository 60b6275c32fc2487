"""The attention of chosen rows as one HTML file that loads nothing from elsewhere: row, layer and head by a click."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.panels import Heads
from trainer.words import Words

_TEMPLATE = Path(__file__).with_name("page.html")
_SCALE = 1000  # attention is written in thousandths


def write_page(
    words: Words,
    heads: Sequence[Heads],
    rows: Sequence[tuple[int, str]],
    *,
    title: str,
    out: Path,
    layer: int | None = None,
    head: int | None = None,
) -> None:
    """Write the page.

    Parameters
    ----------
    rows
        The token positions that `heads` were taken at, and what to call each row. The last one is shown first.
    layer, head
        What is shown first; None for the mean over all.
    """
    content = _content(words, heads, rows) | {"layer": layer, "head": head}
    filled = {"title": html.escape(title), "data": _embedded(content)}
    # In one pass, so that nothing in a text is taken for a place to fill.
    page = re.sub(r"\{\{(\w+)\}\}", lambda place: filled[place[1]], _TEMPLATE.read_text(encoding="utf-8"))
    out.write_text(page, encoding="utf-8")


def _content(words: Words, heads: Sequence[Heads], rows: Sequence[tuple[int, str]]) -> dict[str, Any]:
    return {
        "words": words.labels,
        "causes": [np.unique(words.word_of_token[words.causes_of(row)]).tolist() for row, _ in rows],  # words, by row
        "rows": [int(words.word_of_token[row]) for row, _ in rows],
        "captions": [caption for _, caption in rows],
        "scale": _SCALE,
        "models": [
            {"name": one.name, "attention": np.rint(one.attention * _SCALE).astype(int).tolist()} for one in heads
        ],
    }


def _embedded(value: dict[str, Any]) -> str:
    """JSON that may stand inside a script element: nothing in a text can end it."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
