"""The chatbot that the settings configure, as an ASGI application."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from fastapi import FastAPI

from chatledger.chat import Chat
from chatledger.errors import ChatledgerError, InvalidArgument, StoreMismatch
from chatledger.http.api import allowed_hosts, is_loopback
from chatledger.http.fastapi import create_app, finish_turns
from chatledger.http.limits import open_limits
from chatledger.http.logs import configure_logging
from chatledger.http.metrics import Metrics
from chatledger.http.sign_in import open_browser_sign_in, open_sign_in
from chatledger.models import Models, open_model
from chatledger.settings import Settings, read_settings
from chatledger.stores.contract import AsyncStore
from chatledger.stores.operations import OnCall, StoreCall
from chatledger.stores.urls import open_async_store

if TYPE_CHECKING:
    from chatledger.http.tracing import Tracing

STORE_CHECK_SECONDS = 3
"""The seconds by which the check of the store may delay the start."""


def create() -> FastAPI:
    """Return the application that the ``CHATLEDGER_*`` variables configure, for any ASGI server.

    Each worker process of a server calls it, as in ``uvicorn --factory chatledger.http.app:create
    --workers 4``. ``CHATLEDGER_HOST`` must say where the server listens.

    Raises:
        InvalidArgument: A setting is not valid, or others could reach the application without
            sign-in.
    """
    settings = read_settings()
    configure_logging(form=settings.log_format, level=settings.log_level)
    chatbot = Chatbot(settings)
    return chatbot.create_app(resources=chatbot)


class Chatbot(AbstractAsyncContextManager["Chatbot"]):
    """The store, the models and the chat that settings configure; enter it to open them.

    Raises:
        InvalidArgument: A setting is not valid, or others could reach the chatbot without sign-in.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sign_in = open_sign_in(settings)
        self._browser_sign_in = open_browser_sign_in(settings)
        _check_access(settings, has_sign_in=self._sign_in is not None)
        # Who reaches a server on loopback without sign-in can read every conversation anyway.
        has_proxy = bool(settings.public_hosts or settings.trusted_proxies)
        is_private = is_loopback(settings.host) and not has_proxy
        has_metrics = settings.metrics == "public" or (is_private and self._sign_in is None)
        self._metrics = Metrics() if has_metrics else None
        self._tracing = _open_tracing()
        listeners = [
            each.record_store_call for each in (self._metrics, self._tracing) if each is not None
        ]
        self._store = open_async_store(
            settings.store,
            expire_after=settings.expire_after,
            on_call=partial(_call_each, listeners) if listeners else None,
        )
        self._limits = open_limits(settings)
        self._models = Models(
            [settings.model, *settings.models],
            open=partial(
                open_model,
                offline_pace=settings.offline_pace,
                max_tokens=settings.max_tokens,
                base_url=settings.base_url,
                api_key=settings.model_api_key,
            ),
        )
        self.chat = Chat(
            self._store,
            self._models.get(),
            window=settings.chat_window,
            system_prompt=settings.system_prompt,
            lease=settings.lease,
            time_limit=settings.time_limit,
        )

    async def __aenter__(self) -> "Chatbot":
        """Open the store.

        Raises:
            InvalidArgument: The store is misconfigured.
            StoreMismatch: It is not one of Chatledger's, or of a later version.
        """
        await self._store.__aenter__()
        try:
            await _check_store(self._store)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for turns that are still being stored, and close the models and the store."""
        await finish_turns(self.chat, self._limits)
        await self._close()

    async def _close(self) -> None:
        try:
            await self._models.close()
        finally:
            await self._store.close()

    def create_app(
        self, *, resources: AbstractAsyncContextManager[object] | None = None
    ) -> FastAPI:
        """Return the application; ``resources`` as for ``create_app``."""
        settings, sign_in = self._settings, self._sign_in
        return create_app(
            self.chat,
            self._models,
            hosts=allowed_hosts(
                settings.host, public=settings.public_hosts, has_sign_in=sign_in is not None
            ),
            sign_in=sign_in,
            browser_sign_in=self._browser_sign_in,
            allow_origin=settings.allow_origin,
            allow_system_prompt=settings.allow_system_prompt,
            limits=self._limits,
            metrics=self._metrics,
            tracing=self._tracing,
            resources=resources,
        )


def _check_access(settings: Settings, *, has_sign_in: bool) -> None:
    """Raise ``InvalidArgument`` if others can reach the chatbot, and the operator did not mean it.

    Without sign-in, anyone who reaches it can read every conversation.
    """
    if has_sign_in or settings.allow_unauthenticated:
        return
    allow = "turn on sign-in with CHATLEDGER_AUTH, or set CHATLEDGER_ALLOW_UNAUTHENTICATED=true"
    if not is_loopback(settings.host):
        raise InvalidArgument(
            f"CHATLEDGER_HOST is {settings.host!r}, which is not a loopback address, and without "
            "sign-in anyone who reaches the server can read every conversation. Use 127.0.0.1, "
            f"{allow} (or add --allow-unauthenticated)."
        )
    for name in ("public_hosts", "trusted_proxies"):
        if getattr(settings, name):
            raise InvalidArgument(
                f"CHATLEDGER_{name.upper()} is set, so a proxy lets others reach the server, and "
                f"without sign-in they can read every conversation. Unset it, {allow}."
            )


def _open_tracing() -> "Tracing | None":
    try:
        from chatledger.http.tracing import open_tracing
    except ModuleNotFoundError:  # opentelemetry-api, which is optional
        return None
    return open_tracing()


def _call_each(listeners: Sequence[OnCall], call: StoreCall) -> None:
    for listener in listeners:
        listener(call)


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
