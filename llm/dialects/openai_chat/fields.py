"""The fields of a chat request by their effect: known ones, those that choose who serves, those with a fee.

A restricted key, a limit and a price all rely on the field `model`. So fields by which an upstream would choose another
model or provider are refused unless the route allows them, and those that cost something beside tokens are named where
a limit of cost has to bound the call.

Sources, read 2026-11:
- OpenAI: openai 3.54, `types/chat/completion_create_params.py` and what it imports.
- OpenRouter (openrouter.ai/docs/guides/routing, docs/features): `models`, `route`, `provider`, `plugins`, `preset`,
  `transforms`; variants of a model's name such as `:online`; `@preset/` in a model's name.
- LiteLLM (litellm/types/utils.py, `all_litellm_params`; litellm/router.py): `fallbacks` and similar names,
  `specific_deployment`, `model_group`, `prompt_id`, `tags` (also inside `metadata`), `region_name`, credentials and
  addresses of each cloud, `mock_response`, `input_cost_per_token`, `extra_body`, `litellm_*`.
- New API (dto/openai_request.go): `group`, `web_search`. OpenAI: `prompt`, an object with the id of a stored prompt.
- LoRAX, TGI, llama.cpp: `adapter_id`, `lora`. Azure: `deployment_id`, `data_sources`.
- Vercel AI Gateway: `providerOptions`. Groq: `compound_custom`. Together: `safety_model`.
- Hugging Face's router (huggingface.co/docs/inference-providers): `:fastest`, `:cheapest`, `:preferred`.
- xAI: `search_parameters`. Alibaba: `enable_search`. Anthropic: `speed`, `inference_geo`.
- Go's encoding/json, with which Ollama and LocalAI parse requests: names match in any case, and the last one wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llm.dialects.openai_chat.output import OUTPUT_FIELDS, OUTPUT_MEMBERS
from llm.dialects.request_fields import Shape, shape
from llm.types import Service

_OPENAI_FIELDS = (
    *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens"),
    *("max_tokens", "messages", "metadata", "modalities", "model", "moderation", "n", "parallel_tool_calls"),
    *("prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort"),
    *("response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options"),
    *("temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
)
_OTHER_FIELDS = ("best_of", "reasoning", "thinking", "top_k")

ROUTING_FIELDS = (
    *("models", "route", "provider", "plugins", "preset", "transforms"),
    *("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "context_window_fallback_dict"),
    *("default_fallbacks", "fallback", "fallback_model", "fallback_models", "backup_models", "max_fallbacks"),
    *("model_list", "model_group", "model_override", "model_id", "model_name", "model_config", "model_info"),
    *("base_model", "hf_model_name", "completion_model", "draft_model", "safety_model"),
    *("specific_deployment", "deployment", "deployment_id", "deployment_name", "engine", "endpoint", "endpoint_id"),
    *("router", "routing", "routing_strategy", "router_settings_override", "tags", "group", "channel", "channel_id"),
    *("region", "region_name", "allowed_model_region", "location", "organization", "tenant_id"),
    *("api_base", "base_url", "api_key", "api_version", "api_type", "custom_llm_provider", "provider_id"),
    *("user_config", "configurable_clientside_auth_params", "client_id", "client_secret", "client", "azure"),
    *("headers", "extra_body", "extra_headers", "extra_query", "provider_specific_header"),
    *("providerOptions", "provider_options", "compound_custom", "use_litellm_proxy", "fastest_response"),
    *("prompt_id", "prompt_label", "prompt_version", "agent_id", "assistant_id", "bot_id"),
    *("adapter", "adapter_id", "adapters", "lora", "lora_path", "lora_request", "kv_transfer_params"),
)
_ROUTING_PREFIXES = (
    *("litellm_", "mock_", "aws_", "azure_", "vertex_", "sagemaker_", "watsonx_"),
    # With these a caller would tell LiteLLM what the call costs.
    *("input_cost_per_", "output_cost_per_"),
)

FEE_FIELDS: Mapping[str, str] = {
    "web_search_options": "web searches",
    "search_parameters": "web searches",
    "search_options": "web searches",
    "search_settings": "web searches",
    "enable_search": "web searches",
    "enable_web_search": "web searches",
    "web_search": "web searches",
    "google_search": "web searches",
    "search": "web searches",
    "plugins": "plugins",
    "connectors": "tools that the provider runs",
    "mcp_servers": "tools that the provider runs",
    "server_tools": "tools that the provider runs",
    "builtin_tools": "tools that the provider runs",
    "tool_resources": "tools that the provider runs",
    "code_interpreter": "tools that the provider runs",
    "code_execution": "tools that the provider runs",
    "data_sources": "a search of stored documents",
    "knowledge_bases": "a search of stored documents",
    "vector_store_ids": "a search of stored documents",
}
"""Field -> what it buys beside tokens, without a bound."""

SEARCH_FIELD = "web_search_options"
"""OpenAI's chat models search once per call with it and report no searches (guides, "Web search", read 2026-11)."""
_SEARCH_MODEL = re.compile(r"-search-(?:preview|api)\b")

TOKEN_FEE_FIELDS: Mapping[str, str] = {
    # Rejected parts of it cost as output does, beyond the output maximum.
    "prediction": "a predicted output",
}
"""Field -> what it buys: tokens without a bound."""

STORED_PROMPT_FIELDS = (
    *("chat_template", "previous_response_id", "conversation", "conversation_id", "thread_id", "context_id"),
    *("cached_content", "cachedContent"),
    # For routes that let callers choose: names for what a provider adds to the prompt.
    *("preset", "prompt_id", "agent_id", "assistant_id", "bot_id", "extra_body"),
)
"""With these the prompt is more than the request: stored by the upstream, or made by a template."""

MODEL_VARIANTS = frozenset(
    (
        *("online", "nitro", "floor", "free", "extended", "exacto", "thinking", "beta"),
        *("fastest", "cheapest", "preferred"),
    )
)
_PRESET = "@preset/"
_WITHOUT_MODELS = frozenset(("messages", "input", "metadata", "prompt", *ROUTING_FIELDS))
"""Content, what callers may name freely, and what is found by its own name."""


_FUNCTION = shape("name", "description", "parameters", "strict", "arguments")
_PART = shape(
    *("type", "text", "refusal", "input_text", "cache_control"),
    image_url=shape("url", "detail"),
    input_audio=shape("data", "format"),
    file=shape("file_data", "file_id", "filename"),
)
TOOL_KEYS = frozenset(
    (
        *("type", "index", "id", "function", "custom", "cache_control", "strict"),
        # Some servers accept a function's own members beside its type.
        *("name", "description", "parameters", "defer_loading"),
    )
)
"""Of a caller's own tool. Any other member may make it a tool that the provider runs."""
_TOOL = shape(
    "type", "index", "id", "model", function=_FUNCTION, custom=shape("name", "description", "format", "input")
)
_MESSAGE = shape(
    *("role", "name", "refusal", "tool_call_id", "reasoning", "reasoning_content"),
    reasoning_details=shape("type", "text", "summary", "signature", "data", "format", "index"),
    thinking_blocks=shape("type", "thinking", "signature", "data"),
    content=_PART,
    tool_calls=_TOOL,
    function_call=_FUNCTION,
    audio=shape("id"),
)
REQUEST = Shape(
    frozenset(
        (
            *(*_OPENAI_FIELDS, *_OTHER_FIELDS, *ROUTING_FIELDS, *FEE_FIELDS, *STORED_PROMPT_FIELDS, *OUTPUT_FIELDS),
            *TOKEN_FEE_FIELDS,
            *("prompt", "speed", "inference_geo"),
        )
    ),
    {
        **{name: Shape(members) for name, members in OUTPUT_MEMBERS.items()},
        "messages": _MESSAGE,
        "stream_options": shape("include_usage", "include_obfuscation"),
        "tools": _TOOL,
        "functions": _FUNCTION,
        "tool_choice": _TOOL,
        "response_format": shape("type", json_schema=shape("name", "description", "schema", "strict")),
        "prediction": shape("type", content=_PART),
        "audio": shape("format", "voice"),
        "moderation": shape("model"),
    },
)


def find_routing_fields(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields by which an upstream may choose who serves the request, or other models beside it; null doesn't count.

    body: of any dialect.
    """
    named = [name for name in ROUTING_FIELDS if body.get(name) is not None]
    prefixed = [name for name in body if name.casefold().startswith(_ROUTING_PREFIXES) and body[name] is not None]
    return (*named, *prefixed, *_routing_members(body))


def _routing_members(body: Mapping[str, Any]) -> Iterator[str]:
    """Members of other fields, and fields that count only as an object."""
    if isinstance(body.get("prompt"), dict):
        # A text is a prompt; an object names a stored one, which may have a model of its own.
        yield "prompt"
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("tags"), list | dict):
        # OpenAI's metadata contains only texts; LiteLLM routes by a list of this name.
        yield "metadata.tags"
    for name, value in body.items():
        if name not in _WITHOUT_MODELS and isinstance(value, dict | list):
            yield from _models_in(value, name)


def _models_in(value: dict[str, Any] | list[Any], path: str) -> Iterator[str]:
    """Models of tools (Anthropic's advisor, OpenAI's image generation), of moderation, and of anything else."""
    if isinstance(value, dict):
        if value.get("model") is not None:
            yield f"{path}.model"
        return
    for index, each in enumerate(value):
        if isinstance(each, dict):
            yield from _models_in(each, f"{path}[{index}]")


def asked_service(body: Mapping[str, Any]) -> Service:
    """The requested service, in the words with which a provider would report it. Never raises."""
    words = (body.get(name) for name in Service._fields)
    return Service(*(word if isinstance(word, str) else "" for word in words))


def is_search_model(model: str) -> bool:
    """Whether it is one of OpenAI's chat models that search the web in each call."""
    return _SEARCH_MODEL.search(model.casefold()) is not None


def variant_of(model: str) -> str:
    """`:online` and the like in a model's name, "" if there is none.

    `llama3:8b` is a tag, and in `ft:gpt-4.1:org:name:id` only the base model is chosen.
    """
    lowered = model.casefold()
    if _PRESET in lowered:
        return _PRESET
    if lowered.startswith("ft:"):
        return ""
    return next((f":{part}" for part in lowered.split(":")[1:] if part in MODEL_VARIANTS), "")
