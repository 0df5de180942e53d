"""How many values a JSON text can hold, from its bytes alone: known before a parser makes an object of each.

A parser takes 60 bytes and more for a value that is written in two. 31 MB of `[1,1,1,...` are 16 million of them.
"""

from __future__ import annotations

import re

from llm.errors import InvalidRequest

MAX_BRACKETS = 250_000
MAX_VALUES = 500_000
# Embeddings are whole replies of numbers: 2,048 of them with 3,072 dimensions each are six million.
MAX_REPLY_VALUES = 8_000_000
# Below this many marks nobody needs to know which of them stand in texts.
_FEW = 10_000
# Possessive, so that it takes each byte once whatever the text is.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def count_values(raw: bytes) -> int:
    """At most so many values are in a request body. Raises InvalidRequest where there are too many.

    Each value but the first stands behind a comma, a colon or an opening bracket. Those in texts are not counted once
    they would matter: a long prompt of source code, JSON or CSV is one value.
    """
    brackets, separators = _marks(raw)
    if brackets + separators > _FEW:
        # One text too many is enough to know; more of them would only take longer.
        rest, texts = _STRING.subn(b"", raw, count=MAX_VALUES + 1)
        brackets, separators = _marks(rest)
        separators = max(separators, texts // 2)
    if brackets > MAX_BRACKETS:
        raise InvalidRequest(f"The request body has more than {MAX_BRACKETS:,} opening brackets.")
    if brackets + separators > MAX_VALUES:
        raise InvalidRequest(f"The request body has more than {MAX_VALUES:,} values.")
    return brackets + separators


def is_readable_reply(raw: bytes) -> bool:
    """False for more values than anybody can have asked an upstream for."""
    if sum(_marks(raw)) <= MAX_REPLY_VALUES:
        return True
    rest, texts = _STRING.subn(b"", raw, count=MAX_REPLY_VALUES + 1)
    return max(sum(_marks(rest)), texts // 2) <= MAX_REPLY_VALUES


def _marks(raw: bytes) -> tuple[int, int]:
    """Opening brackets, and commas with colons."""
    return raw.count(b"{") + raw.count(b"["), raw.count(b",") + raw.count(b":")
