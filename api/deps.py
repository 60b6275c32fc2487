"""What a route asks for: the process's services, a transaction, and who is asking."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.auth import bearer
from api.event_stream import EventStreams
from core.db.session import Database, Session, UnitOfWork
from core.keys import Principal, Scope, authenticate
from core.settings import Settings
from core.storage import BlobStore


@dataclass(frozen=True, slots=True)
class Services:
    """All that an application was built from."""

    settings: Settings
    database: Database
    blobs: BlobStore
    reach_broker: Callable[[], None]  # raises core.errors.Unavailable when nudges cannot be sent now


def services(request: Request) -> Services:
    """The services this application was built from."""
    found: Services = request.app.state.services
    return found


def streams(request: Request) -> EventStreams:
    """What the event streams of this process share."""
    found: EventStreams = request.app.state.streams
    return found


InUse = Annotated[Services, Depends(services)]
Streams = Annotated[EventStreams, Depends(streams)]


def reader(services: InUse, key: Annotated[str, Depends(bearer)]) -> Principal:
    """Whoever asks, allowed to read."""
    return _principal(services, key, Scope.READ)


def writer(services: InUse, key: Annotated[str, Depends(bearer)]) -> Principal:
    """Whoever asks, allowed to create, cancel and delete."""
    return _principal(services, key, Scope.WRITE)


Reader = Annotated[Principal, Depends(reader)]
Writer = Annotated[Principal, Depends(writer)]


def reading(services: InUse, _me: Reader) -> Iterator[Session]:
    """A read-only transaction, ended before the response is sent."""
    with services.database.reading() as session:
        yield session


def writing(services: InUse, _me: Writer) -> Iterator[UnitOfWork]:
    """A transaction, committed before the response is sent: what a client is told has happened."""
    with services.database.transaction() as uow:
        yield uow


# The scope matters: FastAPI ends other dependencies after the response, where a commit could fail behind a 201.
Reading = Annotated[Session, Depends(reading, scope="function")]
Writing = Annotated[UnitOfWork, Depends(writing, scope="function")]


def _principal(services: Services, key: str, scope: Scope) -> Principal:
    # A transaction of its own, over before the route's begins: a request never holds two connections.
    with services.database.reading() as session:
        principal = authenticate(session, key)
    principal.require(scope)
    return principal
