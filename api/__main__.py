"""`python -m api`: the API as a process of its own, configured by CAUSEWAY_* variables. Migrate the database first."""

import uvicorn

from api.app import create_app
from api.broker import open_broker
from core.db.session import Database
from core.logs import configure_logs
from core.settings import Settings
from core.storage import BlobStore

_GRACE = 10  # seconds that open event streams may hold up the end of the process


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    configure_logs(settings.log_level, as_json=settings.log_json)
    with open_broker(settings.broker) as broker:
        database = Database(settings.database.url, pool_size=settings.database.pool_size, publish=broker.publish)
        app = create_app(settings, database, blobs=BlobStore(settings.storage.blobs), reach_broker=broker.reach)
        uvicorn.run(
            app,
            host=settings.api.host,
            port=settings.api.port,
            log_config=None,  # ours, see core/logs.py
            access_log=False,  # ours, see api/access_log.py
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        database.dispose()


if __name__ == "__main__":
    main()
