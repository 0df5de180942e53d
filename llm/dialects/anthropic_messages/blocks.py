"""The blocks of messages, and their text. Lenient: nothing here raises, whatever the input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llm.dialects.json_text import as_json
from llm.dialects.reply_fields import loaded

_TEXT_MEMBERS = ("text", "thinking", "name", "title", "context")
_DELTA_MEMBERS = ("text", "thinking", "partial_json", "content")
_UNSIGNED = re.compile(rb'"signature"\s*+:\s*+""')
_PROMPT_OBJECTS = ("tools", "output_config", "output_format", "mcp_servers")


def blocks_of(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, block) of every block of a request's messages, including those inside tool results and documents."""
    for index, message in enumerate(listed(body.get("messages"))):
        if isinstance(message, dict):
            yield from _blocks_in(message.get("content"), f"messages[{index}].content")


def prompt_text(body: Mapping[str, Any]) -> str:
    """System prompt, messages, tool definitions and the schema of the reply, in that order, one per line."""
    contents = [message.get("content") for message in listed(body.get("messages")) if isinstance(message, dict)]
    texts = [content_text(content) for content in (body.get("system"), *contents)]
    texts += [as_json(body[name]) for name in _PROMPT_OBJECTS if body.get(name)]
    return "\n".join(text for text in texts if text)


def content_text(content: Any) -> str:
    """Of a message, a reply or a tool result: text, thinking, tool calls with their input."""
    if isinstance(content, str):
        return content
    return " ".join(filter(None, map(_block_text, content))) if isinstance(content, list) else ""


def event_text(data: bytes) -> str:
    """What the model wrote in one event of a stream. data: of the event."""
    event = loaded(data) or {}
    delta, block = event.get("delta"), event.get("content_block")
    if isinstance(delta, dict):
        return next((delta[name] for name in _DELTA_MEMBERS if isinstance(delta.get(name), str)), "")
    return _block_text(block) if isinstance(block, dict) else ""


def signed_messages(raw: bytes, body: Mapping[str, Any]) -> dict[str, Any]:
    """The changes for Anthropic, which refuses thinking that it hasn't signed: unsigned thinking is removed.

    Other providers' thinking is rendered without a signature, and reaches Anthropic if a route falls back to it.
    raw: the bytes of `body`.
    """
    if _UNSIGNED.search(raw) is None:
        return {}
    messages = listed(body.get("messages"))
    signed = [_signed(message) for message in messages]
    return {"messages": signed} if signed != messages else {}


def _signed(message: Any) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    kept = [block for block in listed(content) if not _is_unsigned(block)]
    return {**message, "content": kept} if kept else message


def _is_unsigned(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "thinking" and block.get("signature") == ""


def _blocks_in(content: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for index, block in enumerate(listed(content)):
        if isinstance(block, dict):
            here = f"{path}[{index}]"
            yield here, block
            yield from _blocks_in(block.get("content"), f"{here}.content")
            if isinstance(source := block.get("source"), dict):
                yield from _blocks_in(source.get("content"), f"{here}.source.content")


def _block_text(block: Any) -> str:
    if not isinstance(block, dict):
        return block if isinstance(block, str) else ""
    texts = [block[name] for name in _TEXT_MEMBERS if isinstance(block.get(name), str)]
    if block.get("input"):
        texts.append(as_json(block["input"]))
    texts.append(content_text(block.get("content")))
    source = block.get("source")
    if isinstance(source, dict):
        texts.append(content_text(source.get("data") if source.get("type") == "text" else source.get("content")))
    return " ".join(filter(None, texts))


def listed(value: Any) -> list[Any]:
    """The value if it is a list, otherwise an empty list."""
    return value if isinstance(value, list) else []
