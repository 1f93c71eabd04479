"""Errors that the server responds with: an HTTP status, a code and a message."""

VALIDATION = "ValidationException"

HTTP_STATUSES = {
    "AccessDeniedException": 403,
    "ExpiredTokenException": 403,
    "IncompleteSignatureException": 400,
    "InternalServerException": 500,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ModelTimeoutException": 408,
    "RequestEntityTooLargeException": 413,
    "ResourceNotFoundException": 404,
    "SerializationException": 400,
    "ServiceQuotaExceededException": 400,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
    "UnsupportedMediaTypeException": 415,
    VALIDATION: 400,
}
"""The HTTP status of each code: Converse's own, and those common to all AWS services.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
"""


class BedrockError(Exception):
    """An HTTP error response; ``code`` is a key of ``HTTP_STATUSES``."""

    def __init__(self, message: str, *, code: str = VALIDATION) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = HTTP_STATUSES[code]


def model_error(message: str) -> BedrockError:
    """Return an error of the model's own API, with the prefix that the service adds to it."""
    return BedrockError(f"The model returned the following errors: {message}")
