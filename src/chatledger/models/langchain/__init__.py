"""Any chat model of LangChain's as a model of ours."""

from chatledger.models.langchain.model import LangChainModel
from chatledger.models.langchain.opening import open_langchain_model

__all__ = ["LangChainModel", "open_langchain_model"]
