"""Asking the server: with boto3, and around it, where boto3 would see to a mistake itself."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from chatledger.testing.bedrock_server import ACCESS_KEY, REGION, SECRET_KEY, BedrockServer

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
SONNET = "us.anthropic.claude-sonnet-4-20250514-v1:0"
OPUS = "global.anthropic.claude-opus-4-7"
MICRO = "amazon.nova-micro-v1:0"
ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=10)

HELLO = {"messages": [{"role": "user", "content": [{"text": "Hello, I am Ada."}]}]}


class Answered(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def code(self) -> str:
        """As clients are told to read it: without the address behind it."""
        return self.headers.get("x-amzn-errortype", "").split(":")[0]

    @property
    def body(self) -> Any:
        return json.loads(self.content)


def asks(
    server: BedrockServer,
    body: object = HELLO,
    *,
    model: str = SONNET,
    operation: str = "converse",
    headers: Mapping[str, str] | None = None,
) -> Answered:
    """Send ``body``, whatever it is, as boto3 would; signed unless ``headers`` authorize."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{server.endpoint}/model/{quote(model, safe='')}/{operation}"
    if headers is None:
        headers = signed(url, content)
    return sends(url, content, headers)


def signed(
    url: str,
    content: bytes,
    *,
    key: str = ACCESS_KEY,
    secret: str = SECRET_KEY,
    service: str = "bedrock",
) -> dict[str, str]:
    request = AWSRequest("POST", url, {"Content-Type": "application/json"}, content)
    SigV4Auth(Credentials(key, secret), service, REGION).add_auth(request)
    return dict(request.headers.items())


def sends(url: str, content: bytes, headers: Mapping[str, str], method: str = "POST") -> Answered:
    address = urlsplit(url)
    assert address.hostname
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=10)) as to:
        to.request(method, address.path, content, dict(headers))
        answer = to.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answered(answer.status, names, answer.read())


@contextmanager
def streams(client: Any, **arguments: Any) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of a reply, with the connection closed however it ends."""
    arguments = {"modelId": SONNET, **HELLO, **arguments}
    stream = client.converse_stream(**arguments)["stream"]
    with closing(stream):
        yield iter(stream)


def events(client: Any, **arguments: Any) -> list[dict[str, Any]]:
    with streams(client, **arguments) as stream:
        return list(stream)


def text(of: list[dict[str, Any]]) -> str:
    deltas = [event["contentBlockDelta"]["delta"] for event in of if "contentBlockDelta" in event]
    return "".join(delta.get("text", "") for delta in deltas)
