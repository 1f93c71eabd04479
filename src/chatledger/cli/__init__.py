"""The command ``chatledger``."""

import sys


def main() -> None:
    """Run the command line that this process was started with."""
    try:
        from chatledger.cli.commands import app
    except ModuleNotFoundError as missing:
        sys.exit(
            f"The command needs {missing.name}; install it with pip install 'chatledger[server]'."
        )
    app()
