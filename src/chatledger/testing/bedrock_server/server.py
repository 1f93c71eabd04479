"""The server as tests use it: a context manager with a thread and an event loop of its own."""

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

from chatledger.testing.bedrock_server.answers import Answer, Answering, Fails
from chatledger.testing.bedrock_server.authorizing import ACCESS_KEY, API_KEY, SECRET_KEY
from chatledger.testing.bedrock_server.counting import PromptCache
from chatledger.testing.bedrock_server.models import KNOWN_MODELS, BedrockModel
from chatledger.testing.bedrock_server.offline import offline_answer
from chatledger.testing.bedrock_server.requests import Request
from chatledger.testing.bedrock_server.serving import Service
from chatledger.testing.bedrock_server.shapes import input_shape

if TYPE_CHECKING:
    from botocore.config import Config

REGION = "us-east-1"
BACKLOG = 2048
"""Connections that may wait to be accepted, for tests that open a thousand at once."""


class BedrockServer:
    """A context manager: within it, ``endpoint`` answers as Amazon Bedrock Runtime does.

    A request that Bedrock would refuse is refused. Every other one takes the next answer of the
    script, or, once that is empty, what ``answering`` says: by default what Chatledger's offline
    model does. ``pace`` is seconds between the pieces of a reply that says nothing of its own.

    ``models`` are all that it knows, ``applications`` the models' ids by the ids of application
    inference profiles, ``secrets`` the secret keys by access keys, ``api_keys`` the bearer tokens.
    """

    def __init__(
        self,
        *,
        pace: float = 0.0,
        answering: Answering = offline_answer,
        models: Sequence[BedrockModel] = KNOWN_MODELS,
        applications: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        api_keys: Sequence[str] = (API_KEY,),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.endpoint = ""
        self.requests: list[Request] = []
        """What was asked, in the order in which it came, with what was refused."""
        self._answering = answering
        self._script: deque[Answer] = deque()
        self._changed = Condition()
        self._host, self._port = host, port
        self._service = Service(
            models=models,
            applications=applications or {},
            secrets={ACCESS_KEY: SECRET_KEY} if secrets is None else secrets,
            api_keys=frozenset(api_keys),
            answer=self._answer,
            arrived=self._arrived,
            left=self._left,
            pace=pace,
        )
        self._clients: list[Any] = []
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which boto3, and whatever else goes by AWS's names, comes here.

        They are an access key's: boto3 sends an API key (``AWS_BEARER_TOKEN_BEDROCK``) over TLS
        alone, and does so before it looks for an access key.
        """
        access_key, secret_key = self._credentials()
        return {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.endpoint,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, config: "Config | None" = None) -> Any:
        """A boto3 client for it that signs; no account, profile, proxy or setting is looked at.

        It is closed with the server.
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

    def script(self, *answers: Answer) -> None:
        """Answer the next requests so, one after the other, behind what is scripted already."""
        for answer in answers:
            if isinstance(answer, Fails):
                self._script.extend([replace(answer, times=1)] * answer.times)
            else:
                self._script.append(answer)

    def reset(self) -> None:
        """Forget the script, the requests and what is cached of prompts."""
        with self._changed:
            self._script.clear()
            self.requests.clear()
            self._service.cache = PromptCache()

    def wait_requests(self, count: int = 1, *, timeout: float = 10.0) -> list[Request]:
        """The requests, once there are so many; raises ``TimeoutError``."""
        self._wait(lambda: len(self.requests) >= count, f"{count} requests", timeout)
        return list(self.requests)

    def wait_abandoned(self, *, timeout: float = 10.0) -> Request:
        """The first request whose client went away; raises ``TimeoutError`` if none does."""

        def abandoned() -> list[Request]:
            return [request for request in self.requests if request.abandoned.is_set()]

        self._wait(lambda: bool(abandoned()), "an abandoned request", timeout)
        return abandoned()[0]

    def __enter__(self) -> Self:
        # Read now, as it takes a moment in which no request would be answered.
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
        assert self._end is not None
        with suppress(RuntimeError):  # it ended already
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._thread = None

    async def _serve(self, ready: "Future[int]") -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._service.closing = False
        runner = web.AppRunner(
            self._service.application(),
            access_log=None,
            handler_cancellation=True,
            # Nobody waits for the answers any more. Zero would mean: for as long as it takes.
            shutdown_timeout=0.01,
        )
        try:
            await runner.setup()
            site = web.TCPSite(runner, self._host, self._port, backlog=BACKLOG)
            await site.start()
            ready.set_result(runner.addresses[0][1])
        except BaseException as failed:
            await runner.cleanup()
            ready.set_exception(failed)
            return
        await self._end.wait()
        self._service.closing = True
        await runner.cleanup()

    def _credentials(self) -> tuple[str, str]:
        return next(iter(self._service.secrets.items()))

    def _answer(self, request: Request) -> Answer:
        return self._script.popleft() if self._script else self._answering(request)

    def _arrived(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def _left(self, request: Request) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        end = time.monotonic() + timeout
        with self._changed:
            while not condition():
                if not self._changed.wait(end - time.monotonic()):
                    raise TimeoutError(f"There was not {what} within {timeout} s.")
