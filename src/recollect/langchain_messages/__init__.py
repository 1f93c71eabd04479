"""Messages of LangChain as Recollect's, and back: for models and integrations alike."""

from recollect.langchain_messages.conversion import from_recollect, to_recollect

__all__ = ["from_recollect", "to_recollect"]
