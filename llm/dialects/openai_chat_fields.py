"""The fields of a chat request by what they do: those we know, those that choose who serves, those with a fee.

A restricted key, a limit and a price all stand on the one field `model`. So fields by which an upstream would choose
another model or provider are refused unless the route allows them, and those that cost something beside the tokens are
named where a limit of cost has to bound the call.

Sources, read 2026-11:
- OpenAI: openai 3.54, `types/chat/completion_create_params.py` and what it imports.
- OpenRouter (openrouter.ai/docs/guides/routing, docs/features): `models`, `route`, `provider`, `plugins`, `preset`,
  `transforms`; variants of a model's name such as `:online`; `@preset/` in a model's name.
- LiteLLM (docs.litellm.ai/docs/proxy): `fallbacks`, `context_window_fallbacks`, `api_base`, `extra_body`, `litellm_*`.
- Vercel AI Gateway: `providerOptions`. Groq: `compound_custom`. Together: `safety_model`.
- Hugging Face's router (huggingface.co/docs/inference-providers): `:fastest`, `:cheapest`, `:preferred`.
- xAI: `search_parameters`. Alibaba: `enable_search`. Anthropic: `speed`, `inference_geo`.
- Go's encoding/json, which Ollama and LocalAI read requests with: a name fits whatever its case, and the last one wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm.errors import InvalidRequest
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
    *("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "model_list", "deployment_id", "engine"),
    *("api_base", "base_url", "api_key", "api_version", "custom_llm_provider", "user_config"),
    *("extra_body", "extra_headers", "extra_query"),
    *("providerOptions", "provider_options", "compound_custom", "safety_model"),
)
_ROUTING_PREFIX = "litellm_"

FEE_FIELDS: Mapping[str, str] = {
    "web_search_options": "web searches",
    "search_parameters": "web searches",
    "enable_search": "web searches",
    "plugins": "plugins",
    # What of it is rejected costs as output does, beside the output maximum.
    "prediction": "a predicted output",
}
"""Field -> what it buys, beside tokens and without a bound."""

MODEL_VARIANTS = frozenset(
    (
        *("online", "nitro", "floor", "free", "extended", "exacto", "thinking", "beta"),
        *("fastest", "cheapest", "preferred"),
    )
)
_PRESET = "@preset/"


@dataclass(frozen=True)
class Shape:
    """The keys of an object that we read, and the shapes of what lies inside some of them, alone or in a list."""

    keys: frozenset[str]
    inside: Mapping[str, Shape] = field(default_factory=dict)
    _by_folded: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_folded", {key.casefold(): key for key in self.keys})

    def refuse_other_cases(self, value: Any, path: str = "") -> None:
        """Raises InvalidRequest for a key that equals one of ours but for its case.

        To us it is an unknown field; to a server that reads names whatever their case it is the known one.
        """
        if type(value) is list:
            for each in value:
                self.refuse_other_cases(each, path)
            return
        if type(value) is not dict:
            return
        if not value.keys() <= self.keys:
            self._refuse_keys(value, path)
        for name, shape in self.inside.items():
            if (inner := value.get(name)) is not None and type(inner) is not str:
                shape.refuse_other_cases(inner, f"{path}{name}.")

    def _refuse_keys(self, value: Mapping[str, Any], path: str) -> None:
        for key in value:
            known = self._by_folded.get(key.casefold())
            if known is not None and key not in self.keys:
                raise InvalidRequest(
                    f"Unknown field '{path}{key[:60]}'. Field names are case-sensitive: use '{path}{known}'.",
                    param=f"{path}{known}",
                )


def _shape(*keys: str, **inside: Shape) -> Shape:
    return Shape(frozenset((*keys, *inside)), inside)


_FUNCTION = _shape("name", "description", "parameters", "strict", "arguments")
_PART = _shape(
    *("type", "text", "refusal", "input_text", "cache_control"),
    image_url=_shape("url", "detail"),
    input_audio=_shape("data", "format"),
    file=_shape("file_data", "file_id", "filename"),
)
_TOOL = _shape("type", "index", "id", function=_FUNCTION, custom=_shape("name", "description", "format", "input"))
_MESSAGE = _shape(
    *("role", "name", "refusal", "tool_call_id", "reasoning", "reasoning_content"),
    content=_PART,
    tool_calls=_TOOL,
    function_call=_FUNCTION,
    audio=_shape("id"),
)
REQUEST = Shape(
    frozenset((*_OPENAI_FIELDS, *_OTHER_FIELDS, *ROUTING_FIELDS, *FEE_FIELDS, "speed", "inference_geo")),
    {
        "messages": _MESSAGE,
        "stream_options": _shape("include_usage", "include_obfuscation"),
        "tools": _TOOL,
        "functions": _FUNCTION,
        "tool_choice": _TOOL,
        "response_format": _shape("type", json_schema=_shape("name", "description", "schema", "strict")),
        "prediction": _shape("type", content=_PART),
        "audio": _shape("format", "voice"),
    },
)


def routing_fields_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Those by which an upstream may choose who serves; null asks for nothing."""
    named = [name for name in ROUTING_FIELDS if body.get(name) is not None]
    prefixed = [name for name in body if name.casefold().startswith(_ROUTING_PREFIX) and body[name] is not None]
    return (*named, *prefixed)


def asked_service(body: Mapping[str, Any]) -> Service:
    """How the call is to be served, in the words in which a provider would report it. Never raises."""
    words = (body.get(name) for name in Service._fields)
    return Service(*(word if isinstance(word, str) else "" for word in words))


def variant_of(model: str) -> str:
    """`:online` and the like in a model's name, "" where there is none.

    `llama3:8b` is a tag, and in `ft:gpt-4.1:org:name:id` nothing but the base model is chosen.
    """
    lowered = model.casefold()
    if _PRESET in lowered:
        return _PRESET
    if lowered.startswith("ft:"):
        return ""
    return next((f":{part}" for part in lowered.split(":")[1:] if part in MODEL_VARIANTS), "")
