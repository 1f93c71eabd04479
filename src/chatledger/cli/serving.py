"""The server of ``chatledger serve``: the API in one process, from its settings to its shutdown."""

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from types import FrameType

import typer
import uvicorn
from msgspec.structs import replace

from chatledger.cli.connections import BACKLOG, LimitedProtocol, allow_connections, limit_accept_log
from chatledger.errors import InvalidArgument
from chatledger.http.api import MAX_BODY_BYTES, MAX_MESSAGE_CHARACTERS
from chatledger.http.app import Chatbot
from chatledger.http.logs import configure_logging
from chatledger.http.turns import RunningTurns
from chatledger.settings import Settings, read_settings
from chatledger.stores.urls import format_duration, without_secrets

logger = logging.getLogger("chatledger.server")

LIMITS = (
    "turns_at_once",
    "all_turns_at_once",
    "turns_a_minute",
    "tokens_a_day",
    "bytes_a_day",
    "conversations",
    "max_tokens",
    "window_tokens",
)
"""The settings of limits that are printed at the start."""
GC_ALLOCATIONS = 2_000
"""The number of new objects after which Python looks for garbage among them.

Few objects of a server are in cycles, and with Python's own 700, looking for them takes a fifth of
the time of a server with many streams.
"""
SHUTDOWN_SECONDS = 3
"""The seconds that replies in progress may continue once the server is told to stop."""
FAREWELL_SECONDS = 1
"""The seconds that clients then have to receive how their requests ended."""
POLL_SECONDS = 0.05
"""The seconds between two checks whether a stopping server still has to wait."""


def run_server(*, allow_unauthenticated: bool) -> None:
    """Run the server until a signal stops it.

    Raises ``ChatledgerError`` if it cannot start; the text says what is wrong.
    """
    if (folder := str(Path.cwd())) not in sys.path:
        # For models of one's own. Last, so that no file here takes the place of a package.
        sys.path.append(folder)
    settings = read_settings()
    configure_logging(form=settings.log_format, level=settings.log_level)
    if allow_unauthenticated:
        settings = replace(settings, allow_unauthenticated=True)
    chatbot = Chatbot(settings)
    max_connections = allow_connections(settings.max_connections)
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    with _open_listener(settings) as listener:
        asyncio.run(_serve(settings, chatbot, listener, max_connections))


async def _serve(
    settings: Settings, chatbot: Chatbot, listener: socket.socket, max_connections: int
) -> None:
    async with chatbot:
        app = chatbot.create_app()
        server = Server(
            uvicorn.Config(
                app,
                http=LimitedProtocol,
                ws="none",
                limit_concurrency=max_connections,
                backlog=BACKLOG,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies,
                server_header=False,
                # Its warnings are about single requests, so that strangers could fill the log.
                log_level="error",
                log_config=None,  # its loggers are configured with the others
                access_log=False,
            ),
            app.state.turns,
        )
        server.install_signal_handlers()
        _announce(settings, _url(settings.host, listener), max_connections)
        limit_accept_log(asyncio.get_running_loop())
        await server.serve(sockets=[listener])


class Server(uvicorn.Server):
    """Uvicorn's server, which a signal stops without losing anything that a client has received.

    The first signal stops it once the replies in progress are complete, at the latest after
    ``SHUTDOWN_SECONDS``. Requests that are still running are then cancelled, and their turns store
    the replies so far. A second signal cancels them at once. A third one ends the process, even if
    the store does not answer.

    Args:
        config: The configuration of the server.
        turns: The turns that it runs; their clients may have left.
    """

    def __init__(self, config: uvicorn.Config, turns: RunningTurns) -> None:
        super().__init__(config)
        self._turns = turns

    def install_signal_handlers(self) -> None:
        """Handle the signals until the process ends, not only while requests are served."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)  # the terminal was closed, and this is not under nohup
        for number in numbers:
            signal.signal(number, self.handle_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Uvicorn's own method has it raise the signals again once it has stopped.
        if self.force_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, end all requests, and wait until the turns have stored their replies."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait_while(self._may_continue, SHUTDOWN_SECONDS)
        for request in list(self.server_state.tasks):
            request.cancel()
        await self._wait_while(self._has_clients, FAREWELL_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self.lifespan.shutdown()

    def _has_clients(self) -> bool:
        return bool(self.server_state.connections or self.server_state.tasks)

    def _may_continue(self) -> bool:
        """Return whether there is something to wait for, and no second signal."""
        return not self.force_exit and (self._has_clients() or self._turns.are_running)

    async def _wait_while(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until ``condition`` is false, at most ``seconds``."""
        end = monotonic() + seconds
        # Uvicorn announces neither that a connection has ended nor that a signal has come.
        while condition():
            if monotonic() > end:
                return
            await asyncio.sleep(POLL_SECONDS)


def _announce(settings: Settings, url: str, max_connections: int) -> None:
    """Say that the server is running, and with what: for people, or as a line of a JSON log."""
    sentence = f"Chatledger is running at {url} (Ctrl-C stops it)"
    facts = {
        "version": version("chatledger"),
        "store": without_secrets(settings.store),
        "models": ", ".join([settings.model, *settings.models]),
        "window": f"{settings.window} messages",
        "sign_in": "none" if settings.auth == "none" else f"tokens of {settings.issuer}",
        "lease": format_duration(settings.lease),
        "time_limit": format_duration(settings.time_limit) if settings.time_limit else "off",
        "expire_after": format_duration(settings.expire_after)
        if settings.expire_after
        else "never",
        "longest_message": f"{MAX_MESSAGE_CHARACTERS:,} characters",
        "longest_body": f"{MAX_BODY_BYTES // 1024} KiB",
        "connections": f"{max_connections:,}",
        **{name: _limit(getattr(settings, name)) for name in LIMITS},
    }
    if settings.log_format == "json":
        logger.info("%s", sentence, extra={"fields": facts})
    else:
        details = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
        typer.echo(f"{sentence}\n{details}")


def _limit(number: int | None) -> str:
    return "off" if number is None else f"{number:,}"


def _open_listener(settings: Settings) -> socket.socket:
    # Opened here and not by uvicorn, so that the error is clear if the port is in use.
    try:
        host = "127.0.0.1" if settings.host == "localhost" else settings.host
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise InvalidArgument(
            f"CHATLEDGER_HOST is {settings.host!r}, which is neither an address nor a known host "
            "name; use 127.0.0.1."
        ) from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as failed:
        listener.close()
        raise InvalidArgument(
            f"Cannot listen on port {settings.port} of {settings.host} ({failed.strerror}); "
            "choose another port with CHATLEDGER_PORT."
        ) from None
    return listener


def _url(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"
