"""Any chat model of LangChain's as a model of ours."""

from chatledger.models.langchain.factory import open_langchain_model
from chatledger.models.langchain.model import LangChainModel

__all__ = ["LangChainModel", "open_langchain_model"]
