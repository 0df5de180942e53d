"""Shapes for the API's description. Bodies of calls are not read through them: unknown fields must pass through."""

from __future__ import annotations

from rest_framework import serializers


class MessageSerializer(serializers.Serializer[object]):
    role = serializers.CharField()
    content = serializers.JSONField(required=False, help_text="A string, or a list of parts.")


class StreamOptionsSerializer(serializers.Serializer[object]):
    include_usage = serializers.BooleanField(required=False)


class ChatCompletionSerializer(serializers.Serializer[object]):
    model = serializers.CharField(required=False, help_text="Without it, the gateway's default model.")
    messages = MessageSerializer(many=True)
    stream = serializers.BooleanField(required=False)
    stream_options = StreamOptionsSerializer(required=False)
    n = serializers.IntegerField(required=False, min_value=1, max_value=128)
    max_completion_tokens = serializers.IntegerField(required=False, min_value=1)
    tools = serializers.ListField(child=serializers.JSONField(), required=False)


class OpenAIErrorBodySerializer(serializers.Serializer[object]):
    message = serializers.CharField()
    type = serializers.CharField()
    param = serializers.CharField(allow_null=True)
    code = serializers.CharField(allow_null=True)


class OpenAIErrorSerializer(serializers.Serializer[object]):
    error = OpenAIErrorBodySerializer()


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


class ModelListSerializer(serializers.Serializer[object]):
    object = serializers.CharField()
    data = ModelSerializer(many=True)  # type: ignore[assignment]  # the API's own word; DRF's .data is not used here
