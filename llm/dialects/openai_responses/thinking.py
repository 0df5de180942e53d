"""Thinking as the `reasoning` items of a response, and as returned in the next request's input.

The text is the summary. The signature is in `encrypted_content`, which callers return unread. As in OpenAI's own
responses it doesn't depend on `include`: an item without it would refer to one stored by the provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm.dialects.openai_responses.text import items_of
from llm.types import Thinking

_OURS = "llm-gateway."
_SIGNATURE = f"{_OURS}signature:"
_DATA = f"{_OURS}data:"
"""Prefix of our own `encrypted_content`; OpenAI's is base64, which contains neither dots nor colons."""


def reasoning_item(item_id: str, thinking: Thinking) -> dict[str, Any]:
    sealed = _DATA + thinking.data if thinking.data else _SIGNATURE + thinking.signature
    summary = [summary_part(thinking.text)] if thinking.text else []
    return {"id": item_id, "type": "reasoning", "status": "completed", "summary": summary, "encrypted_content": sealed}


def summary_part(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}


def read_reasoning_item(item: Mapping[str, Any]) -> Iterator[Thinking]:
    """The thinking in an item of ours; empty if another provider wrote it. Never raises."""
    sealed, summary = item.get("encrypted_content"), item.get("summary")
    if not isinstance(sealed, str):
        return
    if sealed.startswith(_DATA):
        yield Thinking(data=sealed.removeprefix(_DATA))
    elif sealed.startswith(_SIGNATURE):
        texts = [part.get("text") for part in items_of(summary)]
        text = "".join([text for text in texts if isinstance(text, str)])
        yield Thinking(text, sealed.removeprefix(_SIGNATURE))


def changed_input(raw: bytes, body: Mapping[str, Any]) -> dict[str, Any]:
    """The changes for OpenAI, which refuses `encrypted_content` that it hasn't written: our items are removed.

    They reach it if a route falls back to it. raw: the bytes of `body`.
    """
    items = body.get("input")
    if _OURS.encode() not in raw or not isinstance(items, list):
        return {}
    kept = [item for item in items if not _is_ours(item)]
    return {"input": kept} if len(kept) < len(items) else {}


def _is_ours(item: Any) -> bool:
    sealed = item.get("encrypted_content") if isinstance(item, dict) and item.get("type") == "reasoning" else None
    return isinstance(sealed, str) and sealed.startswith(_OURS)
