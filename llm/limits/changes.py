"""Setting and archiving limits, and deleting windows of the past.

A change applies from the next call, in every process: the books read the limits with each call that they open.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from llm.enums import LimitMetric, LimitPer
from llm.models import Account, ApiKey, Limit, LimitWindow, Usage

SHORT_PERIODS = (LimitPer.MINUTE, LimitPer.HOUR)
LONGEST_SHORT_PERIOD = timedelta(hours=1)
KEPT_WINDOWS = timedelta(days=7)
PRUNED_AT_ONCE = 1000
PAUSE_SECONDS = 0.05


def limit_in_force(account: Account, api_key: ApiKey | None, metric: str, per: str) -> Limit | None:
    """The limit of the account as a whole, or of one of its keys."""
    return Limit.objects.in_force().filter(account=account, api_key=api_key, metric=metric, per=per).first()


@transaction.atomic
def set_limit(
    account: Account, api_key: ApiKey | None, metric: LimitMetric, per: LimitPer, amount: int, soft_percent: int | None
) -> tuple[Limit, bool]:
    """Create the limit, or change the one in force; also returns whether it was created.

    amount: in its units. Usage of the current period still counts. Raises ValidationError.
    """
    lock_limits(account)
    former = limit_in_force(account, api_key, metric, per)
    limit = former or Limit(account=account, api_key=api_key, metric=metric, per=per)
    limit.amount, limit.soft_percent = amount, soft_percent
    limit.full_clean()
    limit.save()
    return limit, former is None


@transaction.atomic
def archive_limit(limit: Limit) -> bool:
    """From the next call on it no longer applies. False if it was archived before, with an unchanged time."""
    lock_limits(limit.account)
    archived = Limit.objects.in_force().filter(pk=limit.pk).update(archived_at=timezone.now())
    limit.refresh_from_db(fields=["archived_at"])
    return bool(archived)


def lock_limits(account: Account) -> None:
    """Until the transaction ends, no other process changes the account's limits.

    no_key: a stronger lock would block the books, whose rows refer to the account. On SQLite the transaction itself
    excludes other writers.
    """
    Account.objects.select_for_update(no_key=True).get(pk=account.pk)


def prune_windows(*, now: datetime | None = None) -> int:
    """Delete the windows of minutes and hours that began over a week ago; returns how many.

    A window stays as long as an open call refers to it, even if the call holds nothing there: its close looks for the
    window.
    """
    began_before = (now or timezone.now()) - KEPT_WINDOWS
    old = LimitWindow.objects.filter(limit__per__in=SHORT_PERIODS, starts_at__lt=began_before, held=0)
    old = old.exclude(pk__in=_windows_of_open_calls(began_before))
    deleted = 0
    while ids := list(old.order_by("starts_at").values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        deleted += LimitWindow.objects.filter(pk__in=ids, held=0).delete()[0]
        # SQLite has one writer at a time: the books must get their turn.
        time.sleep(PAUSE_SECONDS)
    return deleted


def _windows_of_open_calls(began_before: datetime) -> set[int]:
    """Windows that began by then and belong to calls still open; there are hardly ever any."""
    opened = Usage.objects.open().filter(opened_at__lt=began_before + LONGEST_SHORT_PERIOD)
    return {window_id for holds in opened.values_list("holds", flat=True) for window_id, _ in holds or ()}
