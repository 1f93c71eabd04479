"""The problems of requests to which AWS sent no reply, or none that can be used."""

from enum import StrEnum

from botocore.eventstream import ParserError
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
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


class Problem(StrEnum):
    """The reason why there is no reply from the service, or none that can be used."""

    UNREACHABLE = "Unreachable"
    """There was no connection, so the request was not sent."""
    NO_RESPONSE = "NoResponse"
    CONNECTION_LOST = "ConnectionLost"
    MALFORMED_REPLY = "MalformedReply"
    NO_CREDENTIALS = "NoCredentials"
    NO_REGION = "NoRegion"
    INVALID_PARAMETERS = "ParamValidation"
    BEARER_WITHOUT_TLS = "BearerWithoutTLS"


CONNECTION_PROBLEMS = frozenset(
    {Problem.UNREACHABLE, Problem.NO_RESPONSE, Problem.CONNECTION_LOST, Problem.MALFORMED_REPLY}
)
"""The problems that may be gone in another attempt."""

REQUEST_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
"""The errors that a request raises, over boto3 or ``chatledger.aws.http``."""
STREAM_ERRORS = (*REQUEST_ERRORS, ParserError, HTTPError, OSError, ValueError)
"""The errors of a request whose reply is a stream; boto3 passes urllib3's errors on unchanged."""

# The first entry that matches applies.
_PROBLEMS: tuple[tuple[tuple[type[Exception], ...], Problem], ...] = (
    ((ReadTimeoutError, Urllib3TimeoutError), Problem.NO_RESPONSE),
    ((ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError), Problem.UNREACHABLE),
    (
        (HTTPClientError, IncompleteReadError, BotocoreConnectionError, HTTPError, OSError),
        Problem.CONNECTION_LOST,
    ),
    ((ChecksumError, ParserError, ResponseParserError), Problem.MALFORMED_REPLY),
    ((NoRegionError,), Problem.NO_REGION),
    ((ParamValidationError,), Problem.INVALID_PARAMETERS),
    ((InvalidEndpointConfigurationError,), Problem.BEARER_WITHOUT_TLS),
    # All others are raised before a request is sent: a profile, a sign-in or a role is missing.
    ((BotoCoreError,), Problem.NO_CREDENTIALS),
)


def problem_of(error: Exception) -> Problem:
    """Return the problem for which one of ``STREAM_ERRORS`` was raised.

    A ``ClientError`` must be that of a service that issues credentials.
    """
    if isinstance(error, ClientError):
        metadata = error.response.get("ResponseMetadata", {})
        is_down = metadata.get("HTTPStatusCode", 0) >= 500 or metadata.get("RetryAttempts", 0) > 0
        return Problem.UNREACHABLE if is_down else Problem.NO_CREDENTIALS
    matching = (problem for classes, problem in _PROBLEMS if isinstance(error, classes))
    return next(matching, Problem.MALFORMED_REPLY)
