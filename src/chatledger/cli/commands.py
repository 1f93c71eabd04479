"""The commands of ``chatledger``."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from chatledger.errors import ChatledgerError
from chatledger.extras import missing_package_error

app = typer.Typer(
    help="Durable, ordered memory for AI applications.",
    no_args_is_help=True,
    # Typer's own tracebacks show the values of local variables, which may be messages.
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def chatledger(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        typer.echo(version("chatledger"))
        raise typer.Exit


@app.command()
def serve(
    allow_unauthenticated: Annotated[
        bool,
        typer.Option(
            "--allow-unauthenticated",
            help="Listen on an address other than loopback without sign-in. Anyone who reaches it "
            "can read and write every conversation.",
        ),
    ] = False,
) -> None:
    """Serve the chatbot API and its page. docs/running.md lists the CHATLEDGER_* settings."""
    try:
        from chatledger.cli.serving import run_server
    except ModuleNotFoundError as missing:
        sys.exit(missing_package_error("The server", missing, "server"))
    try:
        run_server(allow_unauthenticated=allow_unauthenticated)
    except ChatledgerError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
