"""The usage from which invoices are made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Max, Min, Sum

from billing.models import DailyUsage, RollupMark
from billing.models.rollups import COST_FIELDS, SUM_FIELDS
from billing.periods import BillingPeriod
from billing.types import UsageSum
from llm.digests import DIGEST_FIELDS
from llm.fields import ExactSum
from llm.models import Rate
from llm.money import usd_to_pico
from llm.types import STANDARD_SERVICE, TOKEN_FIELDS, Service, TokenCounts

_GROUP = ("account_id", "provider", "model", "rate_set_id")
_SUMS: dict[str, Any] = {
    **{f"sum_{name}": ExactSum(name) if name in COST_FIELDS else Sum(name) for name in SUM_FIELDS},
    "first_day": Min("local_day"),
    "last_day": Max("local_day"),
}


class Rates(NamedTuple):
    """A rate set. rates: meter -> pico-units of USD per unit."""

    rates: Mapping[str, int]
    service: Service = STANDARD_SERVICE
    min_prompt_tokens: int = 0


_NO_RATES = Rates({})


def lock_rollups(account_ids: Collection[int]) -> Mapping[int, datetime | None]:
    """Inside a transaction: by account, the cutoff up to which its rollups are complete, with nothing later.

    They stay unchanged until the transaction ends. None: `refresh` hasn't built them yet, or was interrupted; they mean
    nothing until it has.
    """
    marks = RollupMark.objects.select_for_update().filter(account__in=account_ids).order_by("account")
    found = dict(marks.values_list("account_id", "cutoff_at"))
    return {account_id: found.get(account_id) for account_id in account_ids}


def usage_sums(account_id: int, period: BillingPeriod) -> tuple[UsageSum, ...]:
    """The period's billable calls, ordered by provider, model and rate set. Lock the rollups first."""
    return load_usage_sums([account_id], period)[account_id]


def load_usage_sums(account_ids: Collection[int], period: BillingPeriod) -> Mapping[int, tuple[UsageSum, ...]]:
    """`usage_sums` for each of these accounts, in as many queries as for one."""
    _make_room_for_sums()
    rows = list(
        DailyUsage.objects.filter(
            account__in=account_ids, local_day__gte=period.start, local_day__lt=period.end, is_billable=True
        )
        .order_by()
        .values(*_GROUP)
        .annotate(**_SUMS)
    )
    rates = load_rate_sets(row["rate_set_id"] for row in rows)
    found: dict[int, list[UsageSum]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["provider"], row["model"], row["rate_set_id"] or 0)):
        found[row["account_id"]].append(_usage_sum(row, rates.get(row["rate_set_id"], _NO_RATES)))
    return {account_id: tuple(found[account_id]) for account_id in account_ids}


@contextmanager
def room_for_sums() -> Iterator[None]:
    """For reports of many groups. On SQLite no transaction: one might wait for the gateway's."""
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic():
        _make_room_for_sums()
        yield


def _make_room_for_sums() -> None:
    """Until the transaction ends: PostgreSQL overestimates the number of groups, and would sort all days for them."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('work_mem', '64MB', true)")


def load_rates(rate_set_ids: Iterable[int | None]) -> Mapping[int, Mapping[str, int]]:
    """Meter -> pico-units of USD per unit."""
    return defaultdict(dict, {pk: each.rates for pk, each in load_rate_sets(rate_set_ids).items()})


def load_rate_sets(rate_set_ids: Iterable[int | None]) -> Mapping[int, Rates]:
    """Only those that have rates."""
    rates: dict[int, dict[str, int]] = defaultdict(dict)
    found: dict[int, Rates] = {}
    rows = Rate.objects.filter(rate_set__in={pk for pk in rate_set_ids if pk is not None})
    for rate in rows.select_related("rate_set").order_by("id"):
        rates[rate.rate_set_id][rate.meter] = rate.pico_per_unit
        rate_set = rate.rate_set
        found[rate_set.pk] = Rates(rates[rate_set.pk], rate_set.service, rate_set.min_prompt_tokens)
    return found


def _usage_sum(row: Mapping[str, Any], rates: Rates) -> UsageSum:
    sums = {name: row[f"sum_{name}"] for name in SUM_FIELDS}
    return UsageSum(
        provider=row["provider"],
        model=row["model"],
        rate_set_id=row["rate_set_id"],
        calls=sums["calls"],
        counts=TokenCounts(**{name: sums[name] for name in TOKEN_FIELDS}),
        cost_pico=usd_to_pico(sums["cost"]),
        rates=rates.rates,
        unpriced_calls=sums["unpriced_calls"],
        estimated_calls=sums["estimated_calls"],
        estimated_cost_pico=usd_to_pico(sums["estimated_cost"]),
        digest=tuple(sums[name] for name in DIGEST_FIELDS),
        service=rates.service,
        min_prompt_tokens=rates.min_prompt_tokens,
        days=(row["first_day"], row["last_day"]),
    )
