"""``chatledger serve``: the API in one process, from its settings to its end."""

import asyncio
import ipaddress
import signal
import socket
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import typer
import uvicorn

from chatledger.chat import Chat
from chatledger.errors import ChatledgerError, InvalidArgument, StoreMismatch
from chatledger.http.fastapi import create_app
from chatledger.http.opening import open_sign_in
from chatledger.models import Models, open_model
from chatledger.settings import Settings, read_settings
from chatledger.stores.contract import AsyncStore
from chatledger.stores.urls import open_async_store
from chatledger.windows import last

if TYPE_CHECKING:  # its library comes with an extra
    from chatledger.http.auth import SignIn

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
SECONDS_TO_CHECK = 3
SECONDS_TO_END = 3
"""How long replies that are under way may go on once the server is told to end."""


def serve(*, allow_unauthenticated: bool) -> None:
    """Serve until a signal ends it. Raises ``ChatledgerError``, whose text says what is wrong."""
    settings = read_settings()
    sign_in = open_sign_in(settings)
    loopback = _is_loopback(settings.host)
    if not (loopback or sign_in or allow_unauthenticated):
        raise InvalidArgument(
            f"CHATLEDGER_HOST is {settings.host!r}, which is no loopback address, and nobody signs "
            "in here: whoever reaches it could read every conversation. Use 127.0.0.1, let users "
            "sign in with CHATLEDGER_AUTH, or add --allow-unauthenticated."
        )
    with _listening(settings) as listener:
        asyncio.run(_serve(settings, listener, sign_in, loopback=loopback))


async def _serve(
    settings: Settings, listener: socket.socket, sign_in: "SignIn | None", *, loopback: bool
) -> None:
    store = open_async_store(settings.store, expire_after=settings.expire_after)
    models = Models(
        [settings.model, *settings.models],
        open=partial(open_model, offline_pace=settings.offline_pace),
    )
    async with AsyncExitStack() as ends:
        await ends.enter_async_context(store)
        await _check(store)
        ends.push_async_callback(models.close)
        chat = Chat(
            store,
            models.get(),
            window=last(settings.window),
            system_prompt=settings.system_prompt,
            lease=settings.lease,
            time_limit=settings.time_limit,
        )
        hosts = LOOPBACK_NAMES | {settings.host.lower()} if loopback else None
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(
                    chat, models, hosts=hosts, sign_in=sign_in, allow_origin=settings.allow_origin
                ),
                log_level="warning",
                timeout_graceful_shutdown=SECONDS_TO_END,
            )
        )
        # From now on, not from when the server has started; and not the default once it has ended,
        # when it raises the signal again, or the store would not be closed.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
        typer.echo(f"Chatledger is at {_address(settings.host, listener)} (Ctrl-C ends it)")
        await server.serve(sockets=[listener])
        # Turns that it cut off keep what was said so far.
        cut_off = asyncio.all_tasks() - {asyncio.current_task()}
        if cut_off:
            await asyncio.wait(cut_off, timeout=SECONDS_TO_END)
        await chat.close()


async def _check(store: AsyncStore) -> None:
    """Raise what is wrong with the place of the store, of which users would hear only that it is.

    What may pass, such as a table that does not answer, is left to them.
    """
    try:
        async with asyncio.timeout(SECONDS_TO_CHECK):
            await store.get("health")
    except (InvalidArgument, StoreMismatch):
        raise
    except (ChatledgerError, TimeoutError):
        pass


def _listening(settings: Settings) -> socket.socket:
    # Here and not in the server, so that a port that is taken is said in a sentence.
    try:
        host = "127.0.0.1" if settings.host == "localhost" else settings.host
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise InvalidArgument(
            f"CHATLEDGER_HOST is {settings.host!r}, which is no address or name known here."
        ) from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as failed:
        listener.close()
        raise InvalidArgument(
            f"Port {settings.port} at {settings.host} cannot be had ({failed.strerror}); "
            "choose another with CHATLEDGER_PORT."
        ) from None
    return listener


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _address(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"
