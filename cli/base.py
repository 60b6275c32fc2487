"""`causeway base`: the base models that training requests may name."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.configuration import load_settings
from cli.console import out
from core.errors import InvalidInput, TrainingFailed
from core.settings import BUILTIN_SMALL

app = typer.Typer(help="List base models, and write the built-in one to a folder.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the names that a training request may use as base_model."""
    table = Table("name", "source", "revision")
    for name, model in load_settings().base_models.items():
        table.add_row(name, model.source, model.revision or "")
    out.print(table)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help=f"Only {BUILTIN_SMALL}: every other base has a home of its own.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it.")],
) -> None:
    """Write a built-in base model as a folder that transformers loads, to use a downloaded adapter elsewhere."""
    if name != BUILTIN_SMALL:
        raise InvalidInput(f"only {BUILTIN_SMALL} can be exported, not {name!r}: load others from their source")
    # A child: torch stays out of this process, as it does out of every one but the trainer's.
    done = subprocess.run([sys.executable, "-m", "trainer.base", "export", str(folder)], check=False)
    if done.returncode != 0:
        raise TrainingFailed(
            f"{name} could not be written (exit {done.returncode}); "
            "if a module is missing above: pip install 'causeway[trainer]'"
        )
