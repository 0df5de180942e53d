"""An upstream's own prices in a reply: removed from it, and kept for reconciliation.

They are our purchase prices, so no caller gets them as the upstream wrote them; accounts that may see costs get ours.
Members are cut out of the text by name, at any depth; all other bytes stay. Text written by the model isn't searched.

Sources, read 2026-11:
- OpenRouter (docs/use-cases/usage-accounting): `usage.cost`, `usage.cost_details`, `usage.is_byok`, `cache_discount`.
- Vercel AI Gateway: `usage.cost`, `usage.market_cost`, `usage.is_byok`, `provider_metadata.gateway.cost`.
- xAI (docs.x.ai/developers/cost-tracking): `usage.cost_in_usd_ticks`, of which 10**10 are one USD.
- Perplexity: `usage.cost`, an object with `total_cost`. DeepInfra: `usage.estimated_cost`.
- LiteLLM: `usage.cost`, `_hidden_params.response_cost`.
- Groq's `x_groq` and Cohere's `billed_units` contain times and tokens, no money.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import orjson

from llm.dialects.json_text import Place, end_of_value, find_member, replaced
from llm.dialects.sse import read_event, with_data
from llm.money import PICO
from llm.types import UpstreamCost

# A name is about money if it contains one of these, joined to other words or not: `upstream_inference_cost`,
# `totalcost`, `costInUsd`. The lookarounds exclude other words: feedback, suspend, accredit.
_MONEY_PARTS = re.compile(
    r"cost|pric(?:e|ing)|byok|dollar|discount|(?<!ac)credit|charge(?!r)|balance(?![dr])|(?<!su)spend(?!er)"
)
_MONEY_WORDS = re.compile(
    r"usd.*|.*usd|eur|euros?|cny|rmb|yuan|fees?|cents|(?:total|service|base|request|token|platform)fees?"
)
"""The short ones only at the beginning or end of a word, or as a whole one."""

_MARKS = (
    *(b"cost", b"byok", b"pric", b"credit", b"usd", b"discount", b"fee", b"charge", b"spend", b"balance", b"dollar"),
    *(b"cents", b"eur", b"cny", b"rmb", b"yuan"),
)
# JSON writers don't escape plain letters, so an escaped one may hide a word from a search of the bytes.
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NOT_A_LETTER = re.compile(r"[^a-z]+")

_MODELS_JSON: Mapping[str, frozenset[str]] = {
    "arguments": frozenset(("function", "function_call", "custom", "tool_calls")),
    "args": frozenset(("function", "function_call", "tool_calls")),
    "input": frozenset(("custom", "tool_calls", "content", "content_block")),
    "json": frozenset(("content",)),
    "parameters": frozenset(("function", "function_call", "tool_calls")),
    "parsed": frozenset(("message", "delta")),
    "parsed_arguments": frozenset(("function", "function_call")),
    # In the older form its keys are the tokens that the model considered.
    "top_logprobs": frozenset(("logprobs",)),
}
"""Member -> the objects in which it is JSON written by the model, whose members may have any name."""

_MESSAGES = frozenset(("choices", "content", "content_block"))
"""What contains messages: OpenAI's choices; Anthropic's content, and one block of it in a stream."""

_ECHOED = frozenset(("tools", "tool_choice", "text", "instructions", "input", "metadata"))
"""Members of a response that repeat the request: their content is the caller's."""
_OTHERS_JSON = frozenset(("action", "attributes", "input_schema", "parameters", "parsed", "parsed_arguments", "tools"))
"""Members of a response's items that are JSON written by the model, or by a server of tools."""
_OF_RESPONSE = (["output"], ["item"], ["response"], ["data"])

_STEP = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")(\s*+:\s*+)?+|[{}\[\]]', re.DOTALL)
_SPACE = re.compile(rb"\s*+")
# Whitespace in front of a member; any more is left in place, with the comma before it.
_MAX_SPACE = 1000
_TICKS = 10**10
_MAX_PICO = 2**63 - 1


def may_hold_money(text: bytes) -> bool:
    """A quick check; most texts contain none of the words."""
    lowered = text.lower()
    return any(mark in lowered for mark in _MARKS) or (b"\\u00" in text and bool(_ESCAPED_LETTER.search(text)))


def without_money(text: bytes) -> bytes:
    """text: a JSON object, or something that a lenient parser would accept as one."""
    if not may_hold_money(text):
        return text
    return replaced(text, dict.fromkeys(money_places(text), b""))


def money_places(text: bytes) -> list[Place]:
    """What `without_money` removes: such members, each with the comma that separates it from its neighbour."""
    places: list[Place] = []
    for start, end in _money_members(text):
        behind = _behind_comma(text, end)
        first = start
        if behind == end:
            # The last of its object: the comma before it goes too, possibly with others of them in between.
            while places and places[-1].end == first:
                first = places.pop().start
            first = _before_comma(text, first)
        places.append(Place(first, behind))
    return places


def event_without_money(raw: bytes) -> bytes:
    """raw: one event of `split_events`. Comments that may be about money are removed whole."""
    if not may_hold_money(raw):
        return raw
    data = read_event(raw).data
    if data is None:
        return b""
    return with_data(raw, without_money(data), keeps_line=lambda line: not may_hold_money(line))


def read_upstream_cost(document: Mapping[str, Any]) -> UpstreamCost | None:
    """The upstream's own figure of the call's cost to us; None if there is none, or it is nonsense.

    With our own key at the gateway's provider (`is_byok`), `cost` is only the gateway's fee, and the provider's bill is
    added: OpenRouter reports it as `cost_details.upstream_inference_cost`, Vercel's `market_cost` is its list price.
    Without either, the fee doesn't say what the call costs.
    """
    usage, hidden = document.get("usage"), document.get("_hidden_params")
    figures = usage if isinstance(usage, Mapping) else {}
    cost = figures.get("cost")
    if isinstance(cost, Mapping):
        cost = cost.get("total_cost")
    if figures.get("is_byok") is True:
        return _with_providers_bill(cost, figures)
    if cost is None and type(ticks := figures.get("cost_in_usd_ticks")) is int:
        return _of_pico(Decimal(ticks) * PICO / _TICKS)
    if cost is None:
        cost = figures.get("estimated_cost")
    if cost is None and isinstance(hidden, Mapping):
        cost = hidden.get("response_cost")
    return _of_usd(cost)


def _with_providers_bill(fee: object, figures: Mapping[str, Any]) -> UpstreamCost | None:
    details = figures.get("cost_details")
    bill = details.get("upstream_inference_cost") if isinstance(details, Mapping) else None
    bill = figures.get("market_cost") if bill is None else bill
    amounts = (_usd_of(0 if fee is None else fee), _usd_of(bill))
    known = [amount for amount in amounts if amount is not None]
    return _of_pico(sum(known, Decimal(0)) * PICO) if len(known) == len(amounts) else None


def _money_members(text: bytes) -> Iterator[tuple[int, int]]:
    """(start of the key, end of the value) of each member about money."""
    position = 0
    path: list[str] = []
    name = ""
    is_response = _is_response(text)
    while (step := _STEP.search(text, position)) is not None:
        position = step.end()
        if step.group(1) is None:
            if step.group() in (b"{", b"["):
                # Objects in a list go by the name of the list.
                path.append(name or (path[-1] if path else ""))
            elif path:
                path.pop()
            name = ""
            # An object without a type in a list of contents isn't a part, but the model's JSON.
            if _is_untyped_part(text, step.start(), path):
                position = end_of_value(text, step.start())
                path.pop()
        elif step.group(2) is not None:
            name = _name_of(step.group(1))
            if tells_a_price(name):
                position = end_of_value(text, position)
                yield step.start(), position
                name = ""
            elif _is_models_json(name, path, text[position : position + 1]) or _is_of_response(
                name, path, is_response=is_response
            ):
                position = end_of_value(text, position)
                name = ""
        else:
            name = ""


def _is_models_json(name: str, path: Sequence[str], begin: bytes) -> bool:
    """Whether the member `name` in `path` is JSON written by the model. begin: the first byte of its value."""
    if begin not in (b"{", b"[") or not _is_in_message(path):
        return False
    if name == "content":
        # A list contains parts, which are the upstream's.
        return begin == b"{" and path[-1] in ("message", "delta")
    return path[-1] in _MODELS_JSON.get(name, ())


def _is_of_response(name: str, path: Sequence[str], *, is_response: bool) -> bool:
    """Whether the member is the caller's own or the model's JSON in a response, complete or in an event of a stream."""
    if name in _ECHOED and (path == ["", "response"] or (is_response and path == [""])):
        return True
    return name in _OTHERS_JSON and path[1:2] in _OF_RESPONSE and "usage" not in path


def _is_response(text: bytes) -> bool:
    kind = find_member(text, b"object")
    return kind is not None and text[kind.value : kind.end] == b'"response"'


def _is_untyped_part(text: bytes, start: int, path: Sequence[str]) -> bool:
    if text[start : start + 1] != b"{" or path[-2:] != ["content", "content"] or not _is_in_message(path):
        return False
    return find_member(text, b"type", start) is None


def _is_in_message(path: Sequence[str]) -> bool:
    return "usage" not in path and not _MESSAGES.isdisjoint(path)


@lru_cache(maxsize=4096)
def _name_of(quoted: bytes) -> str:
    try:
        return str(orjson.loads(quoted))
    except orjson.JSONDecodeError:
        return quoted[1:-1].decode("utf-8", "replace")


@lru_cache(maxsize=4096)
def tells_a_price(name: str) -> bool:
    """Whether a member of this name is about money."""
    if any(_MONEY_PARTS.search(word) for word in _NOT_A_LETTER.split(name.lower())):
        return True
    return any(_MONEY_WORDS.fullmatch(word.lower()) for word in _WORD.findall(name))


def _behind_comma(text: bytes, end: int) -> int:
    """The position after the comma that follows the value, and whitespace; `end` if there is none."""
    comma = _end_of(_SPACE, text, end)
    return _end_of(_SPACE, text, comma + 1) if text[comma : comma + 1] == b"," else end


def _before_comma(text: bytes, start: int) -> int:
    """The position of the comma before a last member; `start` if there is none."""
    comma = len(text[max(0, start - _MAX_SPACE) : start].rstrip()) + max(0, start - _MAX_SPACE) - 1
    return comma if comma >= 0 and text[comma : comma + 1] == b"," else start


def _end_of(pattern: re.Pattern[bytes], text: bytes, start: int) -> int:
    found = pattern.match(text, start)
    return found.end() if found else start


def _of_usd(cost: object) -> UpstreamCost | None:
    usd = _usd_of(cost)
    return None if usd is None else _of_pico(usd * PICO)


def _usd_of(amount: object) -> Decimal | None:
    if isinstance(amount, bool) or not isinstance(amount, int | float | str):
        return None
    try:
        usd = Decimal(str(amount)[:50])
    except InvalidOperation:
        return None
    return usd if usd.is_finite() and 0 <= usd <= _MAX_PICO else None


def _of_pico(pico: Decimal) -> UpstreamCost | None:
    """Rounded to whole pico-units: it is their figure, for comparison, never for billing."""
    if not pico.is_finite() or not 0 <= pico <= _MAX_PICO:
        return None
    whole = pico.to_integral_value(ROUND_HALF_UP)
    return UpstreamCost(int(whole), is_rounded=whole != pico)
