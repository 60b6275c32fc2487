"""Logs are JSON lines with ids, and never carry the text inside a foreign exception."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from core.errors import InvalidInput
from core.logs import configure_logs, job_context

SECRET = "the patient is called Ada"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def _lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_json_and_carries_the_bound_ids(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", as_json=True)
    job_context(job_id="aj_1")
    structlog.get_logger("worker").info("slice_done", items=3)
    logging.getLogger("kombu").warning("from a library")
    first, second = _lines(capsys.readouterr().err)
    assert (first["event"], first["job_id"], first["items"], first["level"]) == ("slice_done", "aj_1", 3, "info")
    assert (second["event"], second["job_id"]) == ("from a library", "aj_1")


class _Screen(io.StringIO):
    """A stderr that may be a terminal."""

    def __init__(self, on_terminal: bool) -> None:
        super().__init__()
        self._on_terminal = on_terminal

    def isatty(self) -> bool:
        return self._on_terminal


@pytest.mark.parametrize(
    ("on_terminal", "as_json", "json_lines"),
    [(True, None, False), (False, None, True), (True, True, True), (False, False, False)],
)
def test_a_person_at_a_terminal_gets_lines_to_read_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, on_terminal: bool, as_json: bool | None, json_lines: bool
) -> None:
    screen = _Screen(on_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    configure_logs("INFO", as_json=as_json)
    structlog.get_logger("worker").info("slice_done", items=3)
    written = screen.getvalue()
    assert "slice_done" in written
    assert written.startswith("{") == json_lines
    assert ("\x1b[" in written) == (on_terminal and not json_lines)  # colours only where they are seen


def _refuse(text: str) -> None:
    try:
        int(text)
    except ValueError as exc:
        raise InvalidInput("line 7 is not JSON", line=7) from exc


def test_the_level_holds(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("WARNING", as_json=True)
    structlog.get_logger("worker").info("quiet")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_the_message_of_a_foreign_error_stays_out(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    configure_logs("INFO", as_json=as_json)
    try:
        _refuse(SECRET)
    except InvalidInput:
        structlog.get_logger("api").exception("refused")
        logging.getLogger("library").exception("also here")
    err = capsys.readouterr().err
    assert SECRET not in err
    assert err.count("builtins.ValueError") == 2
    assert "line 7 is not JSON" in err
    assert "test_logs.py" in err
