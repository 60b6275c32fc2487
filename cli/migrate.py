"""`causeway migrate`: bring the database up to date."""

from cli.configuration import load_settings
from cli.console import err
from migrations.run import upgrade


def migrate() -> None:
    """Create or update the tables of CAUSEWAY_DATABASE__URL. Harmless when they are up to date."""
    upgrade(load_settings().database.url)
    err.print("the database is up to date")
