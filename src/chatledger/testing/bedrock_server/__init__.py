"""A fake of Amazon Bedrock Runtime for tests: a real HTTP server on a free port.

    with BedrockServer() as bedrock:
        bedrock.script(Says("Hello!"), Throttles(), DropsConnection(after=2))
        bedrock.client().converse_stream(modelId="amazon.nova-lite-v1:0", messages=[...])
        bedrock.requests[0].body

It serves ``Converse`` and ``ConverseStream`` to real clients, over a socket and in the service's
own event-stream encoding, and it is strict: it checks the signature, the model id and every field
of the request, and rejects what Bedrock would reject, mostly in the same words. Each rule in
``rules`` links to the page that documents it, or says that it has only been observed. The server
cannot tell whether a model would answer well: without a script it answers as Chatledger's offline
model.

pytest has the fixture ``chatledger_bedrock``, to which the environment leads every AWS client. With
``pytest_plugins = ["chatledger.testing.bedrock_server"]`` in a ``conftest.py`` there is also
``bedrock_server``, which leaves the environment as it is. From a shell,
``python -m chatledger.testing.bedrock_server`` prints the environment variables to set and serves
until Ctrl-C.

It needs aiohttp and boto3, the packages of the extra ``bedrock``.
"""

from collections.abc import Iterator

from chatledger.testing.bedrock_server.authentication import ACCESS_KEY, API_KEY, SECRET_KEY
from chatledger.testing.bedrock_server.models import KNOWN_MODELS, BedrockModel
from chatledger.testing.bedrock_server.offline import offline_response
from chatledger.testing.bedrock_server.requests import Request
from chatledger.testing.bedrock_server.script import (
    CorruptsFrame,
    DropsConnection,
    EndsEarly,
    Fails,
    FailsMidStream,
    Responder,
    Says,
    ScriptedResponse,
    Stalls,
    Throttles,
    ToolUse,
    UsesTool,
)
from chatledger.testing.bedrock_server.server import REGION, BedrockServer

__all__ = [
    "ACCESS_KEY",
    "API_KEY",
    "KNOWN_MODELS",
    "REGION",
    "SECRET_KEY",
    "BedrockModel",
    "BedrockServer",
    "CorruptsFrame",
    "DropsConnection",
    "EndsEarly",
    "Fails",
    "FailsMidStream",
    "Request",
    "Responder",
    "Says",
    "ScriptedResponse",
    "Stalls",
    "Throttles",
    "ToolUse",
    "UsesTool",
    "offline_response",
]

try:
    import pytest
except ModuleNotFoundError:
    pass  # the context manager and the command work without pytest
else:

    @pytest.fixture
    def bedrock_server() -> Iterator[BedrockServer]:
        """A server for one test, with an empty script; it starts in milliseconds."""
        with BedrockServer() as running:
            yield running
