"""Which days of which accounts must be rebuilt to bring the rollups from the accounts' marks to a cutoff.

A plan needs no lock. Days that another process has rebuilt meanwhile are rebuilt again, from the same books.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db import connection

from billing.rollup.statements import FORMER_DAYS, among, days_between_sql, touched_sql
from llm.db.json_rows import id_list, moment_text
from llm.models import Account

Days = frozenset[date]

FIRST_DAY = date(2000, 1, 1)
"""Before all calls: the earliest day that may have changed in an account that is rebuilt whole."""


FORMER_DAYS_AT_A_TIME = {"postgresql": 20_000, "sqlite": 30}
"""Account-days of the former shape that a refresh of all accounts rebuilds beside those that it has to. So an upgrade's
whole history is rebuilt in the background: a year of a thousand accounts in a day, or (SQLite) of one account in half.
"""


@dataclass(frozen=True, slots=True)
class RefreshPlan:
    """whole: accounts of which all days are rebuilt. days: of other accounts, those days. untouched: accounts without
    any.
    """

    cutoff: datetime
    whole: tuple[int, ...]
    days: Mapping[int, Days]
    untouched: tuple[int, ...]

    @property
    def size(self) -> int:
        """Account-days; a whole account counts as one."""
        return len(self.whole) + sum(map(len, self.days.values()))


def plan_to(
    cutoff: datetime, *, account_ids: Collection[int] | None, anew: tuple[date, date] | None = None
) -> RefreshPlan:
    """anew: the first and last of a range of days to rebuild in any case."""
    marks = _marks(account_ids)
    whole = tuple(account_id for account_id, mark in marks.items() if mark is None)
    kept = {account_id: mark for account_id, mark in marks.items() if mark is not None}
    days: dict[int, set[date]] = defaultdict(set)
    for account_id, day in _pairs(kept, cutoff, anew, is_narrow=account_ids is not None):
        if account_id in kept:
            days[account_id].add(day)
    return RefreshPlan(
        cutoff=cutoff,
        whole=whole,
        days={account_id: frozenset(days[account_id]) for account_id in sorted(days)},
        untouched=tuple(account_id for account_id in kept if account_id not in days),
    )


def _marks(account_ids: Collection[int] | None) -> dict[int, datetime | None]:
    """For all accounts, in order; None if there is no mark, or the days aren't in a consistent state."""
    accounts = Account.objects.order_by("id")
    if account_ids is not None:
        accounts = accounts.filter(id__in=account_ids)
    return dict(accounts.values_list("id", "rollup_mark__cutoff_at"))


def _pairs(
    marks: Mapping[int, datetime], cutoff: datetime, anew: tuple[date, date] | None, *, is_narrow: bool
) -> list[tuple[int, date]]:
    if not marks:
        return []
    vendor = connection.vendor
    accounts = among(vendor) if is_narrow else ""
    parameters: dict[str, Any] = {
        "accounts": id_list(marks, vendor),
        "floor": moment_text(min(marks.values()), vendor),
        "cutoff": moment_text(cutoff, vendor),
        "former": FORMER_DAYS_AT_A_TIME[vendor],
    }
    sql = touched_sql(accounts)
    if not is_narrow:
        sql = f"{sql} UNION SELECT * FROM ({FORMER_DAYS}) AS former"  # noqa: S608
    if anew is not None:
        sql = f"{sql} UNION {days_between_sql(accounts)}"
        parameters |= {"first": anew[0].isoformat(), "last": anew[1].isoformat()}
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [(account_id, _date_of(day)) for account_id, day in cursor.fetchall()]


def _date_of(value: date | str) -> date:
    """SQLite returns days as text."""
    return date.fromisoformat(value) if isinstance(value, str) else value
