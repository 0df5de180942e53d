"""What an upstream says of its own prices in a reply: taken out of it, and kept for reconciliation.

It is our purchase price, so it reaches nobody as the upstream wrote it; who may see costs gets ours. Members are cut
out of the text by their names, at any depth, and all other bytes stay. What the model wrote is not searched.

Sources, read 2026-11:
- OpenRouter (docs/use-cases/usage-accounting): `usage.cost`, `usage.cost_details`, `usage.is_byok`, `cache_discount`.
- Vercel AI Gateway: `usage.cost`, `usage.market_cost`, `usage.is_byok`, `provider_metadata.gateway.cost`.
- xAI (docs.x.ai/developers/cost-tracking): `usage.cost_in_usd_ticks`, of which 10**10 are one USD.
- Perplexity: `usage.cost`, an object with `total_cost`. DeepInfra: `usage.estimated_cost`.
- LiteLLM: `usage.cost`, `_hidden_params.response_cost`.
- Groq's `x_groq` and Cohere's `billed_units` hold times and tokens, no money.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import orjson

from llm.dialects.json_text import end_of_value
from llm.money import PICO
from llm.types import UpstreamCost

MONEY_WORDS = frozenset(
    (
        *("balance", "byok", "charge", "charged", "charges", "cost", "costs", "credit", "credits", "discount"),
        *("discounts", "fee", "fees", "price", "prices", "pricing", "spend", "usd"),
    )
)
"""A member whose name has one of these words (`upstream_inference_cost`, `marketCost`) tells a price."""

_MODELS_OWN = frozenset(
    (
        *("annotations", "arguments", "audio", "citations", "content", "function_call", "input", "logprobs", "parsed"),
        *("reasoning", "reasoning_content", "reasoning_details", "refusal", "search_results", "text", "tool_calls"),
    )
)
_MARKS = (b"cost", b"byok", b"pric", b"credit", b"usd", b"discount", b"fee", b"charge", b"spend", b"balance")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_KEY = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")(\s*+:\s*+)?+', re.DOTALL)
_SPACE = re.compile(rb"\s*+")
_BLANKS = re.compile(rb"[ \t]*+")
_TICKS = 10**10
_MAX_PICO = 2**63 - 1


def may_hold_money(text: bytes) -> bool:
    """A quick look; most texts hold none of the words."""
    lowered = text.lower()
    return any(mark in lowered for mark in _MARKS)


def without_money(text: bytes) -> bytes:
    """text: a JSON object, or an event of SSE whose data is one."""
    if not may_hold_money(text):
        return text
    kept = bytearray()
    position = 0
    for start, end in _money_members(text):
        kept += text[position:start]
        position = _behind_comma(text, end)
        if position == end:
            _drop_last_comma(kept)
    return bytes(kept + text[position:]) if position else text


def upstream_cost_of(document: Mapping[str, Any]) -> UpstreamCost | None:
    """What the upstream says that the call costs us; None where it says nothing or nonsense."""
    usage, hidden = document.get("usage"), document.get("_hidden_params")
    figures = usage if isinstance(usage, Mapping) else {}
    cost = figures.get("cost")
    if isinstance(cost, Mapping):
        cost = cost.get("total_cost")
    if cost is None and type(ticks := figures.get("cost_in_usd_ticks")) is int:
        return _of_pico(Decimal(ticks) * PICO / _TICKS)
    if cost is None:
        cost = figures.get("estimated_cost")
    if cost is None and isinstance(hidden, Mapping):
        cost = hidden.get("response_cost")
    return _of_usd(cost)


def _money_members(text: bytes) -> Iterator[tuple[int, int]]:
    """(start of the key, end of the value) of each member that tells a price."""
    position = 0
    while (key := _KEY.search(text, position)) is not None:
        position = key.end()
        if key.group(2) is None:
            continue
        kind = _kind_of(key.group(1))
        if kind:
            position = end_of_value(text, key.end())
        if kind == "money":
            yield key.start(), position


@lru_cache(maxsize=4096)
def _kind_of(quoted: bytes) -> str:
    """Of a key: `money`, `model` for what the model wrote, or "" for what is to be looked into."""
    try:
        name = str(orjson.loads(quoted))
    except orjson.JSONDecodeError:
        return ""
    if name in _MODELS_OWN:
        return "model"
    return "money" if any(word.lower() in MONEY_WORDS for word in _WORD.findall(name)) else ""


def _behind_comma(text: bytes, end: int) -> int:
    """Behind the comma that follows the value, and the space after it; `end` where none follows."""
    comma = _end_of(_SPACE, text, end)
    if text[comma : comma + 1] != b",":
        return end
    # The lines of an event stay lines.
    return _end_of(_SPACE if text[:1] in b"{[ \n" else _BLANKS, text, comma + 1)


def _drop_last_comma(kept: bytearray) -> None:
    """The comma before a last member that was cut, also where the lines of an event part them."""
    rest = kept.rstrip()
    while rest.endswith(b"data:"):
        rest = rest[: -len(b"data:")].rstrip()
    if rest.endswith(b","):
        kept[:] = rest[:-1]


def _end_of(pattern: re.Pattern[bytes], text: bytes, start: int) -> int:
    found = pattern.match(text, start)
    return found.end() if found else start


def _of_usd(cost: object) -> UpstreamCost | None:
    if isinstance(cost, bool) or not isinstance(cost, int | float | str):
        return None
    try:
        return _of_pico(Decimal(str(cost)[:50]) * PICO)
    except InvalidOperation:
        return None


def _of_pico(pico: Decimal) -> UpstreamCost | None:
    """Rounded to whole pico-units: the figure is theirs, to be compared, never to be billed."""
    if not pico.is_finite() or not 0 <= pico <= _MAX_PICO:
        return None
    whole = pico.to_integral_value(ROUND_HALF_UP)
    return UpstreamCost(int(whole), is_rounded=whole != pico)
