"""From measurements to a table, a plot and one last line."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.speed.contestants import Contestant
from benchmarks.speed.measure import Entrant, Memory
from benchmarks.speed.ratios import Ratio, paired_ratio
from benchmarks.speed.record import Measured

HEADLINE = 1024  # tokens, at which the targets hold
TARGETS = {0.02: 1.05, 0.10: 1.10, 0.50: 1.30}  # share of rows to cat / sft, for time and for memory alike
_PUBLISHED_SHARE = 0.10  # of rows, at which published / cat is told
_COLOURS = {
    Contestant.CAT: "#0984e3",
    Contestant.CAT_UNGUIDED: "#00b894",
    Contestant.EAGER: "#e17055",
    Contestant.PUBLISHED: "#6c5ce7",
}


@dataclass(frozen=True, slots=True)
class Result:
    """One contestant at one point of the grid, compared with plain fine-tuning there."""

    length: int
    checkpointing: bool
    share: float  # supervised rows
    contestant: Contestant
    rounds: int  # how many
    seconds: float  # median of a step
    time: Ratio  # of its steps to those of sft, paired
    time_over_cat: Ratio  # the same, to those of cat
    memory_mib: float | None = None  # peak above the idle process
    memory_above_model_mib: float | None = None  # peak above the process with the model in it
    memory: float | None = None  # above idle, to sft's
    memory_above_model: float | None = None


def compare(measured: Measured) -> list[Result]:
    """All contestants of a scene, those whose cost does not depend on the rows once for each share of them."""
    sft = Entrant(Contestant.SFT, 0.0)
    shares = sorted({entrant.share for entrant in measured.entrants if entrant.contestant.has_rows})
    return [
        Result(
            measured.length,
            measured.checkpointing,
            share,
            entrant.contestant,
            len(measured.rounds),
            statistics.median(measured.times(entrant)),
            paired_ratio(measured.times(entrant), measured.times(sft)),
            paired_ratio(measured.times(entrant), measured.times(Entrant(Contestant.CAT, share))),
            **_memory_fields(measured.memory(entrant), measured.memory(sft)),
        )
        for share in shares
        for entrant in measured.entrants
        if entrant.share == share or not entrant.contestant.has_rows
    ]


def _memory_fields(ours: Memory | None, base: Memory | None) -> dict[str, float]:
    if ours is None or base is None:
        return {}
    return {
        "memory_mib": ours.above_idle,
        "memory_above_model_mib": ours.above_model,
        "memory": ours.above_idle / base.above_idle,
        "memory_above_model": ours.above_model / base.above_model,
    }


def table(of: Sequence[Result]) -> Table:
    """Everything that was measured."""
    shown = Table(
        "tokens", "ckpt", "rows", "contestant", "s / step", "time / sft", "95 %", "MiB", "memory / sft", "target"
    )
    for one in of:
        shown.add_row(
            f"{one.length:,}",
            "yes" if one.checkpointing else "no",
            f"{one.share:.0%}",
            one.contestant,
            f"{one.seconds:.3f}",
            f"{one.time.median:.3f}",
            f"{one.time.low:.3f} to {one.time.high:.3f}",
            _or_dash(one.memory_mib, ",.0f"),
            _or_dash(one.memory, ".3f"),
            _verdict(one),
        )
    return shown


def last_line(of: Iterable[Result]) -> dict[str, Any]:
    """The figures that the targets are about; null where not measured."""
    headline = [one for one in of if one.length == HEADLINE and not one.checkpointing]
    cat = {one.share: one for one in headline if one.contestant is Contestant.CAT}
    published = [one for one in headline if one.contestant is Contestant.PUBLISHED and one.share == _PUBLISHED_SHARE]
    return {
        "time_ratio": {f"{share:.2f}": _rounded(cat[share].time.median) if share in cat else None for share in TARGETS},
        "memory_ratio": {f"{share:.2f}": _rounded(cat[share].memory) if share in cat else None for share in TARGETS},
        "published_over_cat_time": _rounded(published[0].time_over_cat.median) if published else None,
    }


def plain(result: Result) -> dict[str, Any]:
    """For JSON."""
    return asdict(result)


def plot(of: Sequence[Result]) -> Figure:
    """Time and memory over length, with and without checkpointing: a colour for a contestant, a dash for its rows."""
    figure = Figure(figsize=(11, 8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 2, sharex=True, sharey="row", squeeze=False)
    lengths = sorted({one.length for one in of})
    dashes = dict(zip(TARGETS, (":", "--", "-"), strict=True))
    for column, checkpointing in enumerate((False, True)):
        for row, what in enumerate(("time", "memory")):
            axis = grid[row][column]
            axis.axhline(1, color="#2f3640", linewidth=1)
            for (contestant, share), points in _lines(of, what, checkpointing=checkpointing).items():
                name = f"{contestant}, {share:.0%} rows"
                axis.plot(
                    *zip(*points, strict=True), dashes.get(share, "-."), marker=".", c=_COLOURS[contestant], label=name
                )
            axis.set_xscale("log", base=2)
            axis.set_yscale("log", base=2)
            axis.set_xticks(lengths, [f"{length:,}" for length in lengths])
            axis.yaxis.set_major_formatter("{x:g}")
            axis.set_title(f"{what} / sft, {'with' if checkpointing else 'without'} activation checkpointing")
            axis.set_xlabel("tokens")
    handles, labels = grid[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(TARGETS) + 1, fontsize=8)
    return figure


def _lines(
    of: Sequence[Result], what: str, *, checkpointing: bool
) -> dict[tuple[Contestant, float], list[tuple[int, float]]]:
    lines: dict[tuple[Contestant, float], list[tuple[int, float]]] = {}
    for one in sorted(of, key=lambda one: one.length):
        if one.checkpointing is not checkpointing or not one.contestant.has_rows:
            continue
        value = one.time.median if what == "time" else one.memory
        if value is not None:
            lines.setdefault((one.contestant, one.share), []).append((one.length, value))
    return lines


def _verdict(one: Result) -> str:
    target = TARGETS.get(one.share)
    if one.contestant is not Contestant.CAT or one.length != HEADLINE or target is None:
        return ""
    time = "met" if one.time.meets(target) else "MISSED"
    memory = "" if one.memory is None else f", memory {'met' if one.memory <= target else 'MISSED'}"
    return f"{target:.2f}: time {time}{memory}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
