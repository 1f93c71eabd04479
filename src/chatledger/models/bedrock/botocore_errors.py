"""What botocore raises, as failures."""

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
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as StreamTimeout

from chatledger.models.bedrock.error_messages import (
    BROKEN_OFF,
    GARBLED,
    NO_BEARER,
    NO_CREDENTIALS,
    NO_REGION,
    NOT_SENT,
    SILENT,
    UNREACHABLE,
    WRONG_ADDRESS,
)
from chatledger.models.bedrock.errors import Failure
from chatledger.models.headers import retry_after

OPERATIONS = ("Converse", "ConverseStream")
RAISED = (
    BotoCoreError,
    ClientError,
    ParserError,
    ResponseParserError,
    HTTPError,
    OSError,
    ValueError,
)
"""All that a call over boto3 raises on its way: a stream's reads raise urllib3's own."""

_KINDS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((ReadTimeoutError, StreamTimeout), SILENT),
    ((ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError), UNREACHABLE),
    ((HTTPClientError, IncompleteReadError, NoConnection, HTTPError, OSError), BROKEN_OFF),
    ((ParserError, ResponseParserError), GARBLED),
    ((NoRegionError,), NO_REGION),
    ((ParamValidationError,), NOT_SENT),
    ((InvalidEndpointConfigurationError,), NO_BEARER),
    # What is left arises before anything is sent: a profile, a sign-in or a role that is missing.
    ((BotoCoreError,), NO_CREDENTIALS),
    ((ValueError,), GARBLED),
)


def failure(error: Exception) -> Failure:
    if isinstance(error, ClientError):
        return _answered(error)
    return Failure(next(code for kinds, code in _KINDS if isinstance(error, kinds)))


def not_made(error: Exception) -> Failure:
    """Of a client that could not be made."""
    if isinstance(error, ValueError):
        return Failure(WRONG_ADDRESS)
    return failure(error)


def _answered(error: ClientError) -> Failure:
    about = error.response.get("ResponseMetadata", {})
    status = about.get("HTTPStatusCode", 0)
    answer = error.response.get("Error", {})
    if error.operation_name not in OPERATIONS and status < 500:
        return Failure(NO_CREDENTIALS)  # it is the service that gives out credentials that refused
    return Failure(
        answer.get("Code", ""),
        answer.get("Message", ""),
        status,
        retry_after(about.get("HTTPHeaders", {}).get("retry-after")),
    )
