"""Messages of LangChain as Chatledger's, and back: for models and integrations alike."""

from chatledger.langchain_messages.conversion import from_chatledger, to_chatledger

__all__ = ["from_chatledger", "to_chatledger"]
