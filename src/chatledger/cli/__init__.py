"""The command line ``chatledger``."""

import sys

from chatledger.extras import missing_package_error


def main() -> None:
    """Run the command that this process was started with."""
    try:
        from chatledger.cli.commands import app
    except ModuleNotFoundError as missing:
        sys.exit(missing_package_error("The command", missing, "server"))
    app()
