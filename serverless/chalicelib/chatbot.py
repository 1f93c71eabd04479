"""The chatbot of this function, configured by the same ``CHATLEDGER_*`` as ``chatledger serve``.

Add hooks, tools or another window in ``open_chats``.
"""

from functools import partial

from chalice.app import Chalice, CognitoUserPoolAuthorizer

from chatledger.chat import SyncChat
from chatledger.http.chalice import TIME_LIMIT, ChatFactory, register
from chatledger.http.sign_in import open_sign_in
from chatledger.models import Models, open_model
from chatledger.settings import Settings, read_settings
from chatledger.stores.urls import open_store
from chatledger.windows import last


def serve(app: Chalice) -> None:
    """Add the API's routes to ``app``; the store and the models open with the first request."""
    settings = read_settings()
    models = open_models(settings)
    pool = settings.cognito_user_pool
    register(
        app,
        partial(open_chats, settings, models),
        models,
        sign_in=open_sign_in(settings),
        authorizer=CognitoUserPoolAuthorizer("users", provider_arns=[pool]) if pool else None,
        allow_origin=settings.allow_origin,
        time_limit=settings.time_limit or TIME_LIMIT,
    )


def open_models(settings: Settings) -> Models:
    """Return the models that requests may name."""
    return Models(
        [settings.model, *settings.models],
        open=partial(open_model, offline_pace=settings.offline_pace),
    )


def open_chats(settings: Settings, models: Models) -> ChatFactory:
    """Open the store and the default model; return a factory of chats with them."""
    return partial(
        SyncChat,
        open_store(settings.store, expire_after=settings.expire_after),
        models.get(),
        window=last(settings.window),
        system_prompt=settings.system_prompt,
        lease=settings.lease,
    )
