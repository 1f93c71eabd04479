"""The models that callers may ask for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from threading import Lock

from chatledger.errors import InvalidArgument, UnknownModel
from chatledger.models.factory import open_model
from chatledger.models.protocol import OpenedModel


class Models:
    """A fixed list of models, each of which is opened when it is first asked for.

    Threads may share the list.

    Args:
        names: The names of the models; the first is the default.
        open: The function that opens a model by name.

    Raises:
        InvalidArgument: ``names`` is empty or a string.
    """

    def __init__(
        self, names: Sequence[str], *, open: Callable[[str], OpenedModel] = open_model
    ) -> None:
        if isinstance(names, str) or not names:
            raise InvalidArgument("names must be a list of at least one model name.")
        self.names = tuple(dict.fromkeys(names))
        self._open = open
        self._opened: dict[str, OpenedModel] = {}
        self._lock = Lock()

    @property
    def default(self) -> str:
        """The name of the model that is used if the caller names none."""
        return self.names[0]

    def get(self, model_id: str | None = None) -> OpenedModel:
        """Return the model with exactly the name ``model_id``, or the default model for None.

        Raises:
            UnknownModel: The name is not in the list; the text contains the list.
            ChatledgerError: The model could not be opened; the next call tries again.
        """
        name = self.default if model_id is None else model_id
        if name not in self.names:
            # The name is left out, because servers send this text and must not repeat their input.
            raise UnknownModel(
                f"There is no such model here; choose from: {', '.join(self.names)}."
            )
        with self._lock:
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
        """Close every opened model, even if closing one of them fails.

        A model that is asked for afterwards is opened again.
        """
        with self._lock:
            opened, self._opened = self._opened, {}
        async with AsyncExitStack() as stack:
            for model in opened.values():
                stack.push_async_callback(model.close)
