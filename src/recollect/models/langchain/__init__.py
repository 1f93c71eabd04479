"""Any chat model of LangChain's as a model of ours."""

from recollect.models.langchain.model import LangChainModel
from recollect.models.langchain.opening import open_langchain_model

__all__ = ["LangChainModel", "open_langchain_model"]
