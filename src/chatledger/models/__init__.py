"""Language models, which are opened by name."""

from chatledger.models.factory import Models, check_model_name, open_model
from chatledger.models.protocol import Finished, Model, OpenedModel, Piece, SyncModel, Usage

__all__ = [
    "Finished",
    "Model",
    "Models",
    "OpenedModel",
    "Piece",
    "SyncModel",
    "Usage",
    "check_model_name",
    "open_model",
]
