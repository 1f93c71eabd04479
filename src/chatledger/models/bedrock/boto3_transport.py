"""Blocking requests to Bedrock over boto3, which also finds the endpoint."""

from collections.abc import Generator
from threading import Lock
from typing import Any
from urllib.parse import quote

from botocore.exceptions import NoCredentialsError

from chatledger.aws.errors import REQUEST_ERRORS, STREAM_ERRORS
from chatledger.aws.session import (
    Endpoint,
    InvalidCABundle,
    Session,
    bearer_token,
    boto3_session,
    find_endpoint,
    make_service_client,
)
from chatledger.errors import ModelRefused
from chatledger.extras import keep_messages_out_of_logs
from chatledger.models.bedrock.content import ConverseObject
from chatledger.models.bedrock.errors import model_error
from chatledger.models.bedrock.replies import Event, events_from_converse

POOL_SIZE = 256
"""The number of idle connections that are kept open for later requests."""


class Boto3Transport:
    """Sends blocking requests to one model. Threads may share it."""

    def __init__(
        self,
        session: Session | None,
        model_id: str,
        *,
        region: str | None,
        endpoint: str | None,
        streaming: bool,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        keep_messages_out_of_logs("botocore")
        self._session: Any = session
        self._model_id = model_id
        self._region = region
        self._endpoint = endpoint
        self._streaming = streaming
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._lock = Lock()
        self._client: Any = None

    def events(self, body: ConverseObject) -> Generator[Event, None, None]:
        """Yield the events of the reply, and close the stream at its end or with the generator."""
        client = self._connected_client()
        try:
            if not self._streaming:
                response = client.converse(modelId=self._model_id, **body)
                yield from events_from_converse(response)
                return
            stream = client.converse_stream(modelId=self._model_id, **body)["stream"]
            try:
                yield from stream
            finally:
                stream.close()
        except STREAM_ERRORS as error:
            raise model_error(error, self._model_id) from error

    def endpoint(self) -> Endpoint:
        """Return the endpoint to which other clients may send the same requests."""
        client = self._connected_client()
        operation = "converse-stream" if self._streaming else "converse"
        path = f"/model/{quote(self._model_id, safe='')}/{operation}"
        try:
            return find_endpoint(self._session, client, path=path)
        except InvalidCABundle as error:
            raise ModelRefused(str(error)) from error
        except REQUEST_ERRORS as error:
            raise model_error(error, self._model_id) from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _connected_client(self) -> Any:
        """Return the boto3 client, which the first call creates."""
        with self._lock:
            if self._client is None:
                try:
                    self._client = self._make_client()
                except ValueError as error:
                    raise ModelRefused(
                        f"The region or the endpoint to call {self._model_id} at is not valid; "
                        "an endpoint is a URL, such as https://host."
                    ) from error
                except REQUEST_ERRORS as error:
                    raise model_error(error, self._model_id) from error
            return self._client

    def _make_client(self) -> Any:
        session = self._session = boto3_session(self._session)
        client = make_service_client(
            session,
            "bedrock-runtime",
            region=self._region,
            endpoint=self._endpoint,
            connect_timeout=self._connect_timeout,
            read_timeout=self._timeout,
            pool_size=POOL_SIZE,
        )
        if session.get_credentials() is None and bearer_token("bedrock") is None:
            # A client that was created without credentials never gets any, even if a role
            # provides some later, so do not keep it.
            raise NoCredentialsError
        return client
