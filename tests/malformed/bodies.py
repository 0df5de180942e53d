"""Valid requests of each dialect, with most of what their bodies can hold: what `mutations` starts from."""

from __future__ import annotations

from typing import Any

from tests.fakes.anthropic_wire import redacted, signature_of

CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/completions",
    "/v1/embeddings",
)
MESSAGES, COUNT_TOKENS, NATIVE = "/v1/messages", "/v1/messages/count_tokens", "/api/chat"
INPUT_TOKENS = "/v1/responses/input_tokens"

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}

_CHAT: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "text", "text": "Say."}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "I look it up.",
            "reasoning_details": [
                {"type": "reasoning.text", "text": "I look.", "signature": signature_of("I look."), "index": 0}
            ],
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And here?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
            ],
        },
    ],
    "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "max_completion_tokens": 100,
    "n": 1,
    "stop": ["END"],
    "temperature": 0.5,
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}},
    "user": "ada",
    "safety_identifier": "ada",
    "metadata": {"team": "search", "user_id": "ada"},
    "store": False,
    "service_tier": "default",
}
_RESPONSES: dict[str, Any] = {
    "model": "gpt-4o",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": "hello"},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "I look."}],
            "encrypted_content": "YQ==",
        },
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And here?"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "low"},
            ],
        },
    ],
    "tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": SCHEMA, "strict": True}],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "max_output_tokens": 100,
    "temperature": 0.5,
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "reasoning": {"effort": "low", "summary": "auto"},
    "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}},
    "metadata": {"team": "search"},
    "user": "ada",
    "truncation": "disabled",
}
_MESSAGES: dict[str, Any] = {
    "model": "gpt-4o",
    "max_tokens": 2000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I look.", "signature": signature_of("I look.")},
                {"type": "redacted_thinking", "data": redacted("I look.")},
                {"type": "text", "text": "One moment."},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Rome"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "sunny"}]},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                {"type": "text", "text": "And here?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ],
    "tools": [{"name": "look", "description": "Looks.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
    "stop_sequences": ["END"],
    "metadata": {"user_id": "ada"},
    "service_tier": "auto",
    "thinking": {"type": "enabled", "budget_tokens": 1024},
}
_OF_A_COUNTED_INPUT = ("model", "instructions", "input", "tools", "tool_choice", "reasoning", "text", "truncation")
_OF_ONE_TURN = ("model", "system", "messages", "tools", "tool_choice", "thinking")

VALID_BODIES: dict[str, dict[str, Any]] = {
    CHAT: _CHAT,
    RESPONSES: _RESPONSES,
    INPUT_TOKENS: {name: _RESPONSES[name] for name in _OF_A_COUNTED_INPUT},
    COMPLETIONS: {
        "model": "gpt-3.5-turbo-instruct",
        "prompt": ["hello", "there"],
        "max_tokens": 20,
        "n": 1,
        "best_of": 1,
        "stop": ["END"],
        "logprobs": 1,
        "user": "ada",
    },
    EMBEDDINGS: {
        "model": "text-embedding-3-small",
        "input": ["hello", "there"],
        "encoding_format": "float",
        "dimensions": 8,
        "user": "ada",
    },
    MESSAGES: _MESSAGES,
    COUNT_TOKENS: {name: _MESSAGES[name] for name in _OF_ONE_TURN},
    NATIVE: {
        "model": "gpt-4o",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
    },
}
STREAMED: dict[str, dict[str, Any]] = {
    **{path: {"stream": True, "stream_options": {"include_usage": True}} for path in (CHAT, COMPLETIONS)},
    **{path: {"stream": True} for path in (RESPONSES, MESSAGES, NATIVE)},
}
"""What makes a stream of a body."""
