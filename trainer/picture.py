"""The attention of chosen rows over the words as a PNG: a bar chart for each row and model.

The charts of a row have one scale. Those of a single row stand one above the other, those of several rows side by side,
a line for each row.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from trainer.panels import Panel
from trainer.words import Words, shortened

MOST_ROWS = 8

_CAUSE, _OTHER, _INK = "#d1495b", "#aab4bf", "#2f3640"
_INCHES_A_WORD, _NARROWEST, _WIDEST, _PANEL_HEIGHT, _LABEL_HEIGHT = 0.34, 8.0, 60.0, 2.3, 1.3
_LONGEST_LABEL = 28  # characters, so that labels leave room for the bars


def draw(words: Words, rows: Sequence[tuple[str, Sequence[Panel]]], *, title: str, scale: str, out: Path) -> None:
    """Write the panels of each row, and what to call the row, as a PNG; `scale` says what the bars are."""
    figure = figure_of(words, rows, title=title, scale=scale)
    with warnings.catch_warnings():
        # A font may lack a script. The bars are right all the same, and --json holds the words.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="png")


def figure_of(words: Words, rows: Sequence[tuple[str, Sequence[Panel]]], *, title: str, scale: str) -> Figure:
    """What `draw` writes. Causes are coloured, and spoken of, where a panel has some."""
    several = len(rows) > 1
    grid = (len(rows), len(rows[0][1])) if several else (len(rows[0][1]), 1)
    figure = _canvas(len(words.labels), grid, labelled=len(rows))
    axes = figure.subplots(*grid, sharex=True, sharey="row" if several else "all", squeeze=False)
    panels = [(f"{panel.name}, {caption}" if several else panel.name, panel) for caption, row in rows for panel in row]
    for axis, (name, panel) in zip(axes.flat, panels, strict=True):
        _bars(axis, name, panel, words)
    for line in axes if several else [axes]:  # what shares a scale
        line.flat[0].set_ylim(0, 1.12 * max(bar.get_height() for axis in line.flat for bar in axis.patches))
    last = len(panels) - 1
    for place, (axis, (_, panel)) in enumerate(zip(axes.flat, panels, strict=True)):
        if several or place == last:
            _label(axis, panel, words)
    if with_causes := [axis for axis, (_, panel) in zip(axes.flat, panels, strict=True) if panel.mass is not None]:
        with_causes[0].legend(
            handles=[Patch(color=_CAUSE, label="annotated cause"), Patch(color=_OTHER, label="other word")],
            loc="upper left", frameon=False, fontsize=10,
        )  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, color=_INK, parse_math=False)
    figure.supylabel(scale, fontsize=10, color=_INK)
    return figure


def _canvas(words: int, grid: tuple[int, int], *, labelled: int) -> Figure:
    """A canvas for a grid of charts, so many lines of which name the words below them."""
    lines, columns = grid
    width = float(np.clip(_INCHES_A_WORD * words, _NARROWEST, max(_NARROWEST, _WIDEST / columns)))
    figure = Figure(
        figsize=(columns * width, 0.6 + _PANEL_HEIGHT * lines + _LABEL_HEIGHT * labelled),
        dpi=150,
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
    )
    FigureCanvasAgg(figure)
    return figure


def _bars(axis: Axes, name: str, panel: Panel, words: Words) -> None:
    colours = [_CAUSE if is_cause else _OTHER for is_cause in _coloured(panel, words)]
    axis.bar(range(len(panel.attention)), panel.attention, color=colours, width=0.78)
    on_causes = "" if panel.mass is None else f":  {panel.mass:.0%} of the attention is on the causes"
    axis.set_title(f"{name}{on_causes}", loc="left", fontsize=12, fontweight="bold", color=_INK, parse_math=False)
    _tidy(axis)


def _label(axis: Axes, panel: Panel, words: Words) -> None:
    labels = [shortened(label, _LONGEST_LABEL) for label in words.labels]
    axis.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor")
    axis.tick_params(labelbottom=True)
    for label, is_cause in zip(axis.get_xticklabels(), _coloured(panel, words), strict=True):
        label.set(color=_CAUSE if is_cause else _INK, fontweight="bold" if is_cause else "normal", parse_math=False)


def _coloured(panel: Panel, words: Words) -> list[bool]:
    return [is_cause and panel.mass is not None for is_cause in words.is_cause]


def _tidy(axis: Axes) -> None:
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(axis="y", color="#e6e9ed", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(x=0.01)
    axis.tick_params(length=0, colors=_INK)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color("#c5ccd3")
