"""The `causeway` command. Every subcommand lives in a module of its own."""

import sys

import typer

from cli import base, health, keys, migrate, serve
from cli.console import refuse
from cli.demo.command import demo
from core.errors import CausewayError
from core.logs import configure_logs

app = typer.Typer(
    name="causeway",
    help="Causal Attention Tuning as a service: raw data in, causal labels from a teacher, a LoRA adapter out.\n\n"
    "Settings come from CAUSEWAY_* variables, listed in .env.example; without any, everything is kept in ./var.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(demo)
app.command()(migrate.migrate)
app.command()(health.health)
app.add_typer(keys.app, name="keys")
app.add_typer(base.app, name="base")


def main() -> None:
    """Run the command. Exit status: 0 done, 1 refused or failed (one red line says why), 2 misused, 130 interrupted."""
    configure_logs("WARNING", as_json=False)
    try:
        app()
    except CausewayError as exc:
        refuse(exc.code, exc.message)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
