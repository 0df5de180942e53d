"""The text in a request's items, and in a reply's and a stream's events, for counting. Lenient: nothing here raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm.dialects.json_text import as_json
from llm.dialects.reply_fields import loaded, text_in

_TEXT_MEMBERS = ("name", "arguments", "input", "code")
_PART_LISTS = ("content", "summary", "output")
_NO_TEXT = "response.audio.delta"


def prompt_text(body: Mapping[str, Any]) -> str:
    """Instructions, input, tool definitions and the schema of the reply, in that order, one per line."""
    asked = body.get("input")
    texts = [body["instructions"]] if isinstance(body.get("instructions"), str) else []
    texts += [asked] if isinstance(asked, str) else [item_text(item) for item in items_of(asked)]
    texts += [as_json(body[name]) for name in ("tools", "text") if body.get(name)]
    return "\n".join(texts)


def output_text(output: Any) -> str:
    """Generated text: the items of a whole reply."""
    return "".join(item_text(item) for item in items_of(output))


def item_text(item: Mapping[str, Any]) -> str:
    """A message's parts, a call's name and arguments, the summary of reasoning, a tool's result."""
    texts = [item[name] for name in _TEXT_MEMBERS if isinstance(item.get(name), str)]
    for name in _PART_LISTS:
        texts += _part_texts(item.get(name))
    return "".join(texts)


def event_text(data: bytes) -> str:
    """The generated text in one event of a stream, including the name of a called tool."""
    event = loaded(data) or {}
    kind, delta, item = event.get("type"), event.get("delta"), event.get("item")
    if kind == "response.output_item.added" and isinstance(item, dict):
        return text_in(item, "name")
    is_text = isinstance(kind, str) and kind.endswith(".delta") and kind != _NO_TEXT and isinstance(delta, str)
    return str(delta) if is_text else ""


def items_of(value: Any) -> list[dict[str, Any]]:
    """The objects in a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _part_texts(parts: Any) -> Iterator[str]:
    if isinstance(parts, str):
        yield parts
    for part in items_of(parts):
        yield from (part[name] for name in ("text", "refusal") if isinstance(part.get(name), str))
