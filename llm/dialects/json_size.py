"""An upper bound on the number of values in a JSON text, from its bytes, before a parser makes an object of each.

A value written in two bytes takes a parser 60 bytes or more. 31 MB of `[1,1,1,...` are 16 million of them.
"""

from __future__ import annotations

import re

from llm.errors import InvalidRequest

MAX_BRACKETS = 50_000
MAX_VALUES = 100_000
# For requests for embeddings, whose inputs may be lists of tokens: OpenAI accepts 300,000 of them.
MAX_TOKEN_VALUES = 400_000
# Whole replies may consist mostly of numbers (the probabilities of each token, and of twenty alternatives).
MAX_REPLY_VALUES = 8_000_000
# For texts parsed on the event loop. A value costs up to a microsecond there, a byte of a text without escapes three
# nanoseconds; if texts have to be told from the rest, a byte costs twenty.
MAX_CHEAP_BYTES = 4 * 1024**2
MAX_CHEAP_MARKED_BYTES = 1024**2
MAX_CHEAP_ESCAPES = 100_000
# Anything smaller parses fast.
_SURELY_CHEAP_BYTES = 16 * 1024
# With fewer marks than this, it doesn't matter which of them are inside texts.
_FEW = 10_000
# Possessive, and to the end of the text if no closing quote follows, so that each byte is read once, whatever the text.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def count_if_cheap(raw: bytes) -> int | None:
    """Upper bound on the values of a text that parses in milliseconds whatever its content; None for other texts.

    Cheap itself: two passes over up to 4 MB, or two over 1 MB and a slower one.
    """
    if len(raw) > MAX_CHEAP_BYTES:
        return None
    return _count_within(raw, max_marked_bytes=MAX_CHEAP_MARKED_BYTES)


def is_readable_event(raw: bytes) -> bool:
    """Whether an event of a stream, of which there may be many, parses as fast as a cheap body.

    A long text always does, since the splitter bounds its length.
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
    """Upper bound on the values of a request body. Raises InvalidRequest for more than `limit`.

    Each value but the first follows a comma, a colon or an opening bracket. Those inside texts are excluded when they
    would
    matter: a long prompt of source code, JSON or CSV is one value.
    """
    brackets, separators = _marks(raw)
    if brackets + separators > _FEW:
        # One text too many decides; counting on would only take longer.
        rest, texts = _STRING.subn(b"", raw, count=limit + 1)
        brackets, separators = _marks(rest)
        separators = max(separators, texts // 2)
    if brackets > MAX_BRACKETS:
        raise InvalidRequest(f"The request body has more than {MAX_BRACKETS:,} opening brackets.")
    if brackets + separators > limit:
        raise InvalidRequest(f"The request body has more than {limit:,} values.")
    return brackets + separators


def is_readable_reply(raw: bytes) -> bool:
    """False for more values than any request can have asked an upstream for."""
    if sum(_marks(raw)) <= MAX_REPLY_VALUES:
        return True
    rest, texts = _STRING.subn(b"", raw, count=MAX_REPLY_VALUES + 1)
    return max(sum(_marks(rest)), texts // 2) <= MAX_REPLY_VALUES


def _marks(raw: bytes) -> tuple[int, int]:
    """Opening brackets, and commas and colons."""
    return raw.count(b"{") + raw.count(b"["), raw.count(b",") + raw.count(b":")
