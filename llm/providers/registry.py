"""The available providers. To add one: write its file, add one line here, set LLM_PROVIDER."""

from __future__ import annotations

from django.conf import settings
from django.utils.module_loading import import_string

from llm.providers.base import BaseLLMProvider, ProviderSettings
from llm.providers.instances import Credential, Instance, Instances, SingleSettings, named_instances, single_instances

PROVIDERS: dict[str, str] = {
    "openai": "llm.providers.openai.OpenAIProvider",
    "anthropic": "llm.providers.anthropic.AnthropicProvider",
    "openai_compatible": "llm.providers.openai.OpenAIProvider",
    "echo": "llm.providers.echo.EchoProvider",
}


def known_providers() -> list[str]:
    return sorted(PROVIDERS)


def instances() -> Instances:
    """What can be called, as the settings say it; built once."""
    if settings.LLM_PROVIDERS:
        return named_instances(settings.LLM_PROVIDERS, settings.LLM_KEY_PEPPER)
    return single_instances(_single_settings(), tuple(PROVIDERS), settings.LLM_KEY_PEPPER)


def find_instance(name: str) -> Instance | None:
    """See `Instances.find`."""
    return instances().find(name)


def default_instance() -> Instance:
    """Which serves names without a route. Raises LookupError where LLM_PROVIDER names none."""
    return _require_instance(settings.LLM_PROVIDER)


def booked_providers() -> list[str]:
    """All names that the provider of a row, and of a price, may have."""
    return sorted({*PROVIDERS, *(instance.booked_as for instance in instances().all)})


def build_provider(name: str, credential_id: str = "") -> BaseLLMProvider:
    """A new object for an instance and one of its keys. Its module, and with it its SDK, is imported only now.

    Raises LookupError for a name that is neither an instance nor a registered provider.
    """
    instance = _require_instance(name)
    provider_class: type[BaseLLMProvider] = import_string(PROVIDERS[instance.provider])
    return provider_class(provider_settings(instance, instance.credential(credential_id, account_id=0)))


def provider_settings(instance: Instance, credential: Credential) -> ProviderSettings:
    return ProviderSettings(
        name=instance.provider,
        api_key=credential.api_key,
        base_url=instance.base_url,
        dialects=instance.dialects,
        connect_timeout_s=settings.LLM_CONNECT_TIMEOUT_SECONDS,
        # A socket can't tell kinds of silence apart, and more is allowed before the first byte than after.
        idle_timeout_s=max(settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS, settings.LLM_IDLE_TIMEOUT_SECONDS),
        developer_role=instance.developer_role,
        max_output_tokens=instance.max_output_tokens,
        max_reply_bytes=settings.LLM_MAX_REPLY_BYTES,
        max_connections=settings.LLM_MAX_CONNECTIONS,
    )


def is_configured(name: str) -> bool:
    """Whether calls to this instance can be made: its credentials or address are set. Custom ones always are."""
    instance = find_instance(name)
    return instance is not None and not instance.lacks


def configured_secrets() -> tuple[str, ...]:
    """The keys that upstreams are sent: every key of every instance."""
    return instances().secrets


def upstream_key(name: str, credential_id: str) -> str:
    """The key that calls to this instance are sent with, "" for none."""
    instance = find_instance(name)
    return "" if instance is None else instance.credential(credential_id, account_id=0).api_key


def _require_instance(name: str) -> Instance:
    instance = find_instance(name)
    if instance is None or instance.provider not in PROVIDERS:
        names = sorted(each.name for each in instances().all)
        raise LookupError(f"“{name}” is not a provider that is configured. Choose one of {', '.join(names)}.")
    return instance


def _single_settings() -> SingleSettings:
    return SingleSettings(
        default=settings.LLM_PROVIDER,
        openai_key=settings.OPENAI_API_KEY,
        anthropic_key=settings.ANTHROPIC_API_KEY,
        compatible_key=settings.LLM_COMPATIBLE_API_KEY,
        base_url=settings.LLM_BASE_URL,
        openai_url=settings.LLM_OPENAI_BASE_URL,
        anthropic_url=settings.LLM_ANTHROPIC_BASE_URL,
        dialects=tuple(settings.LLM_COMPATIBLE_DIALECTS),
        developer_role=settings.LLM_COMPATIBLE_DEVELOPER_ROLE,
        max_tokens=settings.LLM_ANTHROPIC_MAX_TOKENS,
    )
