"""The price of every call of a campaign, and its cost in plain integers: the gateway's own pricing has no say."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

# Pico-units of USD a token, no two alike and none round: a figure in the wrong place changes the cost.
INPUT = 2_345_678
CACHE_READ = 234_567
OUTPUT = 9_876_543
REASONING = 7_654_321
_SINCE = datetime(2020, 1, 1, tzinfo=UTC)


class Counted(Protocol):
    """A ledger's counts, or a usage row."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cache_read_tokens(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int: ...


def cost_pico(counts: Counted) -> int:
    prompt = (counts.prompt_tokens - counts.cache_read_tokens) * INPUT + counts.cache_read_tokens * CACHE_READ
    answer = (counts.completion_tokens - counts.reasoning_tokens) * OUTPUT + counts.reasoning_tokens * REASONING
    return prompt + answer


def set_price() -> None:
    """One staff price of each provider for every name that a campaign makes up."""
    from llm.enums import Meter, PriceSource
    from llm.prices.pricing import STANDARD
    from llm.prices.terms import NewPrice, PriceTerms, RateValue, write_prices

    picos = {
        Meter.INPUT: INPUT,
        Meter.CACHE_READ: CACHE_READ,
        Meter.OUTPUT: OUTPUT,
        Meter.REASONING: REASONING,
    }
    # A pico-unit a token is a millionth of a USD for a million tokens.
    rates = {meter.value: RateValue(Decimal(pico).scaleb(-6)) for meter, pico in picos.items()}
    match = {"or": [{"starts_with": "m-"}, {"starts_with": "fake-"}]}
    content = PriceTerms(rate_sets={(STANDARD, 0): rates}, match=match, note="faults")
    write_prices(
        [NewPrice(provider, "faults", _SINCE, PriceSource.STAFF, content) for provider in ("openai", "anthropic")]
    )
