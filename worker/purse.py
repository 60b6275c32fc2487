"""A job's money as the calls of one slice see it: set aside in the database before each, settled with the labels."""

from collections.abc import Sequence
from itertools import count

from core import budgets
from core.db.session import Database, UnitOfWork
from core.domain.annotation import TeacherConfig, Usage
from core.domain.spending import Budget, Cost, cost_of
from core.errors import BudgetExhausted
from core.leases import Claim
from worker.gathered import Gathered


class JobPurse:
    """An annotator.teachers.base.Purse of a claimed job, for use in one event loop.

    A job without a budget sets nothing aside; what it spends is counted all the same.
    """

    def __init__(self, database: Database, claim: Claim, config: TeacherConfig, budget: Budget) -> None:
        self.refused: Cost | None = None  # a call that did not fit: no other is to be begun
        self._database, self._claim, self._config = database, claim, config
        self._bounded = budget != Budget()
        self._reservations: Gathered[Cost, int | None] = Gathered(self._reserve)
        self._numbers = count(1)  # of calls without a reservation
        self._settled: dict[int, Cost] = {}  # not yet written

    async def reserve(self, most: Usage) -> int:
        """See Purse.reserve."""
        if not self._bounded:
            return next(self._numbers)
        cost = cost_of(most, self._config)
        number = await self._reservations.ask(cost)
        if number is None:
            self.refused = cost
            raise BudgetExhausted("the next call does not fit the budget of the job")
        return number

    def settle(self, reservation: int, usage: Usage) -> None:
        """See Purse.settle."""
        self._settled[reservation] = cost_of(usage, self._config)

    @property
    def has_news(self) -> bool:
        """Whether something was settled that `write` has not written."""
        return bool(self._settled)

    def take(self) -> dict[int, Cost]:
        """What was settled since the last time, for `write`."""
        settled, self._settled = self._settled, {}
        return settled

    def write(self, uow: UnitOfWork, settled: dict[int, Cost]) -> None:
        """Put what was taken on the job's account. Raises LeaseLost as budgets.settle."""
        if self._bounded:
            budgets.settle(uow, self._claim, settled)
        else:
            budgets.settle(uow, self._claim, {}, unreserved=sum(settled.values(), Cost()))

    def _reserve(self, costs: Sequence[Cost]) -> list[int | None]:
        with self._database.transaction() as uow:
            return budgets.reserve(uow, self._claim, costs)
