"""The report has exactly the keys that were promised, and the table says the same."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from cli.demo.report import gain, report_of, table_of, write_report

SCORES = {"accuracy": 0.9, "balanced_accuracy": 0.8, "majority": 0.6, "n": 400}


def _report() -> dict[str, object]:
    measured = {
        run: {"splits": {"iid": SCORES, "ood": SCORES | {"accuracy": ood}}, "mass": mass, "base": "builtin:small"}
        for run, ood, mass in (("base", 0.3, 0.1), ("sft", 0.625, 0.2), ("cat", 0.9625, 0.7))
    }
    return report_of(measured, seconds=12.34)


def test_its_keys_are_the_promised_ones() -> None:
    report = _report()
    assert list(report) == ["majority", "base", "sft", "cat", "seconds"]
    assert report["majority"] == {"iid": 0.6, "ood": 0.6}
    assert report["cat"] == {
        "iid": {"accuracy": 0.9, "balanced_accuracy": 0.8},
        "ood": {"accuracy": 0.9625, "balanced_accuracy": 0.8},
        "mass": 0.7,
    }
    assert report["seconds"] == 12.3


def test_the_gain_is_in_points() -> None:
    assert gain(_report()) == pytest.approx(33.75)


def test_it_is_written_as_json(tmp_path: Path) -> None:
    write_report(_report(), tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == _report()


def test_the_table_shows_every_run() -> None:
    console = Console(width=140, file=io.StringIO())
    console.print(table_of(_report()))
    for shown in ("96.2 %", "62.5 %", "30.0 %", "70.0 %", "60.0 %"):
        assert shown in console.file.getvalue()  # type: ignore[attr-defined]
