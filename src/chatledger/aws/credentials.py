"""Credentials that botocore finds and renews: from SSO, roles, processes or files."""

import asyncio

from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import NoCredentialsError


class RenewingCredentials:
    """botocore's credentials for one event loop; they are renewed in a thread, as that blocks."""

    def __init__(self, source: Credentials | None) -> None:
        self._source = source
        self._current: ReadOnlyCredentials | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def get(self) -> ReadOnlyCredentials:
        """Return credentials that are valid now; raise botocore's errors if there are none."""
        if self._current is None or (
            isinstance(self._source, RefreshableCredentials) and self._source.refresh_needed()
        ):
            if self._renewal is None:
                self._renewal = asyncio.create_task(self._renew())
            # Shielded, because other calls wait for the same task and this one may be cancelled.
            await asyncio.shield(self._renewal)
        assert self._current is not None
        return self._current

    async def _renew(self) -> None:
        try:
            if self._source is None:
                raise NoCredentialsError
            current = await asyncio.to_thread(self._source.get_frozen_credentials)
            if not current.access_key or not current.secret_key:
                raise NoCredentialsError
            self._current = current
        finally:
            self._renewal = None
