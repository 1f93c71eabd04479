"""Tools for the tests of programs that use Chatledger.

``ScriptedModel`` is a model that says what a test has written down. The module ``plugin`` has
pytest fixtures, which pytest finds once Chatledger is installed; ``bedrock_server`` is a strict
fake of Amazon Bedrock, ``dynamodb_local`` runs DynamoDB Local, and ``store_contract`` tests a store
of one's own.
"""

from typing import TYPE_CHECKING

from chatledger.extras import import_on_first_use

if TYPE_CHECKING:
    from chatledger.testing.scripted_model import ModelRequest, ScriptedModel, ScriptUsedUp

__all__ = ["ModelRequest", "ScriptUsedUp", "ScriptedModel"]

# Imported on first use: pytest imports this package with every start.
__getattr__ = import_on_first_use(__name__, dict.fromkeys(__all__, ".scripted_model"), {})


def __dir__() -> list[str]:
    return __all__
