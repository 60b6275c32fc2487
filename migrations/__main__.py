"""The schema's command line.

python -m migrations                       # bring the database of CAUSEWAY_DATABASE__URL up to date
python -m migrations new 0002 "what for"   # draft a step from what the models have and the last step has not
"""

import argparse
import tempfile
from pathlib import Path

from alembic import command

from core.db.session import Database
from core.settings import Settings
from migrations.run import config_for, upgrade


def main() -> None:
    """Upgrade, or draft a new step."""
    parser = argparse.ArgumentParser(prog="python -m migrations", description="Bring the database up to date.")
    commands = parser.add_subparsers(dest="command")
    new = commands.add_parser("new", help="draft a step from the difference between models and migrations")
    new.add_argument("revision", help="its number, e.g. 0002")
    new.add_argument("message", help="what it is for, in a few words")
    arguments = parser.parse_args()
    if arguments.command == "new":
        _draft(arguments.revision, arguments.message)
    else:
        upgrade(Settings().database.url)
        print("the database is up to date")


def _draft(revision: str, message: str) -> None:
    # The models alone decide the types, so an empty SQLite brought up to date is enough to compare with.
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'draft.db'}"
        upgrade(url)
        database = Database(url)
        with database.engine.begin() as connection:
            command.revision(config_for(connection), message, rev_id=revision, autogenerate=True)
        database.dispose()


if __name__ == "__main__":
    main()
