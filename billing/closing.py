"""The end of a month: a draft for each account, made once its own last day has ended.

Nothing here counts on being called once, or at all: what is due is found by query, and a draft that exists is computed
anew. So a job that is delivered twice, or a worker that is killed, costs nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings
from django.db.models.functions import TruncMonth
from django.utils import timezone

from billing.enums import InvoiceKind, InvoiceState
from billing.errors import BillingError
from billing.invoicing import draft_invoice
from billing.late import changed_periods
from billing.models import BillingProfile, DailyUsage, Invoice
from billing.periods import Period
from billing.plans import profile_of
from billing.rollup import refresh
from billing.timezones import apply_time_zones
from llm.enums import AccountStatus
from llm.models import Account

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger("billing")


@dataclass
class ClosingReport:
    """By account name. kept: submitted before, so nothing was changed. failed: (account, why)."""

    drafted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def add(self, account: Account, invoice: Invoice | None) -> None:
        if invoice is None:
            self.empty.append(account.name)
        elif invoice.state == InvoiceState.DRAFT:
            self.drafted.append(account.name)
        else:
            self.kept.append(account.name)


def close_month(period: Period, *, account: Account | None = None, user: User | None = None) -> ClosingReport:
    """Draft the month's invoice of every account, or of one; drafts that exist are computed anew."""
    accounts = [account] if account is not None else list(Account.objects.order_by("id"))
    refresh(account_ids=None if account is None else [account.pk])
    report = ClosingReport()
    for each in accounts:
        _close(each, period, report, user=user)
    return report


def close_due_months(*, now: datetime | None = None) -> ClosingReport:
    """Draft each month that has ended for its account and was not invoiced; compute the drafts of such months anew.

    A month whose invoice was voided is left alone: who wants it again closes it by hand.
    """
    now = now or timezone.now()
    apply_time_zones(now=now)
    refresh()
    report = ClosingReport()
    used, settled, drafts = _months_used(), _months_settled(), _months_drafted()
    for account in Account.objects.select_related("billing_profile").order_by("id"):
        last = last_ended(account, now)
        due = used[account.pk] | drafts[account.pk] | _month_of_fees(account, last)
        for period in sorted(due - settled[account.pk]):
            if period <= last and _is_billed(account, period):
                _close(account, period, report, user=None)
    return report


def last_ended(account: Account, now: datetime) -> Period:
    """The latest month that has been over for BILLING_CLOSE_AFTER_HOURS where the account is."""
    local = (now - timedelta(hours=settings.BILLING_CLOSE_AFTER_HOURS)).astimezone(ZoneInfo(account.time_zone))
    return Period.of(local.date()).previous


def _close(account: Account, period: Period, report: ClosingReport, *, user: User | None) -> None:
    try:
        for invoice in _documents(account, period, user):
            report.add(account, invoice)
    except BillingError as error:
        log.warning("an account could not be billed", account=account.name, period=str(period), reason=str(error))
        report.failed.append((account.name, str(error)))


def _documents(account: Account, period: Period, user: User | None) -> Iterator[Invoice | None]:
    """The regular invoice; of a closed account that used nothing, supplements for what came late."""
    is_closed = account.status == AccountStatus.CLOSED
    used = DailyUsage.objects.filter(account=account, local_day__gte=period.start, local_day__lt=period.end)
    if not is_closed or used.exists():
        yield draft_invoice(account, period, user=user, is_fresh=True)
        return
    # An invoice of the next month would have taken these, but there will be none.
    future = Invoice(account=account, currency=profile_of(account).currency, period_start=period.end)
    for late, _ in changed_periods(future):
        yield draft_invoice(account, late, user=user, kind=InvoiceKind.SUPPLEMENT, is_fresh=True)


def _month_of_fees(account: Account, last: Period) -> set[Period]:
    """The last month, which may have fees where it has no usage: not for who came after it."""
    return {last} if account.created_at.date() < last.end else set()


def _is_billed(account: Account, period: Period) -> bool:
    profile: BillingProfile | None = getattr(account, "billing_profile", None)
    return profile is None or profile.billed_from is None or period.start >= profile.billed_from


def _months_used() -> dict[int, set[Period]]:
    """Months with billable usage, by account."""
    rows = DailyUsage.objects.filter(is_billable=True).annotate(month=TruncMonth("local_day"))
    return _periods_by_account(rows.values_list("account_id", "month").order_by().distinct())


def _months_settled() -> dict[int, set[Period]]:
    """Months whose regular invoice was submitted, or voided with none after it."""
    states = defaultdict(set)
    for account_id, start, state in Invoice.objects.filter(kind=InvoiceKind.REGULAR).values_list(
        "account_id", "period_start", "state"
    ):
        states[account_id, start].add(state)
    settled = [key for key, found in states.items() if InvoiceState.DRAFT not in found]
    return _periods_by_account(settled)


def _months_drafted() -> dict[int, set[Period]]:
    drafts = Invoice.objects.filter(kind=InvoiceKind.REGULAR, state=InvoiceState.DRAFT)
    return _periods_by_account(drafts.values_list("account_id", "period_start"))


def _periods_by_account(rows: Iterable[tuple[int, date]]) -> dict[int, set[Period]]:
    found: dict[int, set[Period]] = defaultdict(set)
    for account_id, start in rows:
        found[account_id].add(Period(start))
    return found
