"""Language models, by name."""

from chatledger.models.allowed import Models
from chatledger.models.contract import Finished, Model, OpenedModel, Piece, SyncModel, Usage
from chatledger.models.names import check_model, open_model

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
