"""Random histories of the books, and what the rollups must say of them, computed call by call in plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from billing.models import DailyUsage, RollupMark
from billing.models.rollups import EDGES_MS, SUM_FIELDS, TIME_FIELDS
from llm.books.clock import database_now
from llm.books.figures import DECIDING, compute_figures
from llm.digests import DIGEST_FIELDS
from llm.enums import FAILED_OUTCOMES, AdjustmentSource, CallOutcome, UsageSource, UsageStatus
from llm.models import ApiKey, OpenCall, Price, Rate, RateSet, ReratingRun, Usage
from llm.money import pico_to_usd
from llm.types import TOKEN_FIELDS, TokenCounts
from tests.llm.admin.factories import make_account, make_key, open_row, save, usage_row
from tests.llm.books.making import adjust_now

FIRST_DAY = date(2026, 10, 28)
DAYS = 8
KEY_FIELDS = (
    *("account_id", "local_day", "api_key_id", "provider", "model", "rate_set_id", "is_billable"),
    *("provider_instance", "outcome_group"),
)
_ALL_FIELDS = (*SUM_FIELDS, *TIME_FIELDS, "upstream_cost", "upstream_cost_calls")

Rows = dict[tuple[Any, ...], dict[str, Any]]


def make_rate_set(model: str, *, dollars: str = "2.5") -> RateSet:
    price = Price.objects.create(provider="openai", model=model, source="staff")
    rate_set = RateSet.objects.create(price=price)
    Rate.objects.create(rate_set=rate_set, meter="input", amount=Decimal(dollars))
    Rate.objects.create(rate_set=rate_set, meter="web_searches", amount=Decimal(10), per_units=1000)
    return rate_set


def make_rerating() -> ReratingRun:
    return ReratingRun.objects.create(
        provider="openai",
        model="model-0",
        first_day=FIRST_DAY,
        last_day=FIRST_DAY,
        reason="a price was wrong",
        started_at=database_now(),
    )


class Historian:
    """Writes calls and corrections as they come at random, recorded now."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        accounts = [make_account(f"account {number}") for number in range(3)]
        self.keys = [make_key(account, f"key {number}") for account in accounts for number in range(2)]
        self.rate_sets = [make_rate_set(f"model-{number}") for number in range(2)]

    def write(self, calls: int, *, corrections: int = 0) -> None:
        save(*(self._call(self.random.choice(self.keys)) for _ in range(calls)))
        closed = list(Usage.objects.filter(status__in=("settled", "estimated")))
        for row in self.random.choices(closed, k=corrections if closed else 0):
            self._correct(row)

    def _call(self, key: ApiKey) -> Usage | OpenCall:
        opened_at = database_now() - timedelta(seconds=self.random.randrange(1000))
        values: dict[str, Any] = {
            "opened_at": opened_at,
            "recorded_at": database_now(),
            "local_day": FIRST_DAY + timedelta(days=self.random.randrange(DAYS)),
            "model": self.random.choice(("small", "large")),
            "provider": self.random.choice(("openai", "anthropic")),
            "provider_instance": self.random.choice(("", "eu", "us")),
            "is_stream": self.random.random() < 0.5,
            "duration_ms": self.random.choice((None, 0, 250, 251, 500, 64_000, 128_000, 128_001)),
            "first_byte_ms": self.random.choice((None, 1, 250, 2_000, 200_000)),
            "upstream_cost": self.random.choice((None, None, self._cost())),
            "end_user": self.random.choice(("", "a" * 32, "b" * 32)),
        }
        match self.random.randrange(8):
            case 0:
                return open_row(key, **values)
            case 1:
                return usage_row(key, **values, **_VOID)
            case 2:
                return usage_row(key, **values, **_LOST, **self._counts(), cost=self._cost())
            case 3:
                return usage_row(key, **values, **self._counts(), cost=None)
            case 4:
                return usage_row(key, **values, **_NOTHING, cost=None, extra_meters={"web_searches": 2})
        return usage_row(
            key, **values, **self._counts(), cost=self._cost(), rate_set=self.random.choice(self.rate_sets)
        )

    def _correct(self, row: Usage) -> None:
        taken = set(row.adjustments.values_list("source", flat=True))
        source = self.random.choice(list(AdjustmentSource))
        is_rerating = source == AdjustmentSource.RERATING
        if source in taken and not is_rerating:
            return
        adjust_now(
            row.pk,
            source,
            counts=TokenCounts(**self._counts()),
            cost_pico=self.random.choice((None, 0, self.random.randrange(10**12))),
            is_billable=self.random.random() < 0.7,
            reason="as history goes",
            rate_set_id=self.random.choice(self.rate_sets).pk if is_rerating or self.random.random() < 0.3 else None,
            rerating=make_rerating() if is_rerating else None,
        )

    def _counts(self) -> dict[str, Any]:
        prompt, completion = self.random.randrange(100, 10**6), self.random.randrange(100, 10**5)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cache_read_tokens": prompt // 3,
            "cache_write_5m_tokens": prompt // 5,
            "cache_write_1h_tokens": prompt // 7,
            "reasoning_tokens": completion // 2,
            "audio_input_tokens": prompt // 11,
            "audio_output_tokens": completion // 13,
        }

    def _cost(self) -> Decimal:
        return pico_to_usd(self.random.randrange(10**15))


_NOTHING = {"prompt_tokens": 0, "completion_tokens": 0}
_VOID = {**_NOTHING, "status": UsageStatus.VOID, "cost": None, "outcome": CallOutcome.NOT_SENT}
_LOST = {
    "status": UsageStatus.ESTIMATED,
    "usage_source": UsageSource.ESTIMATED,
    "outcome": CallOutcome.LOST,
    "is_billable": False,
}


def expected_rows(cutoff: datetime) -> Rows:
    """Of all accounts, by key: what the books say up to the cutoff."""
    rows: Rows = defaultdict(lambda: {**dict.fromkeys(_ALL_FIELDS, 0), "upstream_cost": None})
    for call in Usage.objects.exclude(status="open").filter(recorded_at__lte=cutoff):
        corrections = list(call.adjustments.filter(recorded_at__lte=cutoff).order_by("id"))
        figures = compute_figures(call, corrections)
        is_void = call.status == UsageStatus.VOID
        group = call.outcome if call.outcome in ("ok", "client_gone") else "failed"
        key = (
            *(call.account_id, call.local_day, call.api_key_id, call.provider, call.model),
            *(figures.rate_set_id, figures.is_billable and not is_void, call.provider_instance or call.provider, group),
        )
        sums = rows[key]
        _add_times(sums, call)
        if is_void:
            continue
        is_estimated = call.usage_source == UsageSource.ESTIMATED and not DECIDING & {
            each.source for each in corrections
        }
        sums["calls"] += 1
        sums["estimated_calls"] += is_estimated
        units = (call.extra_meters, *(each.extra_meters for each in corrections))
        has_units = figures.counts.total_tokens > 0 or any(units)
        sums["unpriced_calls"] += figures.cost_pico is None and has_units
        for name in TOKEN_FIELDS:
            sums[name] += getattr(figures.counts, name)
        cost = pico_to_usd(figures.cost_pico or 0)
        sums["cost"] += cost
        sums["estimated_cost"] += cost if is_estimated else 0
        for name in DIGEST_FIELDS:
            sums[name] += sum(getattr(written, name) for written in (call, *corrections))
    return dict(rows)


def _add_times(sums: dict[str, Any], call: Usage) -> None:
    sums["failed_calls"] += call.outcome in FAILED_OUTCOMES
    for name, measured in (
        ("latency", call.duration_ms),
        ("first_byte", call.first_byte_ms if call.is_stream else None),
    ):
        if measured is not None:
            edge = next((each for each in EDGES_MS if measured <= each), None)
            sums[f"{name}_above" if edge is None else f"{name}_le_{edge}"] += 1
    if call.upstream_cost is not None:
        sums["upstream_cost"] = (sums["upstream_cost"] or 0) + call.upstream_cost
        sums["upstream_cost_calls"] += 1


def rolled_up_rows() -> Rows:
    found = list(DailyUsage.objects.values(*KEY_FIELDS, *_ALL_FIELDS))
    rows = {tuple(row[name] for name in KEY_FIELDS): {name: row[name] for name in _ALL_FIELDS} for row in found}
    assert len(rows) == len(found)
    return rows


def cutoffs() -> set[datetime | None]:
    return set(RollupMark.objects.values_list("cutoff_at", flat=True))
