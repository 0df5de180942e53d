"""The text in chat messages, replies and deltas, for counting. Lenient: nothing here raises, whatever the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm.dialects.json_text import as_json

# Plain text in a message or a delta. Compatible servers have two names for reasoning.
_TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")
_PROMPT_OBJECTS = ("tools", "functions", "response_format")


def prompt_text(body: Mapping[str, Any]) -> str:
    """Messages, tool definitions and the schema of the reply, in that order, one per line."""
    messages = body.get("messages")
    texts = [_prompt_message(message) for message in messages] if isinstance(messages, list) else []
    texts += [as_json(body[name]) for name in _PROMPT_OBJECTS if body.get(name)]
    return "\n".join(texts)


def message_text(message: Any) -> str:
    """Text of a reply's message or of a stream's delta: content, reasoning, refusal, tool calls, transcript."""
    if not isinstance(message, dict):
        return ""
    if len(message) == 1 and isinstance(content := message.get("content"), str):
        return content  # almost every delta of a stream
    texts = [_content_text(message[name]) for name in _TEXT_FIELDS if message.get(name)]
    if message.get("tool_calls"):
        texts += _tool_call_texts(message["tool_calls"])
    if message.get("function_call"):
        texts += _function_texts(message["function_call"])
    audio = message.get("audio")
    if isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
        texts.append(audio["transcript"])
    return "".join(texts)


def _prompt_message(message: Any) -> str:
    text = message_text(message)
    name = message.get("name") if isinstance(message, dict) else None
    return f"{name} {text}" if isinstance(name, str) else text


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(_part_texts(content))


def _part_texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            yield from (part[name] for name in ("text", "refusal") if isinstance(part.get(name), str))


def _tool_call_texts(calls: Any) -> Iterator[str]:
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            yield from _function_texts(call.get("function"))
            yield from _function_texts(call.get("custom"))


def _function_texts(function: Any) -> Iterator[str]:
    if isinstance(function, dict):
        yield from (function[name] for name in ("name", "arguments", "input") if isinstance(function.get(name), str))
