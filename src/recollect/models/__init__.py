"""Language models, by name."""

from recollect.errors import UnknownModel
from recollect.models.contract import Model
from recollect.models.offline import OfflineModel


def open_model(name: str, *, offline_pace: float = 0.0) -> Model:
    """The model that ``name`` names: ``offline``. Raises ``UnknownModel``."""
    if name != "offline":
        raise UnknownModel("There is no such model here; the one there is: offline.")
    return OfflineModel(pace=offline_pace)
