"""Counting tokens without a tokenizer: for replies whose upstream reports no usage, and for the echo provider.

An approximation, and the rows that rest on it say “estimated”. Rule: a run of ASCII letters is one token for every
started six characters, digits one for every started three, each other printable character one token of its own; text
of other scripts one token a character. Leading spaces belong to the word that follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llm.types import ChatMessage, ImagePart

MESSAGE_OVERHEAD_TOKENS = 4
IMAGE_TOKENS = 765  # A 1024 x 1024 picture in high detail, in OpenAI's published arithmetic (85 + 4 x 170).

_PIECES = re.compile(r"([A-Za-z]+)|([0-9]+)|(\n+)|([^\sA-Za-z0-9])")
_LETTERS_PER_TOKEN = 6
_DIGITS_PER_TOKEN = 3


def count_text_tokens(text: str) -> int:
    count = 0
    for piece in _PIECES.finditer(text):
        size = piece.end() - piece.start()
        if piece.lastindex == 1:
            count += -(-size // _LETTERS_PER_TOKEN)
        elif piece.lastindex == 2:
            count += -(-size // _DIGITS_PER_TOKEN)
        else:
            count += 1
    return count


def count_message_tokens(messages: Sequence[ChatMessage]) -> int:
    return sum(_count_message(message) for message in messages)


def _count_message(message: ChatMessage) -> int:
    count = MESSAGE_OVERHEAD_TOKENS + count_text_tokens(message.text)
    if not isinstance(message.content, str):
        count += sum(IMAGE_TOKENS for part in message.content if isinstance(part, ImagePart))
    for call in message.tool_calls:
        count += count_text_tokens(call.name) + count_text_tokens(call.arguments)
    return count
