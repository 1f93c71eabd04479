"""Requests in the form in which API Gateway and ``chalice local`` pass them to the application."""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from chalice.app import Request

from chatledger.errors import InvalidArgument, NotFound
from chatledger.http import api
from chatledger.http.errors import ApiError
from chatledger.stores.arguments import checked_id


def header_values(request: Request, name: str) -> list[str]:
    """Return all values of the header ``name``; ``chalice local`` passes on only one."""
    every: Mapping[str, list[str]] = request.to_original_event().get("multiValueHeaders") or {}
    values = [value for given, values in every.items() if given.lower() == name for value in values]
    if not values and name in request.headers:
        values = [request.headers[name]]
    return values


def authorizer_claims(request: Request) -> Mapping[str, object] | None:
    """Return the claims that a Cognito authorizer passed on, or None without an authorizer."""
    match request.context.get("authorizer"):
        case {"claims": Mapping() as claims}:
            return claims
    return None


def authorized_user(request: Request) -> str:
    """Return the user whom a Cognito authorizer admitted; raise ``ApiError`` if there is none."""
    user = (authorizer_claims(request) or {}).get("sub")
    try:
        checked_id(user, "sub")
    except InvalidArgument:
        raise ApiError(401, "not_signed_in", "Sign in first.", challenge="Bearer") from None
    return str(user)


class GatewayRequest:
    """A request and its signed-in user, who is None if the request needs no sign-in."""

    def __init__(self, request: Request, user: str | None) -> None:
        self._request = request
        self._user = user

    def parse_body(self, kind: type[api.R]) -> api.R:
        """Parse the body as ``api.parse_body`` does."""
        try:
            body = self._request.raw_body
        except ValueError:
            body = b""  # a lone surrogate or invalid base64: API Gateway sends neither
        content_type = self._request.headers.get("content-type")
        assert isinstance(body, bytes)
        return api.parse_body(kind, body, content_type, signed_in_user=self._user)

    def parse_query(self, known: Sequence[str], required: Sequence[str] = ()) -> dict[str, str]:
        """Parse the query as ``api.parse_query`` does."""
        given = self._request.query_params
        pairs = []
        if given is not None:  # Chalice's value for a request without a query
            pairs = [(name, value) for name in given for value in given.getlist(name)]
        return api.parse_query(pairs, known, required, signed_in_user=self._user)

    def header_values(self, name: str) -> list[str]:
        return header_values(self._request, name)

    @property
    def conversation_id(self) -> str:
        # API Gateway and chalice local both leave path parameters percent-encoded.
        encoded = (self._request.uri_params or {})["conversation_id"]
        try:
            return unquote(encoded, errors="strict")
        except UnicodeDecodeError:
            raise NotFound("The conversation_id in the path is not UTF-8.") from None

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the Lambda function may still run, or None if unknown."""
        remaining = getattr(self._request.lambda_context, "get_remaining_time_in_millis", None)
        return None if remaining is None else remaining() / 1000
