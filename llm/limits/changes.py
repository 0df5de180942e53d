"""Setting and archiving limits, and deleting windows of the past.

A change applies from the next call, in every process: the books read the limits with each call that they open.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from llm.enums import LimitMetric, LimitPer
from llm.models import Account, ApiKey, Limit, LimitWindow, OpenCall

SHORT_PERIODS = (LimitPer.MINUTE, LimitPer.HOUR)
LONGEST_SHORT_PERIOD = timedelta(hours=1)
LONGEST_PERIODS = {
    LimitPer.MINUTE: timedelta(minutes=1),
    LimitPer.HOUR: LONGEST_SHORT_PERIOD,
    LimitPer.DAY: timedelta(days=2),
    LimitPer.MONTH: timedelta(days=32),
}
KEPT_WINDOWS = timedelta(days=7)
KEPT_END_USER_WINDOWS = timedelta(hours=6)
PRUNED_AT_ONCE = 1000
PAUSE_SECONDS = 0.05


def limit_in_force(
    account: Account, api_key: ApiKey | None, metric: str, per: str, *, is_per_end_user: bool = False
) -> Limit | None:
    """The one of the account as a whole, or of one of its keys; or the one for each of their end users."""
    in_force = Limit.objects.in_force().filter(account=account, api_key=api_key, metric=metric, per=per)
    return in_force.filter(is_per_end_user=is_per_end_user).first()


def limits_end_users(account: Account) -> bool:
    """Whether a limit for each end user is in force, of the account or one of its keys."""
    return Limit.objects.in_force().filter(account=account, is_per_end_user=True).exists()


@transaction.atomic
def set_limit(
    account: Account,
    api_key: ApiKey | None,
    metric: LimitMetric,
    per: LimitPer,
    amount: int,
    soft_percent: int | None,
    *,
    is_per_end_user: bool = False,
) -> tuple[Limit, bool]:
    """Create the limit, or change the one in force; also returns whether it was created.

    amount: in its units. Usage of the current period still counts. Raises ValidationError.
    """
    account = lock_limits(account)
    former = limit_in_force(account, api_key, metric, per, is_per_end_user=is_per_end_user)
    limit = former or Limit(account=account, api_key=api_key, metric=metric, per=per, is_per_end_user=is_per_end_user)
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


def lock_limits(account: Account) -> Account:
    """Until the transaction ends nobody else changes the account's limits. As it is now.

    no_key: a stronger lock would block the books, whose rows refer to the account. On SQLite the transaction itself
    excludes other writers.
    """
    return Account.objects.select_for_update(no_key=True).get(pk=account.pk)


def fullest_end_users(starts: Mapping[int, datetime]) -> dict[int, tuple[int, int]]:
    """Of limits for each end user: the most that one of them has used, and the most that one holds.

    starts: by limit, when the period began. Limits without a window in it are left out.
    """
    if not starts:
        return {}
    windows = LimitWindow.objects.filter(end_user_limit__in=starts, starts_at__in=set(starts.values())).order_by()
    most = windows.values_list("end_user_limit", "starts_at").annotate(Max("used"), Max("held"))
    return {limit_id: (used, held) for limit_id, starts_at, used, held in most if starts[limit_id] == starts_at}


def prune_windows(*, now: datetime | None = None) -> int:
    """Delete the windows of minutes and hours that began over a week ago; returns how many.

    Those of end users, which are many, go sooner, and those of days and months go too, and of limits in total that
    have ended.

    A window stays as long as an open call names it, be it that it holds nothing there: its close looks for the window.
    """
    moment = now or timezone.now()
    deleted = _prune(Q(limit__per__in=SHORT_PERIODS), moment - KEPT_WINDOWS, longest=LONGEST_SHORT_PERIOD)
    ended = Q(end_user_limit__archived_at__lt=moment - KEPT_END_USER_WINDOWS)
    deleted += _prune(ended & Q(end_user_limit__per=LimitPer.TOTAL), moment, longest=timedelta())
    for per, longest in LONGEST_PERIODS.items():
        deleted += _prune(Q(end_user_limit__per=per), moment - longest - KEPT_END_USER_WINDOWS, longest=longest)
    return deleted


def _prune(which: Q, began_before: datetime, *, longest: timedelta) -> int:
    """longest: how long a period of these windows may last."""
    old = LimitWindow.objects.filter(which, starts_at__lt=began_before, held=0)
    old = old.exclude(pk__in=_windows_of_open_calls(began_before + longest))
    deleted = 0
    while ids := list(old.order_by("starts_at").values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        deleted += LimitWindow.objects.filter(pk__in=ids, held=0).delete()[0]
        # SQLite has one writer at a time: the books must get their turn.
        time.sleep(PAUSE_SECONDS)
    return deleted


def _windows_of_open_calls(opened_before: datetime) -> set[int]:
    """Of calls that were opened that long ago, which hardly ever are any."""
    opened = OpenCall.objects.filter(opened_at__lt=opened_before)
    return {window_id for holds in opened.values_list("holds", flat=True) for window_id, _ in holds or ()}
