"""Credentials for aiodynamo that botocore finds and renews: SSO, roles, processes and all."""

import asyncio

from aiodynamo.credentials import Credentials, Key
from aiodynamo.http.types import HttpImplementation
from botocore.credentials import Credentials as Found
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import NoCredentialsError


class Renewed(Credentials):
    """Those that botocore ``found``; renewing them blocks, and so is done in a thread."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._key: Key | None = None
        self._renewal: asyncio.Task[Key] | None = None

    async def get_key(self, http: HttpImplementation) -> Key:
        if self._key is None or (
            isinstance(self._found, RefreshableCredentials) and self._found.refresh_needed()
        ):
            if self._renewal is None:
                self._renewal = asyncio.create_task(asyncio.to_thread(self._renew))
                self._renewal.add_done_callback(self._renewed)
            # One for all who wait, of whom some may be cancelled meanwhile.
            await asyncio.shield(self._renewal)
        assert self._key is not None
        return self._key

    def _renew(self) -> Key:
        found = self._found.get_frozen_credentials()
        if not found.access_key or not found.secret_key:
            raise NoCredentialsError
        return Key(found.access_key, found.secret_key, found.token)

    def _renewed(self, renewal: asyncio.Task[Key]) -> None:
        self._renewal = None
        if not renewal.cancelled() and renewal.exception() is None:
            self._key = renewal.result()

    def invalidate(self) -> bool:
        return False

    def is_disabled(self) -> bool:
        return False
