"""Sign-in with Amazon Cognito: a simulated user pool and the tokens that it issues."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from tests.http.client import (
    expect_error,
    open_client,
    read_conversation,
    send_message,
    success_body,
)
from tests.http.tokens import bearer, claims, key_server, rsa_key, token
from tests.serverless.chalice_local import ChaliceLocal
from tests.serverless.gateway import Gateway, app_factory
from tests.serverless.moto_server import simulated_aws

REGION = "eu-west-1"
PASSWORD = "Correct-horse-1"


class Pool(NamedTuple):
    """A user pool with one app client; all users have the same password."""

    client: Any
    id: str
    arn: str
    app: str
    address: str

    def tokens(self, user: str) -> dict[str, str]:
        """Create a user, sign in, and return the user's tokens by kind."""
        self.client.admin_create_user(UserPoolId=self.id, Username=user, MessageAction="SUPPRESS")
        self.client.admin_set_user_password(
            UserPoolId=self.id, Username=user, Password=PASSWORD, Permanent=True
        )
        response = self.client.initiate_auth(
            ClientId=self.app,
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": user, "PASSWORD": PASSWORD},
        )
        result: dict[str, str] = response["AuthenticationResult"]
        return result

    @property
    def settings(self) -> dict[str, str]:
        return {
            "CHATLEDGER_AUTH": "jwt",
            "CHATLEDGER_COGNITO_USER_POOL": self.arn,
            "CHATLEDGER_JWT_AUDIENCE": self.app,
            # On AWS the default is the pool's own address.
            "CHATLEDGER_JWT_JWKS_URL": f"{self.address}/{self.id}/.well-known/jwks.json",
        }


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with simulated_aws() as url:
        client = boto3.client(
            "cognito-idp",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id="chatledger",
            aws_secret_access_key="chatledger",
        )
        pool = client.create_user_pool(PoolName="chatledger")["UserPool"]
        app = client.create_user_pool_client(
            UserPoolId=pool["Id"],
            ClientName="chat",
            ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
        )["UserPoolClient"]
        yield Pool(client, pool["Id"], pool["Arn"], app["ClientId"], url)
        client.close()


@pytest.mark.parametrize("kind", ["IdToken", "AccessToken"])
def test_a_user_of_the_pool_signs_in(pool: Pool, kind: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'r.db'}"
    with (
        app_factory(
            CHATLEDGER_STORE=store, CHATLEDGER_OFFLINE_PACE="0", **pool.settings
        ) as new_app,
        Gateway(new_app).client() as client,
    ):
        expect_error(client.get("/conversations"), 401)
        bob, eve = (pool.tokens(f"{user}-{kind}")[kind] for user in ("bob", "eve"))
        client.headers["Authorization"] = bearer(bob)
        conversation_id = send_message(client, "Hi, I am Bob")["conversation_id"]
        assert (
            "Bob"
            in send_message(client, "What is my name?", conversation_id=conversation_id)["response"]
        )
        client.headers["Authorization"] = bearer(eve)
        expect_error(client.get(f"/conversations/{conversation_id}"), 404)


def test_a_token_for_another_app_of_the_pool_is_rejected(pool: Pool, tmp_path: Path) -> None:
    settings = pool.settings | {"CHATLEDGER_JWT_AUDIENCE": "another"}
    store = f"sqlite:///{tmp_path / 'r.db'}"
    issued = pool.tokens("mallory")
    with (
        app_factory(CHATLEDGER_STORE=store, **settings) as new_app,
        Gateway(new_app).client() as client,
    ):
        for kind in ("IdToken", "AccessToken"):
            client.headers["Authorization"] = bearer(issued[kind])
            expect_error(client.get("/conversations"), 401)


def test_chalice_local_checks_tokens_too(pool: Pool, tmp_path: Path) -> None:
    """Chalice's own local authorizer reads a token's claims without checking its signature."""
    with key_server() as issuer:
        settings = issuer.settings | {"CHATLEDGER_COGNITO_USER_POOL": pool.arn}
        del settings["CHATLEDGER_JWT_ISSUER"]  # which is the pool
        name = f"https://cognito-idp.{REGION}.amazonaws.com/{pool.id}"

        def issued(user: str, **changed: Any) -> dict[str, Any]:
            return claims(user, iss=name, **changed)

        server = ChaliceLocal(tmp_path, CHATLEDGER_OFFLINE_PACE="0", **settings)
        server.start()
        try:
            with open_client(server.url) as client:
                success_body(client.get("/health"))
                expect_error(client.get("/conversations"), 401)
                for wrong in (
                    token(issued("alice"), key=rsa_key("of somebody else")),
                    token(issued("alice", exp=1)),
                ):
                    client.headers["Authorization"] = bearer(wrong)
                    expect_error(client.get("/conversations"), 401)
                client.headers["Authorization"] = bearer(token(issued("alice")))
                conversation_id = send_message(client, "Hi")["conversation_id"]
                assert read_conversation(client, conversation_id)["user_id"] == "alice"
                client.headers["Authorization"] = bearer(token(issued("eve")))
                expect_error(client.get(f"/conversations/{conversation_id}"), 404)
        finally:
            server.kill()
