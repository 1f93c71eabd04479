"""The headers that authenticate a request."""

import asyncio
from collections.abc import Mapping

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import InvalidEndpointConfigurationError, NoCredentialsError

from chatledger.models.bedrock.connection import ConnectionSettings, bearer_token

SERVICE = "bedrock"


class Signer:
    """Signs requests with the credentials that botocore found.

    Renewing credentials blocks, so it is done in a thread.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._credentials = settings.credentials
        self._region = settings.region
        self._frozen: ReadOnlyCredentials | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def headers(self, url: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
        """Return ``headers`` and those that sign a POST of ``body``; raise botocore's errors."""
        if token := bearer_token():
            if not url.startswith("https:"):
                raise InvalidEndpointConfigurationError(msg="A bearer token needs https.")
            return {**headers, "Authorization": f"Bearer {token}"}
        if self._credentials is None:
            raise NoCredentialsError
        request = AWSRequest("POST", url, headers=headers, data=body)
        credentials = await self._valid_credentials(self._credentials)
        SigV4Auth(credentials, SERVICE, self._region).add_auth(request)
        return dict(request.headers.items())

    async def _valid_credentials(self, credentials: Credentials) -> ReadOnlyCredentials:
        if self._frozen is None or (
            isinstance(credentials, RefreshableCredentials) and credentials.refresh_needed()
        ):
            if self._renewal is None:
                self._renewal = asyncio.create_task(self._renew(credentials))
            # Shielded, because other requests wait for the same renewal and this one may be
            # cancelled.
            await asyncio.shield(self._renewal)
        assert self._frozen is not None
        return self._frozen

    async def _renew(self, credentials: Credentials) -> None:
        try:
            self._frozen = await asyncio.to_thread(credentials.get_frozen_credentials)
        finally:
            self._renewal = None
