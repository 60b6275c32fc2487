"""The child process and its files, without a job."""

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import TrainingFailed
from tests.worker.conftest import left_behind, runs, wait_until
from worker.supervisor import Child, Exit, child_environment, read_events

_SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def test_events_are_read_once_and_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path, 0).events == []
    path.write_bytes(b'{"type": "step", "step": 1}\n{"type": "st')
    first = read_events(path, 0)
    assert first.events == [{"type": "step", "step": 1}]
    assert read_events(path, first.end).events == []
    with path.open("ab") as file:
        file.write(b'ep", "step": 2}\nnonsense\n')
    second = read_events(path, first.end)
    assert (second.events, second.unreadable) == ([{"type": "step", "step": 2}], 1)


def test_a_folder_that_began_anew_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"type": "plan"}\n')
    assert read_events(path, 1000).events == [{"type": "plan"}]


def test_a_line_without_an_end_does_not_stop_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * 3_000_000 + b'\n{"type": "step"}\n')
    cursor, events = 0, []
    while (new := read_events(path, cursor)).end != cursor:
        cursor = new.end
        events += new.events
    assert events == [{"type": "step"}]


@given(content=st.binary(max_size=200), start=st.integers(0, 250))
def test_any_bytes_can_be_read(tmp_path_factory: pytest.TempPathFactory, content: bytes, start: int) -> None:
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    path.write_bytes(content)
    new = read_events(path, start)
    assert new.end <= max(start, len(content))
    assert all(isinstance(event["type"], str) for event in new.events)


def test_the_environment_is_what_is_named_and_no_more() -> None:
    kept = {"PATH": "/bin", "HOME": "/root", "HF_HOME": "/hf", "CUDA_VISIBLE_DEVICES": "0", "CAUSEWAY_CACHE": "/c"}
    secrets = {"CAUSEWAY_DATABASE__URL": "x", "OPENAI_API_KEY": "x", "AWS_SECRET": "x", "CAUSEWAY_BROKER__URL": "x"}
    assert child_environment(kept | secrets) == kept


def test_an_exit_says_how() -> None:
    assert (Exit(0).signal, Exit(-9).signal, Exit(-11).signal) == (None, "SIGKILL", "SIGSEGV")
    assert Exit(75).interrupted
    assert not Exit(1).interrupted


def _exits(code: int, *events: str) -> list[str]:
    """A trainer that says so and exits, as torchrun does with another code than its processes."""
    said = "".join(f'{{"type": "{event}"}}\n' for event in events)
    return [sys.executable, "-c", f"open('events.jsonl', 'a').write({said!r}); raise SystemExit({code})"]


@pytest.mark.parametrize(
    ("code", "events", "interrupted"),
    [
        (1, ["step", "stopped"], True),
        (1, ["stopped", "failed"], True),  # a process that lost the others, which had stopped
        (1, ["failed", "stopped"], False),  # a process that was told to stop because another had failed
        (1, ["step"], False),
        (1, ["failed"], False),
        (0, ["stopped"], False),
        (75, [], True),
    ],
)
def test_the_trainers_word_counts_where_its_launcher_has_another_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, events: list[str], *, interrupted: bool
) -> None:
    monkeypatch.chdir(tmp_path)  # which the child inherits
    with Child(_exits(code, *events), tmp_path) as child:
        wait_until(lambda: child.poll() is not None)
        exit_ = child.poll()
    assert exit_ is not None
    assert exit_.interrupted is interrupted
    assert (exit_.code == 0) is (code == 0)


@pytest.mark.parametrize("torn", ["", '{"type": "st'])
def test_what_an_earlier_attempt_said_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events.jsonl").write_text('{"type": "stopped"}\n' + torn)
    with Child(_exits(1), tmp_path) as child:
        wait_until(lambda: child.poll() is not None)
        assert child.poll() == Exit(1)


def test_leaving_the_block_ends_the_child(tmp_path: Path) -> None:
    with Child(_SLEEP, tmp_path) as child:
        assert child.poll() is None
        pid = int((tmp_path / "trainer.lock").read_text())
        assert runs(pid)
    assert not runs(pid)
    assert child.poll() == Exit(-signal.SIGKILL)


def test_a_child_that_ignores_the_request_is_killed_after_its_grace(tmp_path: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _SLEEP[-1]
    with Child([*_SLEEP[:-1], stubborn], tmp_path) as child:
        wait_until(lambda: (tmp_path / "trainer.log").read_text() == "up\n")
        child.stop(grace=0.2)
        child.stop(grace=1000)  # asking again changes nothing
        wait_until(lambda: child.poll() is not None)
        assert child.poll() == Exit(-signal.SIGKILL)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed), Child(["/no/such/program"], tmp_path):
        pass
    with Child(_SLEEP, tmp_path):  # and the folder is not locked for it
        pass


def test_a_folder_is_taken_over_from_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    orphan = left_behind(_SLEEP, tmp_path)
    with Child(_SLEEP, tmp_path):
        assert not runs(orphan)
        assert int((tmp_path / "trainer.lock").read_text()) != orphan
