import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import httpx
import pytest
import uvicorn

from api import event_stream
from core import leases
from core.db.session import Database
from core.domain.lifecycle import JobState
from core.errors import Unavailable
from core.job_store import record_change
from core.leases import Claim
from tests.api.conftest import OTHER, Api

STREAM = {"Accept": "text/event-stream"}
STREAMS = 100


def claim(api: Api, job_id: str) -> Claim:
    with api.database.transaction() as uow:
        found = leases.claim(uow, job_id=job_id, lease=600, max_attempts=3)
    assert found is not None
    return found


def step(api: Api, owner: Claim, number: int) -> None:
    with api.database.transaction() as uow:
        record_change(uow, leases.fence(uow, owner), "step", {"step": number})


def finish(api: Api, owner: Claim) -> None:
    with api.database.transaction() as uow:
        leases.finish(uow, owner, JobState.SUCCEEDED, result={})


def parsed(text: str) -> list[dict[str, str]]:
    """Server-sent events as a browser reads them: fields of blocks between blank lines, comments dropped."""
    blocks = [[line.split(": ", 1) for line in block.splitlines()] for block in text.split("\n\n")]
    return [fields for block in blocks if (fields := {key: value for key, value in block if key}) and "data" in fields]


@pytest.mark.parametrize("kind", ["annotation", "training"])
def test_events_come_in_pages(api: Api, kind: str) -> None:
    job_id = getattr(api, f"{kind}_job")()
    owner = claim(api, job_id)
    for number in range(3):
        step(api, owner, number)
    url = f"/v1/{kind}-jobs/{job_id}/events"
    first = api.client.get(url, params={"limit": 3}).json()
    assert [event["type"] for event in first["items"]] == ["state", "state", "step"]
    second = api.client.get(url, params={"limit": 3, "cursor": first["next"]}).json()
    assert [event["data"]["step"] for event in second["items"]] == [1, 2]
    assert second["next"] is None


def test_a_stream_of_a_finished_job_ends(api: Api) -> None:
    job_id = api.training_job()
    owner = claim(api, job_id)
    step(api, owner, 1)
    finish(api, owner)
    url = f"/v1/training-jobs/{job_id}/events"
    answer = api.client.get(url, headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = parsed(answer.text)
    assert [event["event"] for event in events] == ["state", "state", "step", "state"]
    assert json.loads(events[-1]["data"])["data"]["state"] == "succeeded"
    paged = api.client.get(url).json()["items"]
    assert [json.loads(event["data"]) for event in events] == paged
    rest = api.client.get(url, headers=STREAM | {"Last-Event-ID": events[1]["id"]})
    assert [event["event"] for event in parsed(rest.text)] == ["step", "state"]
    nothing = api.client.get(url, headers=STREAM | {"Last-Event-ID": events[-1]["id"]})
    assert nothing.status_code == 204  # tells a browser not to come again
    for wrong in ("x", "-1", "9" * 19, "9" * 40):
        assert api.client.get(url, headers=STREAM | {"Last-Event-ID": wrong}).status_code == 422


@contextmanager
def served(api: Api) -> Iterator[str]:
    """The application over a real socket."""
    server = uvicorn.Server(uvicorn.Config(api.app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


async def events_of(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    block = ""
    async for line in response.aiter_lines():
        block += line + "\n"
        if not line:
            for event in parsed(block):
                yield event
            block = ""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that nobody wakes sleep on: without this, the look after a long silence would hide a dead watcher."""
    monkeypatch.setattr(event_stream, "_KEEP_ALIVE", 3600)


@pytest.mark.usefixtures("patient")
def test_a_hundred_streams_see_what_happens_and_hold_up_nobody(postgres_api: Api) -> None:
    """If a stream kept a thread, or a connection, the requests beside them would never be answered."""
    api = postgres_api
    job_id = api.training_job()
    owner = claim(api, job_id)
    headers = dict(api.client.headers)

    async def watch(url: str) -> None:
        limits = httpx.Limits(max_connections=None)
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits, trust_env=False)
            )
            path = f"/v1/training-jobs/{job_id}/events"
            opened = [await stack.enter_async_context(http.stream("GET", path, headers=STREAM)) for _ in range(STREAMS)]
            streams = [events_of(response) for response in opened]
            for stream in streams:
                assert [(await anext(stream))["event"] for _ in range(2)] == ["state", "state"]
            for _ in range(20):
                assert (await http.get("/healthz")).status_code == 200
                assert (await http.get(f"/v1/training-jobs/{job_id}")).status_code == 200
            await asyncio.to_thread(step, api, owner, 7)
            for stream in streams:
                event = await anext(stream)
                assert (event["event"], json.loads(event["data"])["data"]) == ("step", {"step": 7})
            await asyncio.to_thread(finish, api, owner)
            for stream in streams:
                assert [event["event"] async for event in stream] == ["state"]

    with served(api) as url:
        asyncio.run(watch(url))


@pytest.mark.usefixtures("patient")
def test_a_stream_outlives_a_database_that_is_away(sqlite_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api = sqlite_api
    job_id = api.training_job()
    owner = claim(api, job_id)
    away, noticed = threading.Event(), threading.Event()
    reading = Database.reading

    def sometimes(self: Database) -> object:
        if away.is_set() and self is api.database:
            away.clear()
            noticed.set()
            raise Unavailable("away")
        return reading(self)

    monkeypatch.setattr(Database, "reading", sometimes)

    async def watch(url: str) -> None:
        async with (
            httpx.AsyncClient(base_url=url, headers=dict(api.client.headers), timeout=60, trust_env=False) as http,
            http.stream("GET", f"/v1/training-jobs/{job_id}/events", headers=STREAM) as response,
        ):
            stream = events_of(response)
            assert [(await anext(stream))["event"] for _ in range(2)] == ["state", "state"]
            away.set()
            await asyncio.to_thread(noticed.wait)
            await asyncio.to_thread(finish, api, owner)
            assert [event["event"] async for event in stream] == ["state"]

    with served(api) as url:
        asyncio.run(watch(url))


def test_a_stream_is_its_tenants_own(api: Api) -> None:
    url = f"/v1/training-jobs/{api.training_job()}/events"
    assert api.as_(api.secret(OTHER)).get(url, headers=STREAM).status_code == 404
    assert api.as_(None).get(url, headers=STREAM).status_code == 401


def test_a_stream_ends_when_its_job_is_deleted(sqlite_api: Api) -> None:
    job_id = sqlite_api.training_job()
    url = f"/v1/training-jobs/{job_id}"
    sqlite_api.client.post(f"{url}/cancel")
    sqlite_api.client.delete(url)
    assert sqlite_api.client.get(f"{url}/events", headers=STREAM).status_code == 404


def test_silence_is_filled_with_comments(sqlite_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "_KEEP_ALIVE", 0.05)
    job_id = sqlite_api.training_job()

    async def listen(url: str) -> None:
        async with (
            httpx.AsyncClient(base_url=url, headers=dict(sqlite_api.client.headers), trust_env=False) as http,
            http.stream("GET", f"/v1/training-jobs/{job_id}/events", headers=STREAM) as response,
        ):
            async for line in response.aiter_lines():
                if line.startswith(":"):
                    return

    with served(sqlite_api) as url:
        asyncio.run(listen(url))
