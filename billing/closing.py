"""The end of a month: a draft for each account, made once its own last day has ended.

Nothing here counts on being called once, or at all: what is due is found by query, and a draft that exists is computed
anew. So a job that is delivered twice, or a worker that is killed, costs nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import TruncMonth
from django.utils import timezone

from billing.enums import InvoiceKind, InvoiceState
from billing.errors import BillingError
from billing.invoicing import Outcome, draft_invoices
from billing.late import changed_periods, invoices_of, others_of
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

ACCOUNTS_AT_A_TIME = 10
"""In one transaction: so long do those wait who want to move one of their invoices."""


@dataclass
class ClosingReport:
    """By account name. kept: submitted before, so nothing was changed. failed: (account, why)."""

    drafted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def add(self, account: Account, period: Period, outcome: Outcome) -> None:
        if isinstance(outcome, BillingError):
            log.warning("an account could not be billed", account=account.name, period=str(period), reason=str(outcome))
            self.failed.append((account.name, str(outcome)))
        elif outcome is None:
            self.empty.append(account.name)
        elif outcome.state == InvoiceState.DRAFT:
            self.drafted.append(account.name)
        else:
            self.kept.append(account.name)


def close_month(
    period: Period,
    *,
    account: Account | None = None,
    user: User | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ClosingReport:
    """Draft the month's invoice of every account, or of one; drafts that exist are computed anew.

    on_progress: called as (accounts done, of how many).
    """
    accounts = [account] if account is not None else list(_accounts())
    refresh(account_ids=None if account is None else [account.pk])
    report = ClosingReport()
    done = 0
    for some in _batches(accounts):
        _close(some, period, report, user=user)
        done += len(some)
        if on_progress is not None:
            on_progress(done, len(accounts))
    return report


def close_due_months(*, now: datetime | None = None) -> ClosingReport:
    """Draft each month that has ended for its account and was not invoiced; compute the drafts of such months anew.

    A month whose invoice was voided is left alone: who wants it again closes it by hand.
    """
    now = now or timezone.now()
    apply_time_zones(now=now)
    refresh()
    report = ClosingReport()
    due = _accounts_by_month_due(now)
    for period in sorted(due):
        for some in _batches(due[period]):
            _close(some, period, report, user=None)
    return report


def _accounts_by_month_due(now: datetime) -> dict[Period, list[Account]]:
    used, settled, drafts = _months_used(), _months_settled(), _months_drafted()
    due: dict[Period, list[Account]] = defaultdict(list)
    for account in _accounts():
        last = last_ended(account, now)
        for period in (used[account.pk] | drafts[account.pk] | _month_of_fees(account, last)) - settled[account.pk]:
            if period <= last and _is_billed(account, period):
                due[period].append(account)
    return due


def _accounts() -> QuerySet[Account]:
    return Account.objects.select_related("billing_profile").order_by("id")


def _batches(accounts: Sequence[Account]) -> Iterator[Sequence[Account]]:
    return (accounts[start : start + ACCOUNTS_AT_A_TIME] for start in range(0, len(accounts), ACCOUNTS_AT_A_TIME))


def last_ended(account: Account, now: datetime) -> Period:
    """The latest month that has been over for BILLING_CLOSE_AFTER_HOURS where the account is."""
    local = (now - timedelta(hours=settings.BILLING_CLOSE_AFTER_HOURS)).astimezone(ZoneInfo(account.time_zone))
    return Period.of(local.date()).previous


def _close(accounts: Sequence[Account], period: Period, report: ClosingReport, *, user: User | None) -> None:
    """A regular invoice each; of closed accounts that used nothing, supplements for what came late."""
    closed = [account for account in accounts if account.status == AccountStatus.CLOSED and not _used(account, period)]
    _draft([account for account in accounts if account not in closed], period, report, user=user)
    for account in closed:
        # An invoice of the next month would have taken these, but there will be none.
        future = Invoice(account=account, currency=profile_of(account).currency, period_start=period.end)
        others = others_of(future, invoices_of([account.pk])[account.pk])
        for late in changed_periods({account.pk: others}, period.following).get(account.pk, ()):
            _draft([account], late, report, user=user, kind=InvoiceKind.SUPPLEMENT)


def _draft(
    accounts: Sequence[Account],
    period: Period,
    report: ClosingReport,
    *,
    user: User | None,
    kind: InvoiceKind = InvoiceKind.REGULAR,
) -> None:
    outcomes = draft_invoices(accounts, period, user=user, kind=kind)
    for account in accounts:
        report.add(account, period, outcomes[account.pk])


def _used(account: Account, period: Period) -> bool:
    days = DailyUsage.objects.filter(account=account, local_day__gte=period.start, local_day__lt=period.end)
    return days.exists()


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
