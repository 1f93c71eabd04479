"""The headers that say who is calling."""

import asyncio
from collections.abc import Mapping

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import InvalidEndpointConfigurationError, NoCredentialsError

from chatledger.models.bedrock.connection import Found, bearer_token

SERVICE = "bedrock"


class Signer:
    """Signs with what botocore found; renewing that blocks, and so is done in a thread."""

    def __init__(self, found: Found) -> None:
        self._credentials = found.credentials
        self._region = found.region
        self._frozen: ReadOnlyCredentials | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def headers(self, url: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
        """``headers`` and those that sign a POST of ``body``. Raises what botocore does."""
        if token := bearer_token():
            if not url.startswith("https:"):
                raise InvalidEndpointConfigurationError(msg="A bearer token needs https.")
            return {**headers, "Authorization": f"Bearer {token}"}
        if self._credentials is None:
            raise NoCredentialsError
        request = AWSRequest("POST", url, headers=headers, data=body)
        signer = SigV4Auth(await self._fresh(self._credentials), SERVICE, self._region)
        signer.add_auth(request)
        return dict(request.headers.items())

    async def _fresh(self, credentials: Credentials) -> ReadOnlyCredentials:
        if self._frozen is None or (
            isinstance(credentials, RefreshableCredentials) and credentials.refresh_needed()
        ):
            if self._renewal is None:
                self._renewal = asyncio.create_task(self._renew(credentials))
            # One for all who wait, of whom some may be cancelled meanwhile.
            await asyncio.shield(self._renewal)
        assert self._frozen is not None
        return self._frozen

    async def _renew(self, credentials: Credentials) -> None:
        try:
            self._frozen = await asyncio.to_thread(credentials.get_frozen_credentials)
        finally:
            self._renewal = None
