"""LangChain chat models as models of turns."""

from chatledger.models.langchain.model import LangChainModel, open_langchain_model

__all__ = ["LangChainModel", "open_langchain_model"]
