import asyncio
import threading

import pytest

from annotator.teachers.gate import Gate
from annotator.teachers.health import EndpointHealth


def test_no_more_than_the_level_are_in_at_once_and_all_get_in() -> None:
    async def run() -> tuple[int, int]:
        gate, inside, most, done = Gate(EndpointHealth(most=3)), 0, 0, 0

        async def call() -> None:
            nonlocal inside, most, done
            async with gate.admitted():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1
                done += 1

        await asyncio.gather(*(call() for _ in range(50)))
        return most, done

    assert asyncio.run(run()) == (3, 50)


def test_first_come_first_served() -> None:
    async def run() -> list[int]:
        gate, order = Gate(EndpointHealth(most=1)), []

        async def call(number: int) -> None:
            async with gate.admitted():
                order.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(call(i) for i in range(10)))
        return order

    assert asyncio.run(run()) == list(range(10))


def test_those_who_wait_get_in_when_a_pause_ends() -> None:
    async def run() -> float:
        health = EndpointHealth(most=2)
        gate, loop = Gate(health), asyncio.get_running_loop()
        until = loop.time() + 0.05
        health.pause(until)
        async with gate.admitted() as started:
            return started - until

    assert asyncio.run(run()) >= 0


@pytest.mark.parametrize("cancelled", [range(0, 20, 2), range(1, 20), [0]])
def test_a_cancelled_wait_leaves_no_place_taken(cancelled) -> None:
    async def run() -> list[int]:
        gate, through = Gate(EndpointHealth(most=2)), []

        async def call(number: int) -> None:
            async with gate.admitted():
                await asyncio.sleep(0.001)
                through.append(number)

        tasks = [asyncio.create_task(call(i)) for i in range(20)]
        await asyncio.sleep(0)
        for number in cancelled:
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with gate.admitted(), gate.admitted():  # both places are free again
            return through

    assert set(asyncio.run(run())) == set(range(20)) - set(cancelled)


def test_two_loops_share_the_places_of_one_endpoint() -> None:
    health, lock = EndpointHealth(most=3), threading.Lock()
    inside, seen, done = [0], [], []

    async def call(gate: Gate) -> None:
        async with gate.admitted():
            with lock:
                inside[0] += 1
                seen.append(inside[0])
            await asyncio.sleep(0.002)
            with lock:
                inside[0] -= 1
                done.append(1)

    async def run() -> None:
        gate = Gate(health)
        await asyncio.gather(*(call(gate) for _ in range(40)))

    threads = [threading.Thread(target=lambda: asyncio.run(run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 80
    assert max(seen) <= 3
    assert health.in_flight == 0


def test_who_is_admitted_and_cancelled_in_the_same_moment_holds_no_place() -> None:
    async def run() -> int:
        health = EndpointHealth(most=1)
        gate = Gate(health)

        async def call() -> None:
            async with gate.admitted():
                raise AssertionError("it was cancelled before it could begin")

        async with gate.admitted():
            waiting = asyncio.create_task(call())
            await asyncio.sleep(0)
        waiting.cancel()  # its turn has come, but it has not run yet
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        return health.in_flight

    assert asyncio.run(run()) == 0
