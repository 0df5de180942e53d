"""Thinking in the forms used by callers and providers: Anthropic's blocks, and the details of chat messages.

Anthropic accepts its blocks back only unchanged. Chat completions have no standard for it: servers write a text
(`reasoning_content`, `reasoning`), and OpenRouter has `reasoning_details`, which can carry a signature.

Sources, read 2026-11: Anthropic's documentation ("Extended thinking": "Preserving thinking blocks", "Controlling
thinking display"); openrouter.ai/docs, "Reasoning tokens"; docs.litellm.ai, "Reasoning content" (`thinking_blocks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm.types import Thinking, ThinkingDelta

BLOCK_KINDS = ("thinking", "redacted_thinking")
_TEXT_FIELDS = ("reasoning_content", "reasoning")
_OWN_FORMATS = ("anthropic", "unknown")
"""Values of a detail's `format` if Anthropic may have written its signature or data. It refuses all others."""


def read_blocks(blocks: Iterable[Any]) -> tuple[Thinking, ...]:
    """The thinking among a message's blocks, without empty blocks. Never raises, whatever they contain."""
    read = (_read_block(block) for block in blocks if isinstance(block, dict) and block.get("type") in BLOCK_KINDS)
    return tuple(thinking for thinking in read if thinking != Thinking())


def thinking_block(thinking: Thinking) -> dict[str, str]:
    if thinking.data:
        return {"type": "redacted_thinking", "data": thinking.data}
    return {"type": "thinking", "thinking": thinking.text, "signature": thinking.signature}


def read_details(details: Iterable[Any]) -> tuple[Thinking, ...]:
    """`reasoning_details` of a whole message. Never raises, whatever they contain.

    Callers may return the pieces of a stream as they collected them: those of one block have the same index.
    """
    return tuple(map(_joined, _blocks_of_pieces(details)))


def thinking_detail(piece: Thinking | ThinkingDelta, index: int) -> dict[str, Any]:
    if piece.data:
        return {"type": "reasoning.encrypted", "data": piece.data, "index": index}
    signature = {"signature": piece.signature} if piece.signature else {}
    return {"type": "reasoning.text", "text": piece.text, **signature, "index": index}


def read_reply_thinking(message: Mapping[str, Any]) -> tuple[Thinking, ...]:
    """The thinking in the message of a chat server's whole reply. Never raises."""
    details = message.get("reasoning_details")
    read = read_details(details) if isinstance(details, list) else ()
    text = _plain_text(message)
    return (Thinking(text), *read) if text and not any(thinking.text for thinking in read) else read


def read_delta_thinking(delta: Mapping[str, Any]) -> list[ThinkingDelta]:
    """The thinking in one delta of a chat server's stream. Never raises."""
    details = delta.get("reasoning_details")
    pieces = _pieces(details) if isinstance(details, list) else ()
    read = [
        ThinkingDelta(index if type(index) is int and index >= 0 else 0, piece.text, piece.signature, piece.data)
        for index, piece in pieces
    ]
    text = _plain_text(delta)
    return [ThinkingDelta(0, text), *read] if text and not any(piece.text for piece in read) else read


def _read_block(block: Mapping[str, Any]) -> Thinking:
    if block["type"] == "redacted_thinking":
        return Thinking(data=_string(block, "data"))
    return Thinking(_string(block, "thinking"), _string(block, "signature"))


def _blocks_of_pieces(details: Iterable[Any]) -> Iterator[list[Thinking]]:
    pieces: list[Thinking] = []
    index_before: Any = None
    for index, piece in _pieces(details):
        if pieces and (index is None or index != index_before or piece.data or pieces[-1].can_return):
            yield pieces
            pieces = []
        pieces.append(piece)
        index_before = index
    if pieces:
        yield pieces


def _joined(pieces: list[Thinking]) -> Thinking:
    return Thinking("".join([piece.text for piece in pieces]), pieces[-1].signature, pieces[-1].data)


def _pieces(details: Iterable[Any]) -> Iterator[tuple[Any, Thinking]]:
    """(index, piece) of each detail that isn't empty. The index is not validated."""
    for detail in details:
        if isinstance(detail, dict) and (piece := _read_detail(detail)) != Thinking():
            yield detail.get("index"), piece


def _read_detail(detail: Mapping[str, Any]) -> Thinking:
    kind, of_format = detail.get("type"), detail.get("format")
    is_foreign = isinstance(of_format, str) and bool(of_format) and not of_format.startswith(_OWN_FORMATS)
    if kind == "reasoning.text":
        return Thinking(_string(detail, "text"), "" if is_foreign else _string(detail, "signature"))
    if kind == "reasoning.summary":
        return Thinking(_string(detail, "summary"))
    return Thinking(data=_string(detail, "data")) if kind == "reasoning.encrypted" and not is_foreign else Thinking()


def _plain_text(holder: Mapping[str, Any]) -> str:
    return next((text for name in _TEXT_FIELDS if (text := _string(holder, name))), "")


def _string(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""
