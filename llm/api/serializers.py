"""Shapes for the API description. Bodies of calls aren't validated by them: unknown fields must pass through."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers


def _header(name: str, description: str, **form: Any) -> OpenApiParameter:
    """form: of its text, as JSON Schema says it."""
    return OpenApiParameter(name, {"type": "string", **form}, OpenApiParameter.HEADER, description=description)


_IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "1 to 255 visible ASCII characters. A request is sent once for each key; see docs/callers.md.",
    pattern="^[!-~]{1,255}$",
)
_TAGS = _header(
    "x-llm-tags",
    "Up to 8 tags by which usage can be filtered and summed up. Not sent to the provider.",
    example="team=search,project=x",
)
CALL_HEADERS = [_IDEMPOTENCY_KEY, _TAGS]
"""For endpoints that call models."""
OPENAI_COUNTING_HEADERS = [_TAGS, _header("openai-beta", "Sent to OpenAI unchanged.")]
"""Where tokens are counted, an idempotency key is ignored."""
OPENAI_HEADERS = [_IDEMPOTENCY_KEY, *OPENAI_COUNTING_HEADERS]
ANTHROPIC_COUNTING_HEADERS = [
    _TAGS,
    _header("anthropic-version", "Sent to Anthropic unchanged."),
    _header("anthropic-beta", "Sent to Anthropic unchanged."),
]
ANTHROPIC_HEADERS = [_IDEMPOTENCY_KEY, *ANTHROPIC_COUNTING_HEADERS]


class MessageSerializer(serializers.Serializer[object]):
    role = serializers.CharField()
    content = serializers.JSONField(required=False, help_text="A string, or a list of parts.")


class StreamOptionsSerializer(serializers.Serializer[object]):
    include_usage = serializers.BooleanField(required=False)


class ChatCompletionSerializer(serializers.Serializer[object]):
    model = serializers.CharField(required=False, help_text="Default: the gateway's default model.")
    messages = MessageSerializer(many=True)
    stream = serializers.BooleanField(required=False)
    stream_options = StreamOptionsSerializer(required=False)
    n = serializers.IntegerField(required=False, min_value=1, max_value=128)
    max_completion_tokens = serializers.IntegerField(required=False, min_value=1)
    tools = serializers.ListField(child=serializers.JSONField(), required=False)


class TextCompletionSerializer(serializers.Serializer[object]):
    model = serializers.CharField(required=False, help_text="Default: the gateway's default model.")
    prompt = serializers.JSONField(
        help_text="A string, a list of strings, a list of tokens, or a list of lists of tokens."
    )
    stream = serializers.BooleanField(required=False)
    stream_options = StreamOptionsSerializer(required=False)
    n = serializers.IntegerField(required=False, min_value=1, max_value=128)
    max_tokens = serializers.IntegerField(required=False, min_value=1)


class EmbeddingsSerializer(serializers.Serializer[object]):
    model = serializers.CharField(required=False, help_text="Default: the gateway's default model.")
    input = serializers.JSONField(
        help_text="A string, a list of strings, a list of tokens, or a list of lists of tokens."
    )
    encoding_format = serializers.ChoiceField(("float", "base64"), required=False)
    dimensions = serializers.IntegerField(required=False, min_value=1)


class CompactRequestSerializer(serializers.Serializer[object]):
    model = serializers.CharField(required=False, help_text="Default: the gateway's default model.")
    input = serializers.JSONField(required=False, help_text="A string, or a list of items.")
    instructions = serializers.CharField(required=False, allow_null=True)
    previous_response_id = serializers.CharField(
        required=False,
        allow_null=True,
        help_text="The id of a response that this account created through this gateway.",
    )


class InputTokensRequestSerializer(CompactRequestSerializer):
    tools = serializers.ListField(child=serializers.JSONField(), required=False)


class ResponseSerializer(InputTokensRequestSerializer):
    stream = serializers.BooleanField(required=False)
    max_output_tokens = serializers.IntegerField(required=False, allow_null=True)


class CountedInputTokensSerializer(serializers.Serializer[object]):
    object = serializers.CharField(help_text="Always `response.input_tokens`.")
    input_tokens = serializers.IntegerField()


class OpenAIErrorBodySerializer(serializers.Serializer[object]):
    message = serializers.CharField()
    type = serializers.CharField()
    param = serializers.CharField(allow_null=True)
    code = serializers.CharField(allow_null=True)


class OpenAIErrorSerializer(serializers.Serializer[object]):
    error = OpenAIErrorBodySerializer()


OPENAI_REFUSALS: dict[Any, Any] = dict.fromkeys((400, 401, 409, 422, 429, 502, 503), OpenAIErrorSerializer)
"""For OpenAI's endpoints that call models."""


class MessagesRequestSerializer(serializers.Serializer[object]):
    model = serializers.CharField(required=False, help_text="Default: the gateway's default model.")
    max_tokens = serializers.IntegerField(min_value=0)
    messages = MessageSerializer(many=True)
    system = serializers.JSONField(required=False, help_text="A string, or a list of text blocks.")
    stream = serializers.BooleanField(required=False)
    tools = serializers.ListField(child=serializers.JSONField(), required=False)


class CountTokensRequestSerializer(serializers.Serializer[object]):
    model = serializers.CharField(required=False, help_text="Default: the gateway's default model.")
    messages = MessageSerializer(many=True)
    system = serializers.JSONField(required=False, help_text="A string, or a list of text blocks.")
    tools = serializers.ListField(child=serializers.JSONField(), required=False)


class CountedTokensSerializer(serializers.Serializer[object]):
    input_tokens = serializers.IntegerField()


class AnthropicErrorBodySerializer(serializers.Serializer[object]):
    type = serializers.CharField()
    message = serializers.CharField()


class AnthropicErrorSerializer(serializers.Serializer[object]):
    type = serializers.CharField(help_text="Always `error`.")
    error = AnthropicErrorBodySerializer()
    request_id = serializers.CharField()


ANTHROPIC_REFUSALS: dict[Any, Any] = dict.fromkeys(
    (400, 401, 402, 404, 409, 413, 422, 429, 502, 503, 529), AnthropicErrorSerializer
)
"""For Anthropic's endpoints that call models."""


class NativeRequestSerializer(serializers.Serializer[object]):
    messages = MessageSerializer(many=True)
    model = serializers.CharField(required=False)
    stream = serializers.BooleanField(required=False)
    max_tokens = serializers.IntegerField(required=False, min_value=1)
    temperature = serializers.DecimalField(max_digits=4, decimal_places=2, required=False, coerce_to_string=False)


class NativeUsageSerializer(serializers.Serializer[object]):
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()


class NativeReplySerializer(serializers.Serializer[object]):
    reply = serializers.CharField()
    model = serializers.CharField()
    usage = NativeUsageSerializer()


class ModelSerializer(serializers.Serializer[object]):
    id = serializers.CharField()
    object = serializers.CharField()
    created = serializers.IntegerField(help_text="Unix seconds.")
    owned_by = serializers.CharField()
    context_length = serializers.IntegerField(required=False, help_text="Tokens of input and output, where known.")
    max_output_tokens = serializers.IntegerField(required=False, help_text="Where known.")


class ModelPageSerializer(serializers.Serializer[object]):
    limit = serializers.IntegerField(
        required=False, min_value=1, max_value=1000, help_text="Only with `anthropic-version`. Default: 20."
    )
    after_id = serializers.CharField(
        required=False, help_text="Only with `anthropic-version`: list the models after this id."
    )
    before_id = serializers.CharField(
        required=False, help_text="Only with `anthropic-version`: list the models before this id."
    )


class ModelListSerializer(serializers.Serializer[object]):
    object = serializers.CharField()
    data = ModelSerializer(many=True)  # type: ignore[assignment]  # the API's own word; DRF's .data is not used here
