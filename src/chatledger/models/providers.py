"""The providers in the names of models."""

from typing import Final

COMPATIBLE: Final = "openai-compatible"
"""The provider of models on any server with OpenAI's API."""
OWN_PROVIDERS: Final = ("offline", "bedrock", "openai", COMPATIBLE)
"""The providers of models that need no LangChain."""

LANGCHAIN_PROVIDERS: Final = {
    "anthropic": "langchain-anthropic",
    "anthropic_bedrock": "langchain-aws",
    "azure_ai": "langchain-azure-ai",
    "azure_openai": "langchain-openai",
    "baseten": "langchain-baseten",
    "bedrock_converse": "langchain-aws",
    "bedrock_mantle_anthropic": "langchain-aws",
    "bedrock_mantle_openai": "langchain-aws",
    "cohere": "langchain-cohere",
    "deepseek": "langchain-deepseek",
    "fireworks": "langchain-fireworks",
    "google_anthropic_vertex": "langchain-google-vertexai",
    "google_genai": "langchain-google-genai",
    "google_vertexai": "langchain-google-vertexai",
    "groq": "langchain-groq",
    "huggingface": "langchain-huggingface",
    "ibm": "langchain-ibm",
    "langsmith": "langchain-openai",
    "litellm": "langchain-litellm",
    "meta": "langchain-meta",
    "mistralai": "langchain-mistralai",
    "nvidia": "langchain-nvidia-ai-endpoints",
    "ollama": "langchain-ollama",
    "openrouter": "langchain-openrouter",
    "perplexity": "langchain-perplexity",
    "together": "langchain-together",
    "upstage": "langchain-upstage",
    "xai": "langchain-xai",
}
"""The providers that LangChain's ``init_chat_model`` knows, each with its package."""


def langchain_package(provider: str) -> str:
    """Return the package of a provider, which LangChain may know although it is not listed here."""
    name = provider.lower().replace("-", "_")  # as LangChain reads it
    return LANGCHAIN_PROVIDERS.get(name, f"langchain-{provider}")


def is_known(provider: str) -> bool:
    """Return whether this is one of the providers that are listed here."""
    return provider in OWN_PROVIDERS or provider.lower().replace("-", "_") in LANGCHAIN_PROVIDERS
