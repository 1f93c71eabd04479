"""Amazon Bedrock Runtime for tests: a server, on a free port, gone afterwards.

    with BedrockServer() as bedrock:
        bedrock.script(Says("Hello!"), Throttles(), BreaksOff(after=2))
        bedrock.client().converse_stream(modelId="amazon.nova-lite-v1:0", messages=[...])
        bedrock.requests[0].body

It speaks ``Converse`` and ``ConverseStream`` to real clients, over a socket and in the service's
own framing, and it is strict: it checks the signature, the model's id and every field of the
request, and refuses what Bedrock would refuse, mostly in the same words (``rules`` says of each
rule where it is documented, and where it is merely known). It cannot tell whether a model would
answer well: without a script it answers as Chatledger's offline model.

pytest knows the fixture ``bedrock_server`` once a ``conftest.py`` says
``pytest_plugins = ["chatledger.testing.bedrock_server"]``. By hand:
``python -m chatledger.testing.bedrock_server`` prints what to set in the environment, and serves
until Ctrl-C.

It needs aiohttp and boto3: ``pip install 'chatledger[async]'`` has both.
"""

from collections.abc import Iterator

from chatledger.testing.bedrock_server.answers import (
    Answer,
    Answering,
    BreaksOff,
    Corrupts,
    EndsEarly,
    Fails,
    FailsMidway,
    FallsSilent,
    Says,
    Throttles,
    Use,
    UsesTool,
)
from chatledger.testing.bedrock_server.authorizing import ACCESS_KEY, API_KEY, SECRET_KEY
from chatledger.testing.bedrock_server.models import KNOWN_MODELS, BedrockModel
from chatledger.testing.bedrock_server.offline import offline_answer
from chatledger.testing.bedrock_server.requests import Request
from chatledger.testing.bedrock_server.server import REGION, BedrockServer

__all__ = [
    "ACCESS_KEY",
    "API_KEY",
    "KNOWN_MODELS",
    "REGION",
    "SECRET_KEY",
    "Answer",
    "Answering",
    "BedrockModel",
    "BedrockServer",
    "BreaksOff",
    "Corrupts",
    "EndsEarly",
    "Fails",
    "FailsMidway",
    "FallsSilent",
    "Request",
    "Says",
    "Throttles",
    "Use",
    "UsesTool",
    "offline_answer",
]

try:
    import pytest
except ModuleNotFoundError:
    pass  # the context manager and the command do without
else:

    @pytest.fixture
    def bedrock_server() -> Iterator[BedrockServer]:
        """A server for this test alone, with an empty script; it starts in milliseconds."""
        with BedrockServer() as running:
            yield running
