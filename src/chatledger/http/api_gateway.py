"""Requests as API Gateway and ``chalice local`` hand them on."""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from chalice.app import Request

from chatledger.conversations import check_id
from chatledger.errors import InvalidArgument, NotFound
from chatledger.http import api
from chatledger.http.errors import Refused


def header_values(request: Request, name: str) -> list[str]:
    """All values of a header; ``chalice local`` knows of one only."""
    every: Mapping[str, list[str]] = request.to_original_event().get("multiValueHeaders") or {}
    values = [value for given, values in every.items() if given.lower() == name for value in values]
    if not values and name in request.headers:
        values = [request.headers[name]]
    return values


def claims_of(request: Request) -> Mapping[str, object] | None:
    """What an authorizer of Amazon Cognito says of who sent it; None where none was asked."""
    match request.context.get("authorizer"):
        case {"claims": Mapping() as claims}:
            return claims
    return None


def claimed_user(request: Request) -> str:
    """The user that an authorizer of Amazon Cognito let through. Raises ``Refused``."""
    user = (claims_of(request) or {}).get("sub")
    try:
        check_id(user, "sub")
    except InvalidArgument:
        raise Refused(401, "not_signed_in", "Sign in first.", challenge="Bearer") from None
    return str(user)


class Asked:
    """What one request asks for; ``user`` is who sent it, where users sign in."""

    def __init__(self, request: Request, user: str | None) -> None:
        self._request = request
        self._user = user

    def parsed(self, kind: type[api.R]) -> api.R:
        try:
            body = self._request.raw_body
        except ValueError:
            body = b""  # half of a surrogate pair, or no base64: API Gateway sends neither
        content_type = self._request.headers.get("content-type")
        assert isinstance(body, bytes)
        return api.parsed(kind, body, content_type, signed_in=self._user)

    def query(self, known: Sequence[str], required: Sequence[str] = ()) -> dict[str, str]:
        given = self._request.query_params
        pairs = []
        if given is not None:  # as it is where there are no parameters
            pairs = [(name, value) for name in given for value in given.getlist(name)]
        return api.query(pairs, known, required, signed_in=self._user)

    def headers(self, name: str) -> list[str]:
        return header_values(self._request, name)

    @property
    def conversation_id(self) -> str:
        # Both leave it as it stood in the address.
        encoded = (self._request.uri_params or {})["conversation_id"]
        try:
            return unquote(encoded, errors="strict")
        except UnicodeDecodeError:
            raise NotFound("An id is UTF-8.") from None

    @property
    def seconds_left(self) -> float | None:
        """How long the function may still run, where that is known."""
        remaining = getattr(self._request.lambda_context, "get_remaining_time_in_millis", None)
        return None if remaining is None else remaining() / 1000
