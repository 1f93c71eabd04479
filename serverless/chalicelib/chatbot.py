"""The chatbot of this function, configured by the same ``CHATLEDGER_*`` as ``chatledger serve``.

Add hooks, tools or another window in ``open_chats``.
"""

import os
from functools import partial

from chalice.app import Chalice, CognitoUserPoolAuthorizer

from chatledger.chat import SyncChat
from chatledger.errors import InvalidArgument
from chatledger.http.api import allowed_hosts
from chatledger.http.chalice import TIME_LIMIT, ChatFactory, register
from chatledger.http.limits import open_limits
from chatledger.http.sign_in import open_browser_sign_in, open_sign_in
from chatledger.models import Models, open_model
from chatledger.settings import Settings, read_settings
from chatledger.stores.urls import open_store


def serve(app: Chalice) -> None:
    """Add the API's routes to ``app``; the store and the models open with the first request.

    Raises ``InvalidArgument`` if a setting is not valid, or if others can reach the function and
    the settings neither make them sign in nor say that nobody has to.
    """
    settings = read_settings()
    # On AWS, API Gateway answers only to its own host names.
    is_on_aws = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
    hosts = (
        None
        if is_on_aws
        else allowed_hosts(
            settings.host, public=settings.public_hosts, has_sign_in=settings.auth != "none"
        )
    )
    if hosts is None and settings.auth == "none" and not settings.allow_unauthenticated:
        raise InvalidArgument(
            "Without sign-in, anyone who knows the URL can read every conversation and use the "
            "model. Turn on sign-in with CHATLEDGER_AUTH in .chalice/config.json, or set "
            "CHATLEDGER_ALLOW_UNAUTHENTICATED=true."
        )
    models = open_models(settings)
    pool = settings.cognito_user_pool
    register(
        app,
        partial(open_chats, settings, models),
        models,
        hosts=hosts,
        sign_in=open_sign_in(settings),
        browser_sign_in=open_browser_sign_in(settings),
        authorizer=CognitoUserPoolAuthorizer("users", provider_arns=[pool]) if pool else None,
        allow_origin=settings.allow_origin,
        allow_system_prompt=settings.allow_system_prompt,
        time_limit=min(settings.time_limit or TIME_LIMIT, TIME_LIMIT),
        limits=open_limits(settings),
    )


def open_models(settings: Settings) -> Models:
    """Return the models that requests may name."""
    return Models(
        [settings.model, *settings.models],
        open=partial(
            open_model,
            offline_pace=settings.offline_pace,
            max_tokens=settings.max_tokens,
            base_url=settings.base_url,
            api_key=settings.model_api_key,
        ),
    )


def open_chats(settings: Settings, models: Models) -> ChatFactory:
    """Open the store and the default model; return a factory of chats with them."""
    return partial(
        SyncChat,
        open_store(settings.store, expire_after=settings.expire_after),
        models.get(),
        window=settings.chat_window,
        system_prompt=settings.system_prompt,
        lease=settings.lease,
    )
