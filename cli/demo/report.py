"""What the demo measured: report.json for machines, one table for people."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from cli.demo.steps import HELD_OUT

RUNS = ("base", "sft", "cat")


def report_of(measured: dict[str, dict[str, Any]], *, seconds: float) -> dict[str, Any]:
    """The report from evaluate_all's results for base, sft and cat. Shares are in [0, 1], times in seconds."""
    report: dict[str, Any] = {"majority": {split: measured["base"]["splits"][split]["majority"] for split in HELD_OUT}}
    for run in RUNS:
        splits = measured[run]["splits"]
        report[run] = {
            split: {name: splits[split][name] for name in ("accuracy", "balanced_accuracy")} for split in HELD_OUT
        }
        report[run]["mass"] = measured[run]["mass"]
    return report | {"seconds": round(seconds, 1)}


def write_report(report: dict[str, Any], path: Path) -> None:
    """As indented JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def gain(report: dict[str, Any]) -> float:
    """By how many percentage points cat is above sft out of distribution."""
    return 100 * float(report["cat"]["ood"]["accuracy"] - report["sft"]["ood"]["accuracy"])


def table_of(report: dict[str, Any]) -> Table:
    """One row a run: accuracy, balanced accuracy, and the share of the answer's attention on the causes."""
    table = Table(
        "",
        title="Spurious Token Game, 400 + 400 examples",
        caption="iid: the shortcuts hold; ood: they are broken. balanced: mean over both answers.\n"
        "mass: share of the answer's attention that lies on its causes (ood).",
    )
    for name in ("iid", "ood", "iid balanced", "ood balanced", "mass"):
        table.add_column(name, justify="right", no_wrap=True)
    majority = report["majority"]
    table.add_row("majority", *(_percent(majority[split]) for split in HELD_OUT), "50.0 %", "50.0 %", "", style="dim")
    for run in RUNS:
        cells = [_percent(report[run][split][name]) for name in ("accuracy", "balanced_accuracy") for split in HELD_OUT]
        table.add_row(run, *cells, _percent(report[run]["mass"]), style="bold" if run == "cat" else None)
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
