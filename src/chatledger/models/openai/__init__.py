"""Models of OpenAI and of servers with the same API; openai is imported when a model is opened."""

from chatledger.models.openai.model import OpenAIModel, check_base_url

__all__ = ["OpenAIModel", "check_base_url"]
