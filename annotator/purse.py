"""What labelling one file costs, kept in a SQLite file beside it: a budget holds over all runs, however they end."""

import sqlite3
from pathlib import Path

from core.domain.annotation import TeacherConfig, Usage
from core.domain.spending import Budget, Cost, cost_of
from core.errors import BudgetExhausted


class SqlitePurse:
    """See annotator.teachers.base.Purse. A call is on disk before it is made.

    One that a killed run has not settled counts for all it may have cost.
    """

    def __init__(self, path: Path, config: TeacherConfig, budget: Budget) -> None:
        self._config, self._budget = config, budget
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")  # outlives the process; a call need not wait for the disk
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS calls"
            " (number INTEGER PRIMARY KEY, tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL)"
        )
        total = "SELECT coalesce(sum(tokens), 0), coalesce(sum(nano_usd), 0) FROM calls"
        self.spent = Cost(*self._connection.execute(total).fetchone())  # by all runs, with what is set aside
        self._set_aside: dict[int, Cost] = {}

    async def reserve(self, most: Usage) -> int:
        """See Purse.reserve."""
        cost = cost_of(most, self._config)
        if not self._budget.holds(self.spent + cost):
            raise BudgetExhausted("the next call does not fit the budget")
        inserted = self._connection.execute(
            "INSERT INTO calls (tokens, nano_usd) VALUES (?, ?) RETURNING number", (cost.tokens, cost.nano_usd)
        )
        number: int = inserted.fetchone()[0]
        self._set_aside[number] = cost
        self.spent += cost
        return number

    def settle(self, reservation: int, usage: Usage) -> None:
        """See Purse.settle."""
        cost = cost_of(usage, self._config)
        self._connection.execute(
            "UPDATE calls SET tokens = ?, nano_usd = ? WHERE number = ?", (cost.tokens, cost.nano_usd, reservation)
        )
        self.spent += cost - self._set_aside.pop(reservation)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
