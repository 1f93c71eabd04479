"""Conversion between LangChain's messages and Chatledger's, for models and integrations."""

from chatledger.langchain_messages.conversion import from_chatledger, to_chatledger

__all__ = ["from_chatledger", "to_chatledger"]
