"""Credentials for aiodynamo that botocore finds and renews: from SSO, roles, processes or files."""

import asyncio

from aiodynamo.credentials import Credentials, Key
from aiodynamo.http.types import HttpImplementation
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import NoCredentialsError


class RenewingCredentials(Credentials):
    """botocore's credentials for aiodynamo; they are renewed in a thread, because that blocks."""

    def __init__(self, source: BotocoreCredentials) -> None:
        self._source = source
        self._key: Key | None = None
        self._renewal: asyncio.Task[Key] | None = None

    async def get_key(self, http: HttpImplementation) -> Key:
        if self._key is None or (
            isinstance(self._source, RefreshableCredentials) and self._source.refresh_needed()
        ):
            if self._renewal is None:
                self._renewal = asyncio.create_task(asyncio.to_thread(self._renew))
                self._renewal.add_done_callback(self._finish_renewal)
            # Shielded, because other calls wait for the same task and this one may be cancelled.
            await asyncio.shield(self._renewal)
        assert self._key is not None
        return self._key

    def _renew(self) -> Key:
        frozen = self._source.get_frozen_credentials()
        if not frozen.access_key or not frozen.secret_key:
            raise NoCredentialsError
        return Key(frozen.access_key, frozen.secret_key, frozen.token)

    def _finish_renewal(self, renewal: asyncio.Task[Key]) -> None:
        self._renewal = None
        if not renewal.cancelled() and renewal.exception() is None:
            self._key = renewal.result()

    def invalidate(self) -> bool:
        return False

    def is_disabled(self) -> bool:
        return False
