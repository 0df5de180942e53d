"""What invoices are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Sum

from billing.models import DailyUsage, RollupMark
from billing.models.rollups import COST_FIELDS, SUM_FIELDS
from billing.periods import Period
from billing.types import UsageSum
from llm.digests import DIGEST_FIELDS
from llm.fields import ExactSum
from llm.models import Rate
from llm.money import usd_to_pico
from llm.types import TOKEN_FIELDS, TokenCounts

_GROUP = ("account_id", "provider", "model", "rate_set_id")
_SUMS: dict[str, Any] = {f"sum_{name}": ExactSum(name) if name in COST_FIELDS else Sum(name) for name in SUM_FIELDS}


def lock_rollups(account_ids: Collection[int]) -> Mapping[int, datetime | None]:
    """Inside a transaction: by account, the moment up to which its rollups hold all and nothing later.

    Until the transaction ends they stay as they are. None: `refresh` has not made them yet, or was cut off midway; they
    say nothing until it has.
    """
    marks = RollupMark.objects.select_for_update().filter(account__in=account_ids).order_by("account")
    found = dict(marks.values_list("account_id", "cutoff_at"))
    return {account_id: found.get(account_id) for account_id in account_ids}


def usage_sums(account_id: int, period: Period) -> tuple[UsageSum, ...]:
    """The period's billable calls, ordered by provider, model and rate set. Lock the rollups first."""
    return usage_sums_of([account_id], period)[account_id]


def usage_sums_of(account_ids: Collection[int], period: Period) -> Mapping[int, tuple[UsageSum, ...]]:
    """`usage_sums` of each of these accounts, in as many queries as for one."""
    _make_room_for_sums()
    rows = list(
        DailyUsage.objects.filter(
            account__in=account_ids, local_day__gte=period.start, local_day__lt=period.end, is_billable=True
        )
        .order_by()
        .values(*_GROUP)
        .annotate(**_SUMS)
    )
    rates = rates_of(row["rate_set_id"] for row in rows)
    found: dict[int, list[UsageSum]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["provider"], row["model"], row["rate_set_id"] or 0)):
        found[row["account_id"]].append(_usage_sum(row, rates.get(row["rate_set_id"], {})))
    return {account_id: tuple(found[account_id]) for account_id in account_ids}


def _make_room_for_sums() -> None:
    """Until the transaction ends: PostgreSQL expects far more sums than there are, and would sort all days for them."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('work_mem', '64MB', true)")


def rates_of(rate_set_ids: Iterable[int | None]) -> Mapping[int, Mapping[str, int]]:
    """Meter -> pico-units of USD a unit."""
    rates: dict[int, dict[str, int]] = defaultdict(dict)
    for rate in Rate.objects.filter(rate_set__in={pk for pk in rate_set_ids if pk is not None}).order_by("id"):
        rates[rate.rate_set_id][rate.meter] = rate.pico_per_unit
    return rates


def _usage_sum(row: Mapping[str, Any], rates: Mapping[str, int]) -> UsageSum:
    sums = {name: row[f"sum_{name}"] for name in SUM_FIELDS}
    return UsageSum(
        provider=row["provider"],
        model=row["model"],
        rate_set_id=row["rate_set_id"],
        calls=sums["calls"],
        counts=TokenCounts(**{name: sums[name] for name in TOKEN_FIELDS}),
        cost_pico=usd_to_pico(sums["cost"]),
        rates=rates,
        unpriced_calls=sums["unpriced_calls"],
        estimated_calls=sums["estimated_calls"],
        estimated_cost_pico=usd_to_pico(sums["estimated_cost"]),
        digest=tuple(sums[name] for name in DIGEST_FIELDS),
    )
