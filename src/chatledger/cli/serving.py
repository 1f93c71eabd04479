"""The server of ``chatledger serve``: the API in one process, from its settings to its shutdown."""

import asyncio
import signal
import socket
from contextlib import AsyncExitStack
from functools import partial

import typer
import uvicorn

from chatledger.chat import Chat
from chatledger.errors import ChatledgerError, InvalidArgument, StoreMismatch
from chatledger.http.api import LOOPBACK_HOSTS, is_loopback
from chatledger.http.fastapi import create_app
from chatledger.http.sign_in import SignIn, open_sign_in
from chatledger.models import Models, open_model
from chatledger.settings import Settings, read_settings
from chatledger.stores.contract import AsyncStore
from chatledger.stores.urls import open_async_store
from chatledger.windows import last

STORE_CHECK_SECONDS = 3
"""The seconds by which the check of the store may delay the start."""
SHUTDOWN_SECONDS = 3
"""The seconds that replies in progress may continue once the server is told to stop."""


def run_server(*, allow_unauthenticated: bool) -> None:
    """Run the server until a signal stops it.

    Raises ``ChatledgerError`` if it cannot start; the text says what is wrong.
    """
    settings = read_settings()
    sign_in = open_sign_in(settings)
    on_loopback = is_loopback(settings.host)
    if not (on_loopback or sign_in or allow_unauthenticated):
        raise InvalidArgument(
            f"CHATLEDGER_HOST is {settings.host!r}, which is not a loopback address, and without "
            "sign-in anyone who reaches the server can read every conversation. Use 127.0.0.1, "
            "turn on sign-in with CHATLEDGER_AUTH, or add --allow-unauthenticated."
        )
    with _open_listener(settings) as listener:
        asyncio.run(_serve(settings, listener, sign_in, on_loopback=on_loopback))


async def _serve(
    settings: Settings, listener: socket.socket, sign_in: SignIn | None, *, on_loopback: bool
) -> None:
    store = open_async_store(settings.store, expire_after=settings.expire_after)
    models = Models(
        [settings.model, *settings.models],
        open=partial(open_model, offline_pace=settings.offline_pace),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(store)
        await _check_store(store)
        stack.push_async_callback(models.close)
        chat = Chat(
            store,
            models.get(),
            window=last(settings.window),
            system_prompt=settings.system_prompt,
            lease=settings.lease,
            time_limit=settings.time_limit,
        )
        hosts = LOOPBACK_HOSTS | {settings.host.lower()} if on_loopback else None
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(
                    chat, models, hosts=hosts, sign_in=sign_in, allow_origin=settings.allow_origin
                ),
                log_level="warning",
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        # Uvicorn installs its own signal handlers only once it has started, and raises the signal
        # again after it has stopped. These handlers make an earlier signal stop it cleanly, and let
        # this function close the store after the signal is raised again.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
        typer.echo(f"Chatledger is running at {_url(settings.host, listener)} (Ctrl-C stops it)")
        await server.serve(sockets=[listener])
        # Turns that uvicorn cancelled still have to save the reply so far.
        cancelled = asyncio.all_tasks() - {asyncio.current_task()}
        if cancelled:
            await asyncio.wait(cancelled, timeout=SHUTDOWN_SECONDS)
        await chat.close()


async def _check_store(store: AsyncStore) -> None:
    """Raise ``InvalidArgument`` or ``StoreMismatch`` if the store is misconfigured.

    Clients would get no details of such an error. Errors that may be temporary are ignored here:
    each request that meets one reports it.
    """
    try:
        async with asyncio.timeout(STORE_CHECK_SECONDS):
            await store.get("health")
    except (InvalidArgument, StoreMismatch):
        raise
    except (ChatledgerError, TimeoutError):
        pass


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
        listener.listen(2048)
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
