"""The application mounted below another one, which has middleware of its own."""

from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from chatledger.chat import Chat
from chatledger.http.fastapi import create_app
from chatledger.models import Models
from chatledger.stores.sqlite import AsyncSQLiteStore

pytestmark = pytest.mark.anyio


class EverybodyIsAnn(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:
        return AuthCredentials(["authenticated"]), SimpleUser("ann")


async def test_the_users_of_an_outer_application_are_not_taken_for_those_of_the_chatbot(
    tmp_path: Path,
) -> None:
    models = Models(["offline"])
    async with AsyncSQLiteStore(tmp_path / "chatledger.db") as store:
        app = Starlette(
            routes=[Mount("/bot", create_app(Chat(store, models.get(None)), models))],
            middleware=[Middleware(AuthenticationMiddleware, EverybodyIsAnn())],
        )
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = {"user_id": "bob", "message": "Hello"}
            assert (await client.post("/bot/chat", json=body)).status_code == 200
            listed = await client.get("/bot/conversations", params={"user_id": "bob"})
            assert len(listed.json()["conversations"]) == 1
