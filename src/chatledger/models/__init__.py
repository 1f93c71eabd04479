"""Language models, which are opened by name."""

from chatledger.models.factory import check_model, open_model
from chatledger.models.protocol import Finished, Model, OpenedModel, Piece, SyncModel, Usage
from chatledger.models.registry import Models

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
