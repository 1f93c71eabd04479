"""Translating the exceptions of botocore and urllib3 into failures of a call."""

from botocore.eventstream import ParserError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    InvalidEndpointConfigurationError,
    NoRegionError,
    ParamValidationError,
    ProxyConnectionError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as BotocoreConnectionError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from chatledger.models.bedrock.error_messages import (
    BEARER_WITHOUT_TLS,
    CONNECTION_LOST,
    INVALID_ENDPOINT,
    INVALID_PARAMETERS,
    MALFORMED_REPLY,
    NO_CREDENTIALS,
    NO_REGION,
    NO_RESPONSE,
    UNREACHABLE,
)
from chatledger.models.bedrock.errors import Failure
from chatledger.models.headers import parse_retry_after

OPERATIONS = ("Converse", "ConverseStream")
CALL_ERRORS = (
    BotoCoreError,
    ClientError,
    ParserError,
    ResponseParserError,
    HTTPError,
    OSError,
    ValueError,
)
"""All exceptions of a call over boto3, including those of urllib3 while its stream is read."""

# The first entry that matches applies.
_CODES_BY_CLASS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((ReadTimeoutError, Urllib3TimeoutError), NO_RESPONSE),
    ((ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError), UNREACHABLE),
    (
        (HTTPClientError, IncompleteReadError, BotocoreConnectionError, HTTPError, OSError),
        CONNECTION_LOST,
    ),
    ((ParserError, ResponseParserError), MALFORMED_REPLY),
    ((NoRegionError,), NO_REGION),
    ((ParamValidationError,), INVALID_PARAMETERS),
    ((InvalidEndpointConfigurationError,), BEARER_WITHOUT_TLS),
    # All others are raised before a request is sent: a profile, a sign-in or a role is missing.
    ((BotoCoreError,), NO_CREDENTIALS),
    ((ValueError,), MALFORMED_REPLY),
)


def failure_from_botocore(error: Exception) -> Failure:
    """Return the failure of a call that raised one of ``CALL_ERRORS``."""
    if isinstance(error, ClientError):
        return _failure_from_client_error(error)
    return Failure(next(code for kinds, code in _CODES_BY_CLASS if isinstance(error, kinds)))


def setup_failure(error: Exception) -> Failure:
    """Return the failure of a call whose client could not be created."""
    if isinstance(error, ValueError):
        return Failure(INVALID_ENDPOINT)
    return failure_from_botocore(error)


def _failure_from_client_error(error: ClientError) -> Failure:
    metadata = error.response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    details = error.response.get("Error", {})
    if error.operation_name not in OPERATIONS and status < 500:
        return Failure(NO_CREDENTIALS)  # the service that issues credentials refused to
    return Failure(
        details.get("Code", ""),
        details.get("Message", ""),
        status,
        parse_retry_after(metadata.get("HTTPHeaders", {}).get("retry-after")),
    )
