"""Requests over boto3's client, which block."""

from collections.abc import Generator

from chatledger.models.bedrock.botocore_errors import RAISED, failure, not_made
from chatledger.models.bedrock.connection import Access, Client
from chatledger.models.bedrock.errors import translated
from chatledger.models.bedrock.replies import Event, events_of
from chatledger.models.bedrock.settings import Block


class Boto3Transport:
    """Sends requests to one model."""

    def __init__(self, access: Access, model_id: str, *, streaming: bool) -> None:
        self._access = access
        self._model_id = model_id
        self._streaming = streaming

    def events(self, body: Block) -> Generator[Event, None, None]:
        """The reply's events. Closing the generator closes the connection, as leaving it does."""
        client = self._client()
        try:
            if not self._streaming:
                yield from events_of(client.converse(modelId=self._model_id, **body))
                return
            stream = client.converse_stream(modelId=self._model_id, **body)["stream"]
            try:
                yield from stream
            finally:
                stream.close()
        except RAISED as error:
            raise translated(failure(error), self._model_id) from error

    def _client(self) -> Client:
        try:
            return self._access.client()
        except RAISED as error:
            raise translated(not_made(error), self._model_id) from error
