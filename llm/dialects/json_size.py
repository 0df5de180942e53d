"""How many values a JSON text can hold, from its bytes alone: known before a parser makes an object of each.

A parser takes 60 bytes and more for a value that is written in two. 31 MB of `[1,1,1,...` are 16 million of them.
"""

from __future__ import annotations

import re

from llm.errors import InvalidRequest

MAX_BRACKETS = 50_000
MAX_VALUES = 100_000
# Of a request for embeddings, whose inputs may be lists of tokens: OpenAI takes 300,000 of them.
MAX_TOKEN_VALUES = 400_000
# Whole replies may be numbers for the most part (the probabilities of each token, and of twenty others each).
MAX_REPLY_VALUES = 8_000_000
# Of what is read on the event loop. Each value costs up to a microsecond there, each byte of a text without escapes
# three nanoseconds; where texts have to be told from the rest, each byte costs twenty.
MAX_CHEAP_BYTES = 4 * 1024**2
MAX_CHEAP_MARKED_BYTES = 1024**2
MAX_CHEAP_ESCAPES = 100_000
# Less than this, and nothing in it can take long.
_SURELY_CHEAP_BYTES = 16 * 1024
# Below this many marks nobody needs to know which of them stand in texts.
_FEW = 10_000
# Possessive, and to the end of the text where no quote ends it: so it takes each byte once, whatever the text is.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def count_if_cheap(raw: bytes) -> int | None:
    """At most so many values are in a text that takes some milliseconds to read, however it is made up; else None.

    Cheap by itself: two passes over up to 4 MB, or two over 1 MB and a slower one.
    """
    if len(raw) > MAX_CHEAP_BYTES:
        return None
    return _count_within(raw, max_marked_bytes=MAX_CHEAP_MARKED_BYTES)


def is_readable_event(raw: bytes) -> bool:
    """Whether an event of a stream, of which there may be many, takes no longer to read than a cheap body does.

    A long text is readable whatever its length, since the splitter bounds that.
    """
    return len(raw) <= _SURELY_CHEAP_BYTES or _count_within(raw, max_marked_bytes=MAX_CHEAP_BYTES) is not None


def _count_within(raw: bytes, *, max_marked_bytes: int) -> int | None:
    marks = len(raw) - len(raw.translate(None, b"{[,:\\"))
    if marks <= _FEW:
        return marks
    if len(raw) > max_marked_bytes or raw.count(b"\\") > MAX_CHEAP_ESCAPES:
        return None
    rest, texts = _STRING.subn(b"", raw, count=_FEW)
    values = sum(_marks(rest))
    return values if texts < _FEW and values <= _FEW else None


def count_values(raw: bytes, *, limit: int = MAX_VALUES) -> int:
    """At most so many values are in a request body. Raises InvalidRequest where they are more than `limit`.

    Each value but the first stands behind a comma, a colon or an opening bracket. Those in texts are not counted once
    they would matter: a long prompt of source code, JSON or CSV is one value.
    """
    brackets, separators = _marks(raw)
    if brackets + separators > _FEW:
        # One text too many is enough to know; more of them would only take longer.
        rest, texts = _STRING.subn(b"", raw, count=limit + 1)
        brackets, separators = _marks(rest)
        separators = max(separators, texts // 2)
    if brackets > MAX_BRACKETS:
        raise InvalidRequest(f"The request body has more than {MAX_BRACKETS:,} opening brackets.")
    if brackets + separators > limit:
        raise InvalidRequest(f"The request body has more than {limit:,} values.")
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
