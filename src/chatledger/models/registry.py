"""The models that callers may ask for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from threading import Lock

from chatledger.errors import InvalidArgument
from chatledger.models.factory import not_allowed, open_model
from chatledger.models.protocol import OpenedModel


class Models:
    """Those of ``names`` and no others, each opened when it is first asked for, and once.

    The first is the default. Threads may share it.
    """

    def __init__(
        self, names: Sequence[str], *, open: Callable[[str], OpenedModel] = open_model
    ) -> None:
        if isinstance(names, str) or not names:
            raise InvalidArgument("names must list the names of one model or more.")
        self.names = tuple(dict.fromkeys(names))
        self._open = open
        self._opened: dict[str, OpenedModel] = {}
        self._opening = Lock()

    @property
    def default(self) -> str:
        """The name of the model that answers where none is asked for."""
        return self.names[0]

    def get(self, model_id: str | None = None) -> OpenedModel:
        """The model of exactly that name, or the default one.

        Raises ``UnknownModel``, which lists the names there are, and what opening raises: the next
        call tries again.
        """
        name = self.default if model_id is None else model_id
        if name not in self.names:
            raise not_allowed(self.names)
        with self._opening:
            if name not in self._opened:
                self._opened[name] = self._open(name)
            return self._opened[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    async def close(self) -> None:
        """Close those that were opened, all of them even where one fails to.

        One that is asked for afterwards is opened anew.
        """
        with self._opening:
            opened, self._opened = self._opened, {}
        async with AsyncExitStack() as closing:
            for model in opened.values():
                closing.push_async_callback(model.close)
