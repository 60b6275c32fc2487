"""Opening an SQLite file that others open in the same moment."""

import sqlite3
import time

import pytest

from core.db.session import _use_wal


class Contended:
    """A connection that is told so many times that the file is locked, as SQLite does without waiting."""

    def __init__(self, times: int, code: int = sqlite3.SQLITE_BUSY) -> None:
        self.left, self.code, self.asked = times, code, 0

    def execute(self, statement: str) -> None:
        assert statement == "PRAGMA journal_mode=WAL"
        self.asked += 1
        if self.asked <= self.left:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = self.code
            raise error


def test_a_file_that_others_switch_in_the_same_moment_is_waited_for() -> None:
    connection = Contended(3)
    _use_wal(connection)
    assert connection.asked == 4


def test_it_is_not_waited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 7))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with pytest.raises(sqlite3.OperationalError):
        _use_wal(Contended(1000))


def test_another_fault_is_told_at_once() -> None:
    connection = Contended(1, sqlite3.SQLITE_READONLY)
    with pytest.raises(sqlite3.OperationalError):
        _use_wal(connection)
    assert connection.asked == 1
