"""How a request is refused: a status, a code and a message."""

INVALID = "ValidationException"

STATUSES = {
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
    INVALID: 400,
}
"""The codes, from Converse's own and from those that every service of AWS has.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
"""


class Refused(Exception):
    """The request is answered with an error."""

    def __init__(self, message: str, *, code: str = INVALID) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = STATUSES[code]


def refused_by_model(message: str) -> Refused:
    """What the model's own interface refuses; the service passes it on with this beginning."""
    return Refused(f"The model returned the following errors: {message}")
