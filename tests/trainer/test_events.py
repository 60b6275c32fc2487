"""Lines that a reader can rely on."""

import json
import os
import resource
import signal

import pytest

from core.domain.run_folder import Plan, TrainingResult
from core.errors import NotFinite, TrainingFailed
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


def test_a_write_that_is_cut_short_is_an_error_and_leaves_no_half_line(tmp_path):
    """As on a disk that fills up: the kernel takes what fits and says so by the count alone."""
    path = tmp_path / "events.jsonl"
    events = EventLog(path)
    events.checkpoint(1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(TrainingFailed, match="cannot write an event: File too large"):
            events.checkpoint(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    events.checkpoint(3)
    assert [event["step"] for event in lines(path)] == [1, 3]


def test_an_event_is_on_disk_when_the_call_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    path = tmp_path / "events.jsonl"
    EventLog(path).checkpoint(1)
    assert synced == [path.stat().st_size]


@pytest.mark.parametrize("torn", [b'{"type": "st', b"\xff", b""])
def test_a_half_written_line_is_cut_off(tmp_path, torn):
    path = tmp_path / "events.jsonl"
    EventLog(path).checkpoint(1)
    with path.open("ab") as file:
        file.write(torn)
    EventLog(path).checkpoint(2)
    assert [event["step"] for event in lines(path)] == [1, 2]
