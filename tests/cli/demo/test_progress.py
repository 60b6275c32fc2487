"""Progress of a job in words, and lines instead of bars where there is no terminal."""

import io

import pytest
from rich.console import Console

from cli.demo.progress import board, describe

RUNNING = {
    "state": "running",
    "counts": {"total": 100, "done": 40},
    "progress": {"token_loss": 0.5, "attention_loss": 1.25, "mass": 0.3, "eta_seconds": 75.0},
}


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"state": "queued"}, "queued"),
        ({"state": "running", "progress": {"fraction": 0.0}}, "running"),
        (RUNNING, "loss 0.500  attention loss 1.250  mass on causes 0.300  1:15 left"),
        ({"state": "running", "progress": {"mass": None, "eta_seconds": 3}}, "0:03 left"),
        ({"state": "failed", "progress": {"mass": 1.0}}, "failed"),
    ],
)
def test_a_job_in_words(job: dict[str, object], words: str) -> None:
    assert describe(job) == words


def test_without_a_terminal_a_job_is_told_in_lines_now_and_then() -> None:
    console = Console(file=io.StringIO(), width=200)
    with board(console) as shown:
        for done in range(40, 60):
            shown.show("cat", RUNNING | {"counts": {"total": 100, "done": done}})
        shown.show("cat", RUNNING | {"state": "succeeded", "counts": {"total": 100, "done": 100}})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.strip().splitlines() == ["cat: 40/100  " + describe(RUNNING), "  cat: 100/100  succeeded"]


def test_on_a_terminal_the_job_has_a_bar() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with board(console) as shown:
        shown.show("cat", RUNNING)
    assert "40/100" in console.file.getvalue()  # type: ignore[attr-defined]
