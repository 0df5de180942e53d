"""The available providers. To add one: write its file, add one line here, set LLM_PROVIDER."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings
from django.utils.module_loading import import_string

from llm.enums import Dialect
from llm.providers.base import BaseLLMProvider, ProviderSettings

PROVIDERS: dict[str, str] = {
    "openai": "llm.providers.openai.OpenAIProvider",
    "anthropic": "llm.providers.anthropic.AnthropicProvider",
    "openai_compatible": "llm.providers.openai.OpenAIProvider",
    "echo": "llm.providers.echo.EchoProvider",
}


OPENAI_DIALECTS: Mapping[str, Dialect] = {
    "chat": Dialect.OPENAI_CHAT,
    "embeddings": Dialect.OPENAI_EMBEDDINGS,
    "completions": Dialect.OPENAI_COMPLETIONS,
    "responses": Dialect.OPENAI_RESPONSES,
}
"""By the words of LLM_COMPATIBLE_DIALECTS."""


def known_providers() -> list[str]:
    return sorted(PROVIDERS)


def build_provider(name: str) -> BaseLLMProvider:
    """A new instance. Its module, and with it its SDK, is imported only now.

    Raises LookupError for an unregistered name.
    """
    if name not in PROVIDERS:
        raise LookupError(f"“{name}” is not a registered provider. Choose one of {', '.join(known_providers())}.")
    provider_class: type[BaseLLMProvider] = import_string(PROVIDERS[name])
    return provider_class(provider_settings(name))


def provider_settings(name: str) -> ProviderSettings:
    api_key, base_url = _credentials(name)
    return ProviderSettings(
        name=name,
        api_key=api_key,
        base_url=base_url,
        dialects=_dialects(name),
        connect_timeout_s=settings.LLM_CONNECT_TIMEOUT_SECONDS,
        # A socket can't tell kinds of silence apart, and more is allowed before the first byte than after.
        idle_timeout_s=max(settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS, settings.LLM_IDLE_TIMEOUT_SECONDS),
        developer_role=settings.LLM_COMPATIBLE_DEVELOPER_ROLE if name == "openai_compatible" else "developer",
        max_output_tokens=settings.LLM_ANTHROPIC_MAX_TOKENS,
        max_reply_bytes=settings.LLM_MAX_REPLY_BYTES,
        max_connections=settings.LLM_MAX_CONNECTIONS,
    )


def is_configured(name: str) -> bool:
    """Whether this provider can be called: its credentials or address are set. Custom ones always can."""
    required = {
        "openai": settings.OPENAI_API_KEY,
        "anthropic": settings.ANTHROPIC_API_KEY,
        "openai_compatible": settings.LLM_BASE_URL,
    }
    return name in PROVIDERS and bool(required.get(name, True))


def configured_secrets() -> list[str]:
    """The keys sent to upstreams."""
    return sorted({api_key for name in PROVIDERS if (api_key := _credentials(name)[0])})


def upstream_key(name: str) -> str:
    """The key sent to this provider, "" for none."""
    return _credentials(name)[0]


def _dialects(name: str) -> frozenset[Dialect]:
    """Those of OpenAI's that the provider's server speaks; for a compatible one, a setting says so."""
    words = OPENAI_DIALECTS if name == "openai" else ("chat", *settings.LLM_COMPATIBLE_DIALECTS)
    return frozenset(OPENAI_DIALECTS[word] for word in words)


def _credentials(name: str) -> tuple[str, str]:
    known = {
        "openai": (settings.OPENAI_API_KEY, settings.LLM_OPENAI_BASE_URL),
        "anthropic": (settings.ANTHROPIC_API_KEY, settings.LLM_ANTHROPIC_BASE_URL),
        "openai_compatible": (settings.LLM_COMPATIBLE_API_KEY or settings.OPENAI_API_KEY, settings.LLM_BASE_URL),
    }
    return known.get(name, ("", settings.LLM_BASE_URL))
