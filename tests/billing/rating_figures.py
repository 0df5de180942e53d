"""Usage and terms for tests of rating."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from billing.enums import LineKind, TierMode
from billing.rating import rate
from billing.types import NO_DIGEST, ChargeLine, FixedPrice, PlanTerms, Tier, UsageSum
from llm.types import TokenCounts

# gpt-4o's of November 2026, in pico-units a token: $2.50, $1.25 and $10.00 per million.
GPT_4O = {"input": 2_500_000, "cache_read": 1_250_000, "output": 10_000_000}


def usage(
    prompt: int = 0,
    completion: int = 0,
    *,
    model: str = "gpt-4o",
    provider: str = "openai",
    rate_set_id: int | None = 7,
    rates: dict[str, int] | None = None,
    cost_pico: int | None = None,
    calls: int = 1,
    unpriced_calls: int = 0,
    digest: tuple[int, ...] = NO_DIGEST,
    **parts: Any,
) -> UsageSum:
    """cost_pico: by gpt-4o's rates where it isn't given."""
    rates = GPT_4O if rates is None else rates
    cached = parts.get("cache_read_tokens", 0)
    at_list = (prompt - cached) * 2_500_000 + cached * 1_250_000 + completion * 10_000_000
    return UsageSum(
        provider=provider,
        model=model,
        rate_set_id=rate_set_id,
        calls=calls,
        counts=TokenCounts(prompt, completion, **parts),
        cost_pico=at_list if cost_pico is None else cost_pico,
        rates=rates,
        unpriced_calls=unpriced_calls,
        digest=digest,
    )


def free_usage(prompt: int, completion: int = 0, **facts: Any) -> UsageSum:
    return usage(prompt, completion, rate_set_id=None, rates={}, cost_pico=0, **facts)


def terms(currency: str = "USD", **figures: Any) -> PlanTerms:
    exact: dict[str, Any] = {
        name: Decimal(value) if isinstance(value, str) else value for name, value in figures.items()
    }
    return PlanTerms(version_id=1, effective_from=date(2026, 1, 1), currency=currency, **exact)


def fixed(pattern: str, meter: str, *prices: str | tuple[int, str], mode: TierMode = TierMode.GRADUATED) -> FixedPrice:
    """prices: one for all tokens, or (from tokens, price) for each tier."""
    tiers = [price if isinstance(price, tuple) else (0, price) for price in prices]
    return FixedPrice(pattern, meter, mode, tuple(Tier(start, Decimal(price)) for start, price in tiers))


def rated(*sums: UsageSum, per_usd: str | None = None, decimals: int = 2, **figures: Any) -> tuple[ChargeLine, ...]:
    exchange = None if per_usd is None else Decimal(per_usd)
    return rate(sums, terms(**figures), per_usd=exchange, decimals=decimals)


def printed(lines: tuple[ChargeLine, ...]) -> list[tuple[str, int | None, str | None, str]]:
    """Description, quantity, unit price and amount, without needless zeros in the price."""
    return [(line.description, line.quantity, _plain(line.unit_price), str(line.amount)) for line in lines]


def of_kind(lines: tuple[ChargeLine, ...], kind: LineKind) -> list[ChargeLine]:
    return [line for line in lines if line.kind == kind]


def _plain(price: Decimal | None) -> str | None:
    if price is None:
        return None
    return f"{price:f}".rstrip("0").rstrip(".")
