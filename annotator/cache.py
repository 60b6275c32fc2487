"""A reply cache in one SQLite file, for the stand-alone command. The service keeps its own in the database."""

import sqlite3
from pathlib import Path

from annotator.teachers.base import Finish, Reply
from core.domain.annotation import Usage


class SqliteCache:
    """See ReplyCache. A reply is on disk when `put` returns, so a killed run never pays for it again."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS replies"
            " (prompt_hash TEXT PRIMARY KEY, text TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, finish TEXT)"
        )

    async def get(self, prompt_hash: str) -> Reply | None:
        """The reply stored under this hash, if any."""
        row = self._connection.execute(
            "SELECT text, prompt_tokens, completion_tokens, finish FROM replies WHERE prompt_hash = ?", (prompt_hash,)
        ).fetchone()
        return None if row is None else Reply(row[0], Usage(row[1], row[2]), Finish(row[3]))

    async def put(self, prompt_hash: str, reply: Reply) -> None:
        """Store a reply."""
        self._connection.execute(
            "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)",
            (prompt_hash, reply.text, reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.finish.value),
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
