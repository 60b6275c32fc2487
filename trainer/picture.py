"""The attention of one row over the words as a PNG: one bar chart a model, one above the other on the same scale."""

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
from trainer.words import Words

_CAUSE, _OTHER, _INK = "#d1495b", "#aab4bf", "#2f3640"
_INCHES_A_WORD, _NARROWEST, _WIDEST, _PANEL_HEIGHT = 0.34, 8.0, 60.0, 2.3


def draw(words: Words, panels: Sequence[Panel], *, title: str, scale: str, out: Path) -> None:
    """Write the panels as a PNG; `scale` says what the bars are."""
    width = float(np.clip(_INCHES_A_WORD * len(words.labels), _NARROWEST, _WIDEST))
    figure = Figure(
        figsize=(width, 1.9 + _PANEL_HEIGHT * len(panels)),
        dpi=150,
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
    )
    FigureCanvasAgg(figure)
    axes: list[Axes] = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0].tolist()
    colours = [_CAUSE if is_cause else _OTHER for is_cause in words.is_cause]
    for axis, panel in zip(axes, panels, strict=True):
        axis.bar(range(len(panel.attention)), panel.attention, color=colours, width=0.78)
        axis.set_title(
            f"{panel.name}:  {panel.mass:.0%} of the attention is on the causes",
            loc="left", fontsize=12, fontweight="bold", color=_INK, parse_math=False,
        )  # fmt: skip
        _tidy(axis)
    axes[0].set_ylim(0, 1.12 * max(max(panel.attention) for panel in panels))  # shared by all
    axes[0].legend(
        handles=[Patch(color=_CAUSE, label="annotated cause"), Patch(color=_OTHER, label="other word")],
        loc="upper left", frameon=False, fontsize=10,
    )  # fmt: skip
    axes[-1].set_xticks(range(len(words.labels)), words.labels, rotation=60, ha="right", rotation_mode="anchor")
    for label, is_cause in zip(axes[-1].get_xticklabels(), words.is_cause, strict=True):
        label.set(color=_CAUSE if is_cause else _INK, fontweight="bold" if is_cause else "normal", parse_math=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, color=_INK, parse_math=False)
    figure.supylabel(scale, fontsize=10, color=_INK)
    with warnings.catch_warnings():
        # A font may lack a script. The bars are right all the same, and --json holds the words.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out)


def _tidy(axis: Axes) -> None:
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(axis="y", color="#e6e9ed", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(x=0.01)
    axis.tick_params(length=0, colors=_INK)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color("#c5ccd3")
