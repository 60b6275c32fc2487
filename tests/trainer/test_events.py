"""Lines that a reader can rely on."""

import json

import pytest

from core.domain.run_folder import Plan, TrainingResult
from core.errors import NotFinite
from trainer.events import EventLog

PLAN = Plan(examples=1, tokens=2, supervised_rows=3, steps=4, longest=5)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_appended_as_json_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    events = EventLog(path)
    events.plan(PLAN)
    events.checkpoint(7)
    events.warning("code", "Crème brûlée", n=1)
    events.failed(NotFinite("no", step=3, examples=["a"]))
    EventLog(path).finished(TrainingResult(4, 1.5, "ab", {"iid": {"accuracy": 1.0}}))
    kinds = [event["type"] for event in lines(path)]
    assert kinds == ["plan", "checkpoint", "warning", "failed", "finished"]
    assert all(event["at"] > 0 for event in lines(path))
    assert lines(path)[3] | {"at": 0} == {
        "type": "failed", "at": 0, "code": "not_finite", "message": "no", "facts": {"step": 3, "examples": ["a"]}
    }  # fmt: skip


@pytest.mark.parametrize("torn", [b'{"type": "st', b"\xff", b""])
def test_a_half_written_line_is_cut_off(tmp_path, torn):
    path = tmp_path / "events.jsonl"
    EventLog(path).checkpoint(1)
    with path.open("ab") as file:
        file.write(torn)
    EventLog(path).checkpoint(2)
    assert [event["step"] for event in lines(path)] == [1, 2]
