"""The server as tests use it: a context manager that runs an event loop in a thread of its own."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from chatledger.testing.bedrock_server.authentication import ACCESS_KEY, API_KEY, SECRET_KEY
from chatledger.testing.bedrock_server.models import KNOWN_MODELS, BedrockModel
from chatledger.testing.bedrock_server.offline import offline_response
from chatledger.testing.bedrock_server.request_handler import RequestHandler
from chatledger.testing.bedrock_server.requests import Request
from chatledger.testing.bedrock_server.script import Fails, Responder, ScriptedResponse
from chatledger.testing.bedrock_server.shapes import input_shape
from chatledger.testing.bedrock_server.tokens import PromptCache

if TYPE_CHECKING:
    from botocore.config import Config

REGION = "us-east-1"
BACKLOG = 2048
"""Connections that may wait to be accepted, for tests that open a thousand at once."""


class BedrockServer:
    """A fake of Amazon Bedrock Runtime, served at ``endpoint`` within the ``with`` block.

    It rejects a request that Bedrock would reject. Every other request receives the next response
    of the script or, when the script is empty, the one that ``responder`` returns.

    Args:
        pace: Seconds between the pieces of a reply that sets no ``pause`` of its own.
        responder: Chooses the response when the script is empty; Chatledger's offline model by
            default.
        models: All models that the server knows.
        application_profiles: Model ids by the ids of application inference profiles.
        secret_keys: Secret keys by access key; ``{ACCESS_KEY: SECRET_KEY}`` by default.
        api_keys: The API keys (bearer tokens) that it accepts.
        host: The address to listen on.
        port: The port to listen on; 0 for any free one.
    """

    def __init__(
        self,
        *,
        pace: float = 0.0,
        responder: Responder = offline_response,
        models: Sequence[BedrockModel] = KNOWN_MODELS,
        application_profiles: Mapping[str, str] | None = None,
        secret_keys: Mapping[str, str] | None = None,
        api_keys: Sequence[str] = (API_KEY,),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.endpoint = ""
        self.requests: list[Request] = []
        """All requests in the order of their arrival, including rejected ones."""
        self._responder = responder
        self._script: deque[ScriptedResponse] = deque()
        self._changed = Condition()
        self._host, self._port = host, port
        self._handler = RequestHandler(
            models=models,
            application_profiles=application_profiles or {},
            secret_keys={ACCESS_KEY: SECRET_KEY} if secret_keys is None else secret_keys,
            api_keys=frozenset(api_keys),
            respond=self._respond,
            on_request=self._record,
            on_end=self._notify,
            pace=pace,
        )
        self._clients: list[Any] = []
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that direct boto3 and other AWS clients to this server.

        They hold an access key, not an API key (``AWS_BEARER_TOKEN_BEDROCK``): boto3 prefers an
        API key if there is one, but sends it only over TLS.
        """
        access_key, secret_key = self._credentials()
        return {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.endpoint,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, config: "Config | None" = None) -> Any:
        """Return a boto3 client of this server, which is closed with the server.

        It signs its requests and ignores the account, profile and proxies of its environment.
        """
        import boto3
        from botocore.config import Config

        access_key, secret_key = self._credentials()
        own = Config(proxies={}, signature_version="v4")
        client = boto3.client(
            "bedrock-runtime",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=own.merge(config) if config else own,
        )
        self._clients.append(client)
        return client

    def script(self, *responses: ScriptedResponse) -> None:
        """Add responses to the end of the script; each is given to one request."""
        for response in responses:
            if isinstance(response, Fails):
                self._script.extend([replace(response, times=1)] * response.times)
            else:
                self._script.append(response)

    def reset(self) -> None:
        """Clear the script, the recorded requests and the prompt cache."""
        with self._changed:
            self._script.clear()
            self.requests.clear()
            self._handler.cache = PromptCache()

    def wait_for_requests(self, count: int = 1, *, timeout: float = 10.0) -> list[Request]:
        """Return all requests once ``count`` have arrived; raise ``TimeoutError`` otherwise."""
        self._wait(lambda: len(self.requests) >= count, f"{count} requests", timeout)
        return list(self.requests)

    def wait_for_abandoned_request(self, *, timeout: float = 10.0) -> Request:
        """Return the first abandoned request; raise ``TimeoutError`` if there is none in time."""

        def abandoned() -> list[Request]:
            return [request for request in self.requests if request.abandoned.is_set()]

        self._wait(lambda: bool(abandoned()), "an abandoned request", timeout)
        return abandoned()[0]

    def __enter__(self) -> Self:
        # Loading them takes a moment, during which the event loop would serve nobody.
        input_shape("Converse")
        input_shape("ConverseStream")
        ready: Future[int] = Future()
        self._thread = Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="bedrock-server", daemon=True
        )
        self._thread.start()
        self._port = ready.result()
        self.endpoint = f"http://{self._host}:{self._port}"
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._thread is None:
            return
        assert self._loop is not None
        assert self._stop is not None
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    async def _serve(self, ready: "Future[int]") -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._handler.is_closing = False
        runner = web.AppRunner(
            self._handler.application(),
            access_log=None,
            handler_cancellation=True,
            # Nobody waits for the responses any longer. Zero would mean no limit.
            shutdown_timeout=0.01,
        )
        try:
            await runner.setup()
            site = web.TCPSite(runner, self._host, self._port, backlog=BACKLOG)
            await site.start()
            ready.set_result(runner.addresses[0][1])
        except BaseException as error:
            await runner.cleanup()
            ready.set_exception(error)
            return
        await self._stop.wait()
        self._handler.is_closing = True
        await runner.cleanup()

    def _credentials(self) -> tuple[str, str]:
        return next(iter(self._handler.secret_keys.items()))

    def _respond(self, request: Request) -> ScriptedResponse:
        return self._script.popleft() if self._script else self._responder(request)

    def _record(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def _notify(self, request: Request) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], description: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition():
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"Waited {timeout} s in vain for {description}.")
