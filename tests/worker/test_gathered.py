"""Batches of what concurrent calls ask for."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from worker.gathered import Gathered


def test_what_is_asked_during_a_batch_makes_up_the_next() -> None:
    batches: list[list[int]] = []
    first_may_end = threading.Event()

    def double(asked: Sequence[int]) -> list[int]:
        batches.append(list(asked))
        first_may_end.wait(10)
        return [2 * number for number in asked]

    async def ask() -> list[int]:
        gathered = Gathered(double)
        asking = [asyncio.create_task(gathered.ask(0))]
        while not batches:  # noqa: ASYNC110 (it is filled from another thread)
            await asyncio.sleep(0.001)
        asking += [asyncio.create_task(gathered.ask(number)) for number in range(1, 5)]
        await asyncio.sleep(0)
        first_may_end.set()
        return await asyncio.gather(*asking, gathered.ask(5))

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8, 10]
    assert batches == [[0], [1, 2, 3, 4, 5]]


def test_everybody_in_a_batch_hears_of_its_failure_and_the_next_goes_on() -> None:
    def fussy(asked: Sequence[int]) -> Sequence[int]:
        if 13 in asked:
            raise ValueError("unlucky")
        return asked

    async def ask() -> None:
        gathered = Gathered(fussy)
        results = await asyncio.gather(gathered.ask(13), gathered.ask(1), return_exceptions=True)
        assert [type(result) for result in results] == [ValueError, ValueError]
        assert await gathered.ask(2) == 2

    asyncio.run(ask())


def test_one_that_gives_up_leaves_the_others_their_answers() -> None:
    async def ask() -> None:
        gathered = Gathered(lambda asked: asked)
        leaver, stayer = asyncio.create_task(gathered.ask(1)), asyncio.create_task(gathered.ask(2))
        await asyncio.sleep(0)
        leaver.cancel()
        assert await stayer == 2
        with pytest.raises(asyncio.CancelledError):
            await leaver

    asyncio.run(ask())
