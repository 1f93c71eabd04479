"""The command line ``chatledger``."""

import signal
import sys

from chatledger.extras import missing_package_error


def main() -> None:
    """Run the command that this process was started with."""
    # Until the server handles it, Ctrl-C ends the process as it ends other programs: during the
    # imports, which take most of a second, Python would print a traceback. Under nohup it may be
    # ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from chatledger.cli.commands import app
    except ModuleNotFoundError as missing:
        sys.exit(missing_package_error("The command", missing, "server"))
    app()
