"""The chatbot on AWS Lambda: what ``recollect serve`` reads from ``RECOLLECT_*`` holds here too."""

from functools import partial

from chalice.app import Chalice, CognitoUserPoolAuthorizer

from recollect.chat import SyncChat
from recollect.http.chalice import TIME_LIMIT, Chats, register
from recollect.http.opening import open_sign_in
from recollect.models import Models, open_model
from recollect.settings import read_settings
from recollect.stores.urls import open_store
from recollect.windows import last

settings = read_settings()
models = Models(
    [settings.model, *settings.models],
    open=partial(open_model, offline_pace=settings.offline_pace),
)
# Chalice would set up the logger of that name, which is ours too, and silence its warnings.
app = Chalice(app_name="recollect", configure_logs=False)


def open_chats() -> Chats:
    return partial(
        SyncChat,
        open_store(settings.store, expire_after=settings.expire_after),
        models.get(),
        window=last(settings.window),
        system_prompt=settings.system_prompt,
        lease=settings.lease,
    )


pool = settings.cognito_user_pool
register(
    app,
    open_chats,
    models,
    sign_in=open_sign_in(settings),
    authorizer=CognitoUserPoolAuthorizer("users", provider_arns=[pool]) if pool else None,
    allow_origin=settings.allow_origin,
    time_limit=settings.time_limit or TIME_LIMIT,
)
