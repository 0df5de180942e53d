"""Limits: their amounts as people write them, setting or archiving one, and clearing away windows of the past.

A change acts on the next call, in every process: the books read the limits with each call that they open.
"""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from llm.enums import LimitMetric, LimitPer
from llm.models import Account, ApiKey, Limit, LimitWindow, Usage
from llm.money import format_usd, from_units, to_units

COST_DECIMALS = 6
MOST_UNITS = 10**15
"""A thousand billion tokens, a billion USD: far above what anybody means, far below what a column overflows at."""
LONGEST_TEXT = 40

SHORT_PERIODS = (LimitPer.MINUTE, LimitPer.HOUR)
LONGEST_SHORT_PERIOD = timedelta(hours=1)
KEPT_WINDOWS = timedelta(days=7)
PRUNED_AT_ONCE = 1000
PAUSE_SECONDS = 0.05

_WHOLE = r"\d{1,3}(?:,\d{3})+|\d{1,3}(?:_\d{3})+|\d+"
_WHOLE_NUMBER = re.compile(_WHOLE, re.ASCII)
_USD = re.compile(rf"\$? ?(?:{_WHOLE})(?:\.\d+)?|\$? ?\.\d+", re.ASCII)


def parse_amount(metric: str, text: str) -> int:
    """A limit's amount in its units: whole requests, whole tokens, or micro-units of USD.

    Thousands may be separated (1,000,000 or 1_000_000); a cost is in USD (12.50), with at most 6 decimals. Raises
    ValueError with words for people.
    """
    text = text.strip()
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"“{text[:LONGEST_TEXT]}…” is too long for an amount")
    units = _parse_usd(text) if metric == LimitMetric.COST else _parse_whole(text)
    if units > MOST_UNITS:
        raise ValueError(f"“{text}” is more than a limit can be; leave such a limit out")
    return units


def amount_digits(metric: str, units: int) -> str:
    """As people type it, and `parse_amount` reads it: 1,000,000 or 12.50."""
    if metric != LimitMetric.COST:
        return f"{units:,}"
    whole, _, fraction = format_usd(from_units(units, COST_DECIMALS)).partition(".")
    return f"{int(whole):,}.{fraction}"


def format_amount(metric: str, units: int) -> str:
    """1,000,000 tokens, 1 request, $12.50."""
    digits = amount_digits(metric, units)
    if metric == LimitMetric.COST:
        return f"${digits}"
    name = LimitMetric(metric).label
    return f"{digits} {name.removesuffix('s') if units == 1 else name}"


def describe_limit(limit: Limit) -> str:
    """1,000,000 tokens per month."""
    return f"{format_amount(limit.metric, limit.amount)} {limit.get_per_display()}"


def limit_in_force(account: Account, api_key: ApiKey | None, metric: str, per: str) -> Limit | None:
    """The one of the account as a whole, or of one of its keys."""
    return Limit.objects.in_force().filter(account=account, api_key=api_key, metric=metric, per=per).first()


@transaction.atomic
def set_limit(
    account: Account, api_key: ApiKey | None, metric: LimitMetric, per: LimitPer, amount: int, soft_percent: int | None
) -> tuple[Limit, bool]:
    """Make the limit, or change the one in force; also says whether it was made.

    amount: its units. What is used of the current period stays counted. Raises ValidationError.
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
    """From the next call on it holds nobody back. False where it was archived before: it keeps that moment."""
    lock_limits(limit.account)
    archived = Limit.objects.in_force().filter(pk=limit.pk).update(archived_at=timezone.now())
    limit.refresh_from_db(fields=["archived_at"])
    return bool(archived)


def lock_limits(account: Account) -> None:
    """Until the transaction ends nobody else changes the account's limits.

    no_key: a stronger lock would make the books wait, whose rows point at the account. On SQLite the transaction itself
    keeps everybody else out.
    """
    Account.objects.select_for_update(no_key=True).get(pk=account.pk)


def prune_windows(*, now: datetime | None = None) -> int:
    """Delete the windows of minutes and hours that began over a week ago; how many those were.

    A window stays as long as an open call names it, be it that it holds nothing there: its close looks for the window.
    """
    began_before = (now or timezone.now()) - KEPT_WINDOWS
    old = LimitWindow.objects.filter(limit__per__in=SHORT_PERIODS, starts_at__lt=began_before, held=0)
    old = old.exclude(pk__in=_windows_of_open_calls(began_before))
    deleted = 0
    while ids := list(old.order_by("starts_at").values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        deleted += LimitWindow.objects.filter(pk__in=ids, held=0).delete()[0]
        # SQLite has one writer at a time: the books are to have their turn.
        time.sleep(PAUSE_SECONDS)
    return deleted


def _windows_of_open_calls(began_before: datetime) -> set[int]:
    """Of calls that were opened in a window that began by then, which hardly ever are any."""
    opened = Usage.objects.open().filter(opened_at__lt=began_before + LONGEST_SHORT_PERIOD)
    return {window_id for holds in opened.values_list("holds", flat=True) for window_id, _ in holds or ()}


def _parse_whole(text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ValueError(f"“{text}” is not a whole number such as 60 or 1,000,000")
    return int(_plain(text))


def _parse_usd(text: str) -> int:
    if not _USD.fullmatch(text):
        raise ValueError(f"“{text}” is not an amount in USD such as 12.50")
    try:
        return to_units(Decimal(_plain(text.lstrip("$ "))), COST_DECIMALS)
    except ValueError as error:
        raise ValueError(f"“{text}” has more than {COST_DECIMALS} decimals") from error


def _plain(text: str) -> str:
    return text.replace(",", "").replace("_", "")
