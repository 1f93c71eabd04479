"""What ``chatledger`` can be told to do."""

from importlib.metadata import version
from typing import Annotated

import typer

from chatledger.errors import ChatledgerError

app = typer.Typer(
    help="Durable, ordered memory for AI applications.",
    no_args_is_help=True,
    # Its tracebacks show the values of variables, messages among them.
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def chatledger(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True)
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
            help="Listen at an address that is not loopback, though anyone who reaches it can "
            "read and write every conversation.",
        ),
    ] = False,
) -> None:
    """Serve the chatbot API and its page; CHATLEDGER_* variables say how (see the README)."""
    from chatledger.cli.serving import serve

    try:
        serve(allow_unauthenticated=allow_unauthenticated)
    except ChatledgerError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
