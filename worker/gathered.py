"""Many small reads or writes of concurrent calls, done a batch at a time in a thread."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Got = TypeVar("Got")


class Gathered(Generic[Asked, Got]):
    """What is asked for while a batch is being worked on makes up the next: no waiting, and no batch without need.

    `work` is run in a thread, one batch at a time, and returns one answer for each thing asked, in order. What it
    raises, everybody in the batch gets. For use in one event loop.
    """

    def __init__(self, work: Callable[[Sequence[Asked]], Sequence[Got]]) -> None:
        self._work = work
        self._waiting: list[tuple[Asked, asyncio.Future[Got]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Got:
        """The answer to one thing, once its batch is done."""
        answer: asyncio.Future[Got] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._answer(batch)
        finally:
            self._runner = None

    async def _answer(self, batch: list[tuple[Asked, asyncio.Future[Got]]]) -> None:
        try:
            answers = await asyncio.to_thread(self._work, [asked for asked, _ in batch])
        except Exception as exc:  # noqa: BLE001 (it is raised where each was asked)
            for _, future in batch:
                if not future.done():
                    future.set_exception(exc)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():  # else whoever asked has gone
                    future.set_result(answer)
