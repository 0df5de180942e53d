"""The calls of a customer, the same for each run of a day: they are drawn from the customer's name and the day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

from billing.management.demo.cast import MODELS, UNPRICED, Customer, DemoModel
from llm.enums import CallOutcome, Dialect, UsageSource, UsageStatus
from llm.models import Account, ApiKey, Usage
from llm.money import pico_to_usd
from llm.prices.pricing import PriceSnapshot, known_cost
from llm.types import TOKEN_FIELDS, TokenCounts

PROCESS = UUID("0d3e0d3e-0d3e-4d3e-8d3e-0d3e0d3e0d3e")
"""The gateway process of all calls of the demo: they are recognised by it."""

_HOURS = (1, 1, 1, 1, 1, 1, 2, 4, 8, 12, 13, 12, 9, 11, 12, 11, 9, 7, 4, 3, 2, 2, 1, 1)


@dataclass(frozen=True, slots=True)
class Cast:
    """A customer as the database knows it. prices: by model, the earliest first. end_users: hashes."""

    customer: Customer
    account: Account
    keys: Sequence[ApiKey]
    prices: Mapping[str, Sequence[PriceSnapshot]]
    end_users: Sequence[str] = ()


def calls_of(cast: Cast, day: date, *, first_day: date, open_since: date, until: datetime) -> Iterator[Usage]:
    """Of one local day, as far as they ended by `until`; unsaved, without `recorded_at` and digest.

    first_day: of the customer, who grows from month to month. open_since: from this day on, there are calls that staff
    have to look at: without a price, or lost.
    """
    random = Random(f"{cast.customer.name} {day}")  # noqa: S311
    zone = ZoneInfo(cast.account.time_zone)
    for number in range(_number_of_calls(cast.customer, day, first_day, random)):
        local = datetime.combine(day, time(random.choices(range(24), _HOURS)[0]), zone)
        opened_at = local.astimezone(UTC) + timedelta(milliseconds=random.randrange(3_600_000))
        row = _call(cast, opened_at, day, number, random, is_recent=day >= open_since)
        if opened_at.astimezone(zone).date() == day and row.closed_at and row.closed_at <= until:
            yield row


def _number_of_calls(customer: Customer, day: date, first_day: date, random: Random) -> int:
    months = (day.year - first_day.year) * 12 + day.month - first_day.month
    expected = customer.calls_a_day * (100 + customer.growth_percent * months) / 100
    if day.weekday() >= 5:
        expected *= 1.2 if customer.weekends else 0.25
    if random.random() < 0.012:
        expected *= 4
    return int(expected * random.uniform(0.6, 1.4) + random.random())


def _call(cast: Cast, opened_at: datetime, day: date, number: int, random: Random, *, is_recent: bool) -> Usage:
    model = _choose_model(cast.customer, opened_at, random, is_recent=is_recent)
    counts = _counts(model, random)
    duration_ms = int(400 + counts.completion_tokens * random.uniform(3, 6) + random.expovariate(1 / 300))
    is_stream = not model.is_embedding and random.random() < 0.6
    row = Usage(
        id=_uuid7(opened_at, random),
        request_id=_uuid7(opened_at, random),
        account=cast.account,
        api_key=cast.keys[min(int(random.expovariate(1.4)), len(cast.keys) - 1)],
        process_id=PROCESS,
        dialect=_dialect(model),
        provider=model.provider,
        provider_instance=model.provider,
        model=model.name,
        upstream_model=model.name,
        reported_model=model.name,
        end_user=random.choice(cast.end_users) if cast.end_users else "",
        tags={"team": random.choice(cast.customer.teams)} if cast.customer.teams else {},
        is_stream=is_stream,
        request_bytes=counts.prompt_tokens * 4,
        status=UsageStatus.SETTLED,
        usage_source=UsageSource.REPORTED,
        outcome=CallOutcome.OK,
        upstream_status=200,
        opened_at=opened_at,
        closed_at=opened_at + timedelta(milliseconds=duration_ms),
        local_day=day,
        first_byte_ms=min(duration_ms, int(180 + random.expovariate(1 / 250))) if is_stream else None,
        duration_ms=duration_ms,
    )
    price = _price_at(cast.prices.get(model.name, ()), opened_at)
    row.price_id = None if price is None else price.id
    _end(row, counts, price, random, is_recent=is_recent)
    return row


def _choose_model(customer: Customer, opened_at: datetime, random: Random, *, is_recent: bool) -> DemoModel:
    names = [name for name in customer.models if name != UNPRICED]
    if UNPRICED in customer.models and is_recent and random.random() < 0.3:
        return MODELS[UNPRICED]
    return MODELS[names[min(int(random.expovariate(1.1)), len(names) - 1)]]


def _counts(model: DemoModel, random: Random) -> TokenCounts:
    prompt = int(model.typical_prompt * random.lognormvariate(0, 0.6))
    completion = int(model.typical_completion * random.lognormvariate(0, 0.5))
    cached = int(prompt * model.cached_percent / 100 * random.uniform(0, 1.4)) if model.cached_percent else 0
    cached = min(cached, prompt)
    written = int((prompt - cached) * 0.3) if model.provider == "anthropic" and random.random() < 0.3 else 0
    return TokenCounts(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cache_read_tokens=cached,
        cache_write_5m_tokens=written,
    )


def _end(row: Usage, counts: TokenCounts, price: PriceSnapshot | None, random: Random, *, is_recent: bool) -> None:
    """How the call went: what it used and cost, or why it used nothing."""
    chance = random.random()
    if chance < 0.03:
        _fail(row, random)
        return
    if chance < 0.05:
        row.outcome, row.usage_source = CallOutcome.CLIENT_GONE, UsageSource.DRAINED
    elif chance < 0.06:
        row.outcome, row.status, row.usage_source = CallOutcome.TIMEOUT, UsageStatus.ESTIMATED, UsageSource.ESTIMATED
        row.error_code, row.upstream_status = "upstream_timeout", None
    elif chance < 0.0615 and is_recent:
        row.outcome, row.status, row.usage_source = CallOutcome.LOST, UsageStatus.ESTIMATED, UsageSource.ESTIMATED
        row.is_billable, row.duration_ms, row.upstream_status = False, None, None
    for name in TOKEN_FIELDS:
        setattr(row, name, getattr(counts, name))
    cost = known_cost(counts, price)
    row.cost = None if cost is None else pico_to_usd(cost.pico)
    row.rate_set_id = None if cost is None else cost.rate_set_id


def _fail(row: Usage, random: Random) -> None:
    status, outcome, code = random.choice(
        (
            (429, CallOutcome.UPSTREAM_REFUSED, "rate_limit_exceeded"),
            (400, CallOutcome.UPSTREAM_REFUSED, "invalid_request"),
            (503, CallOutcome.UPSTREAM_FAILED, "upstream_error"),
        )
    )
    row.usage_source, row.outcome = UsageSource.NONE, outcome
    row.upstream_status, row.error_code, row.reported_model = status, code, ""
    row.cost = Decimal(0)
    row.duration_ms, row.first_byte_ms = random.randrange(80, 900), None
    row.closed_at = row.opened_at + timedelta(milliseconds=row.duration_ms)


def _dialect(model: DemoModel) -> Dialect:
    if model.is_embedding:
        return Dialect.OPENAI_EMBEDDINGS
    return Dialect.ANTHROPIC_MESSAGES if model.provider == "anthropic" else Dialect.OPENAI_CHAT


def _price_at(prices: Sequence[PriceSnapshot], moment: datetime) -> PriceSnapshot | None:
    return next((price for price in reversed(prices) if price.effective_from <= moment), None)


def _uuid7(moment: datetime, random: Random) -> UUID:
    value = int(moment.timestamp() * 1000) << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0b11 << 62) | 0b10 << 62)
