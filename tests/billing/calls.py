"""Closed calls of past months for tests, priced as the gateway prices them, written past the books' writer."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from django.utils import timezone

from llm.enums import AdjustmentSource, Meter
from llm.keys import create_key
from llm.models import Account, ApiKey, OpenCall, Price, Usage, UsageAdjustment
from llm.money import pico_to_usd
from llm.prices.pricing import known_cost
from llm.prices.snapshots import load_snapshots
from llm.prices.staff import set_price
from llm.types import TOKEN_FIELDS, TokenCounts
from tests.llm.admin.factories import open_row, usage_row

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
MID_OCTOBER = date(2026, 10, 15)


def make_key(account: Account, name: str = "production") -> ApiKey:
    """The account's key of that name, made where there is none."""
    return account.keys.filter(name=name).first() or create_key(account, name=name)[0]


def make_price(model: str = "gpt-4o", *, provider: str = "openai", **per_million: str) -> Price:
    """Staff's price since long ago, by meter, in USD per million tokens: input, output, cache_read ..."""
    rates = {Meter(name): Decimal(amount) for name, amount in (per_million or {"input": "2", "output": "8"}).items()}
    return set_price(provider, model, effective_from=LONG_AGO, rates=rates)


def make_call(
    account: Account,
    *,
    day: date = MID_OCTOBER,
    price: Price | None = None,
    model: str = "gpt-4o",
    key: ApiKey | None = None,
    **values: Any,
) -> Usage:
    """A settled call of that local day, recorded now. Token counts by name; without a price it is unpriced."""
    counts = TokenCounts(**{name: values.pop(name, 0) for name in TOKEN_FIELDS})
    snapshot = None if price is None else load_snapshots([price.pk])[price.pk]
    cost = known_cost(counts, snapshot)
    opened_at = datetime.combine(day, time(12), UTC)
    row = usage_row(
        key or make_key(account),
        opened_at=opened_at,
        local_day=day,
        recorded_at=values.pop("recorded_at", timezone.now()),
        model=model,
        upstream_model=model,
        price=price,
        rate_set_id=None if cost is None else cost.rate_set_id,
        cost=None if cost is None else pico_to_usd(cost.pico),
        **{name: getattr(counts, name) for name in TOKEN_FIELDS},
        **values,
    )
    row.save(force_insert=True)
    return row


def make_open_call(account: Account, *, day: date = MID_OCTOBER) -> OpenCall:
    opened_at = datetime.combine(day, time(12), UTC)
    row = open_row(make_key(account), opened_at=opened_at, local_day=day)
    row.save(force_insert=True)
    return row


def adjust_call(row: Usage, source: AdjustmentSource = AdjustmentSource.DECISION, **values: Any) -> UsageAdjustment:
    """Signed differences by name, recorded now."""
    defaults = {"is_billable": row.is_billable, "reason": "a test", "recorded_at": timezone.now()}
    adjustment = UsageAdjustment(usage=row, source=source, **{**defaults, **values}).stamp_digest()
    adjustment.save(force_insert=True)
    return adjustment
