"""HTTP and boto3 clients of the server; plain HTTP for mistakes that boto3 would not send."""

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


class HttpResponse(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def code(self) -> str:
        """The error code without the URI that follows it, which clients are told to ignore."""
        return self.headers.get("x-amzn-errortype", "").split(":")[0]

    @property
    def body(self) -> Any:
        return json.loads(self.content)


def send(
    server: BedrockServer,
    body: object = HELLO,
    *,
    model: str = SONNET,
    operation: str = "converse",
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Send any ``body`` as boto3 would, and sign it unless ``headers`` are given."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{server.endpoint}/model/{quote(model, safe='')}/{operation}"
    if headers is None:
        headers = signed_headers(url, content)
    return http_post(url, content, headers)


def signed_headers(
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


def http_post(
    url: str, content: bytes, headers: Mapping[str, str], method: str = "POST"
) -> HttpResponse:
    address = urlsplit(url)
    assert address.hostname
    with closing(
        http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    ) as connection:
        connection.request(method, address.path, content, dict(headers))
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return HttpResponse(response.status, names, response.read())


@contextmanager
def open_stream(client: Any, **arguments: Any) -> Iterator[Iterator[dict[str, Any]]]:
    """Yield the events of a reply, and close the connection afterwards."""
    arguments = {"modelId": SONNET, **HELLO, **arguments}
    stream = client.converse_stream(**arguments)["stream"]
    with closing(stream):
        yield iter(stream)


def events(client: Any, **arguments: Any) -> list[dict[str, Any]]:
    with open_stream(client, **arguments) as stream:
        return list(stream)


def reply_text(events: list[dict[str, Any]]) -> str:
    deltas = [
        event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event
    ]
    return "".join(delta.get("text", "") for delta in deltas)
