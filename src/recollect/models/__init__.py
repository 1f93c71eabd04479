"""Language models, by name."""

from recollect.models.allowed import Models
from recollect.models.contract import Finished, Model, OpenedModel, Piece, SyncModel, Usage
from recollect.models.names import check_model, open_model

__all__ = [
    "Finished",
    "Model",
    "Models",
    "OpenedModel",
    "Piece",
    "SyncModel",
    "Usage",
    "check_model",
    "open_model",
]
