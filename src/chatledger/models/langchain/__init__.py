"""LangChain chat models as models of turns."""

from chatledger.models.langchain.factory import open_langchain_model
from chatledger.models.langchain.model import LangChainModel

__all__ = ["LangChainModel", "open_langchain_model"]
