"""`causeway health`: for the health check of a container without a port."""

from api.broker import open_broker
from cli.configuration import load_settings
from core.db.health import answers
from core.db.session import Database


def health() -> None:
    """Whether database and broker can be reached from here. Exit status 0 or 1.

    A role whose worker has given up ends by itself, so this is what is left to ask.
    """
    settings = load_settings()
    database = Database(settings.database.url, pool_size=1)
    try:
        with database.reading() as session:
            answers(session)
    finally:
        database.dispose()
    with open_broker(settings.broker) as broker:
        broker.reach()
