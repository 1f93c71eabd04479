"""Blocking requests to Bedrock over boto3."""

from collections.abc import Generator

from chatledger.models.bedrock.botocore_errors import (
    CALL_ERRORS,
    failure_from_botocore,
    setup_failure,
)
from chatledger.models.bedrock.connection import BedrockRuntimeClient, Connector
from chatledger.models.bedrock.errors import error_from_failure
from chatledger.models.bedrock.replies import Event, events_from_converse
from chatledger.models.bedrock.settings import ConverseObject


class Boto3Transport:
    """Sends blocking requests to one model."""

    def __init__(self, connector: Connector, model_id: str, *, streaming: bool) -> None:
        self._connector = connector
        self._model_id = model_id
        self._streaming = streaming

    def events(self, body: ConverseObject) -> Generator[Event, None, None]:
        """Yield the events of the reply, and close the stream at its end or with the generator."""
        client = self._client()
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
        except CALL_ERRORS as error:
            raise error_from_failure(failure_from_botocore(error), self._model_id) from error

    def _client(self) -> BedrockRuntimeClient:
        try:
            return self._connector.client()
        except CALL_ERRORS as error:
            raise error_from_failure(setup_failure(error), self._model_id) from error
