"""Signing in with Amazon Cognito: a user pool of moto's, and the tokens that it issues."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from tests.http.client import answer_of, connected, refused, said, shown
from tests.http.tokens import bearer, claims, key_server, rsa, token
from tests.serverless.aws import aws
from tests.serverless.chalice_local import ChaliceLocal
from tests.serverless.gateway import Gateway, deployed

REGION = "eu-west-1"
PASSWORD = "Correct-horse-1"


class Pool(NamedTuple):
    """A user pool with one app, whose users have all the same password."""

    client: Any
    id: str
    arn: str
    app: str
    address: str

    def tokens(self, user: str) -> dict[str, str]:
        """What a new user gets who signs in."""
        self.client.admin_create_user(UserPoolId=self.id, Username=user, MessageAction="SUPPRESS")
        self.client.admin_set_user_password(
            UserPoolId=self.id, Username=user, Password=PASSWORD, Permanent=True
        )
        answer = self.client.initiate_auth(
            ClientId=self.app,
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": user, "PASSWORD": PASSWORD},
        )
        found: dict[str, str] = answer["AuthenticationResult"]
        return found

    @property
    def settings(self) -> dict[str, str]:
        return {
            "CHATLEDGER_AUTH": "jwt",
            "CHATLEDGER_COGNITO_USER_POOL": self.arn,
            "CHATLEDGER_JWT_AUDIENCE": self.app,
            # On AWS it is found at the pool's own address.
            "CHATLEDGER_JWT_JWKS_URL": f"{self.address}/{self.id}/.well-known/jwks.json",
        }


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with aws() as url:
        client = boto3.client(
            "cognito-idp",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id="chatledger",
            aws_secret_access_key="chatledger",
        )
        made = client.create_user_pool(PoolName="chatledger")["UserPool"]
        app = client.create_user_pool_client(
            UserPoolId=made["Id"],
            ClientName="chat",
            ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
        )["UserPoolClient"]
        yield Pool(client, made["Id"], made["Arn"], app["ClientId"], url)
        client.close()


@pytest.mark.parametrize("kind", ["IdToken", "AccessToken"])
def test_a_user_of_the_pool_signs_in(pool: Pool, kind: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'r.db'}"
    with (
        deployed(CHATLEDGER_STORE=store, CHATLEDGER_OFFLINE_PACE="0", **pool.settings) as make,
        Gateway(make).client() as client,
    ):
        refused(client.get("/conversations"), 401)
        bob, eve = (pool.tokens(f"{user}-{kind}")[kind] for user in ("bob", "eve"))
        client.headers["Authorization"] = bearer(bob)
        place = said(client, "Hi, I am Bob")["conversation_id"]
        assert "Bob" in said(client, "What is my name?", conversation_id=place)["response"]
        client.headers["Authorization"] = bearer(eve)
        refused(client.get(f"/conversations/{place}"), 404)


def test_a_token_for_another_app_of_the_pool_signs_nobody_in(pool: Pool, tmp_path: Path) -> None:
    settings = pool.settings | {"CHATLEDGER_JWT_AUDIENCE": "another"}
    store = f"sqlite:///{tmp_path / 'r.db'}"
    issued = pool.tokens("mallory")
    with deployed(CHATLEDGER_STORE=store, **settings) as make, Gateway(make).client() as client:
        for kind in ("IdToken", "AccessToken"):
            client.headers["Authorization"] = bearer(issued[kind])
            refused(client.get("/conversations"), 401)


def test_each_token_is_checked_under_chalice_local_too(pool: Pool, tmp_path: Path) -> None:
    """Chalice itself reads the claims of a token there without asking who has signed it."""
    with key_server() as issuer:
        settings = issuer.settings | {"CHATLEDGER_COGNITO_USER_POOL": pool.arn}
        del settings["CHATLEDGER_JWT_ISSUER"]  # which is the pool
        name = f"https://cognito-idp.{REGION}.amazonaws.com/{pool.id}"

        def issued(user: str, **changed: Any) -> dict[str, Any]:
            return claims(user, iss=name, **changed)

        server = ChaliceLocal(tmp_path, CHATLEDGER_OFFLINE_PACE="0", **settings)
        server.start()
        try:
            with connected(server.url) as client:
                answer_of(client.get("/health"))
                refused(client.get("/conversations"), 401)
                for wrong in (
                    token(issued("alice"), key=rsa("of somebody else")),
                    token(issued("alice", exp=1)),
                ):
                    client.headers["Authorization"] = bearer(wrong)
                    refused(client.get("/conversations"), 401)
                client.headers["Authorization"] = bearer(token(issued("alice")))
                place = said(client, "Hi")["conversation_id"]
                assert shown(client, place)["user_id"] == "alice"
                client.headers["Authorization"] = bearer(token(issued("eve")))
                refused(client.get(f"/conversations/{place}"), 404)
        finally:
            server.kill()
