"""The end of a month: a draft for each account, made once its own last day has ended.

Nothing here counts on being called once, or at all: what is due is found by query, and a draft that exists is computed
anew. So a job that is delivered twice, or a worker that is killed, costs nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import F, QuerySet
from django.db.models.functions import TruncMonth
from django.utils import timezone

from billing.enums import InvoiceKind, InvoiceState
from billing.errors import BillingError
from billing.invoicing import Outcome, draft_invoices
from billing.late import changed_periods, invoices_of, others_of
from billing.models import BillingProfile, DailyUsage, Invoice
from billing.periods import Period
from billing.plans import profile_of
from billing.reductions import draft_reductions
from billing.rollup import refresh, rows_with
from billing.timezones import apply_time_zones
from llm.enums import AccountStatus
from llm.models import Account

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger("billing")

_FARTHEST_AHEAD = timedelta(hours=14)
"""Of UTC: so much earlier a day begins in Kiritimati."""
# In one transaction: so long do those wait who want to move one of their invoices. On SQLite the gateway waits too.
ACCOUNTS_AT_A_TIME = 1 if connection.vendor == "sqlite" else 20


@dataclass
class ClosingReport:
    """By account name. kept: submitted before, so nothing was changed. failed: (account, why).

    credited: drafts of credit notes over months that cost less than was billed of them, an account as often as it has
    some.
    """

    drafted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    credited: list[str] = field(default_factory=list)
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

    Accounts that are not invoiced yet in that month count as empty, unless one is asked for by name.
    on_progress: called as (accounts done, of how many). Raises BillingError where the month has not begun anywhere.
    """
    if period.start > (timezone.now() + _FARTHEST_AHEAD).date():
        raise BillingError(f"{period} has not begun: close it once it is over.")
    refresh(account_ids=None if account is None else [account.pk])
    report = ClosingReport()
    accounts = [account] if account is not None else _accounts_billed_in(period, report)
    done = len(report.empty)
    of = done + len(accounts)
    for some in _batches(accounts):
        _close(some, period, report, user=user)
        done += len(some)
        if on_progress is not None:
            on_progress(done, of)
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
            if period <= last and is_billed(account, period):
                due[period].append(account)
    return due


def _accounts() -> QuerySet[Account]:
    return Account.objects.select_related("billing_profile").order_by("id")


def _accounts_billed_in(period: Period, report: ClosingReport) -> list[Account]:
    """All but those whose invoices begin later, and those that came later: they would owe fees for it.

    They are noted as empty.
    """
    accounts = list(_accounts())
    newcomers = [account.pk for account in accounts if account.created_at.date() >= period.end]
    with_usage = _days_used(newcomers, period).values_list("account_id", flat=True).distinct() if newcomers else ()
    too_early = set(newcomers) - set(with_usage)
    found = []
    for account in accounts:
        if account.pk in too_early or not is_billed(account, period):
            report.empty.append(account.name)
        else:
            found.append(account)
    return found


def _batches(accounts: Sequence[Account]) -> Iterator[Sequence[Account]]:
    return (accounts[start : start + ACCOUNTS_AT_A_TIME] for start in range(0, len(accounts), ACCOUNTS_AT_A_TIME))


def last_ended(account: Account, now: datetime) -> Period:
    """The latest month that has been over for BILLING_CLOSE_AFTER_HOURS where the account is."""
    local = (now - timedelta(hours=settings.BILLING_CLOSE_AFTER_HOURS)).astimezone(ZoneInfo(account.time_zone))
    return Period.of(local.date()).previous


def _close(accounts: Sequence[Account], period: Period, report: ClosingReport, *, user: User | None) -> None:
    """A regular invoice each; supplements for what came late where no regular invoice will take it."""
    closed = [account for account in accounts if account.status == AccountStatus.CLOSED and not _used(account, period)]
    _draft([account for account in accounts if account not in closed], period, report, user=user)
    currencies = _former_currencies(accounts)
    for account in accounts:
        if account in closed:
            currencies[account.pk].add(profile_of(account).currency)
        for currency in sorted(currencies[account.pk]):
            _supplement(account, currency, period, report, user=user)
    for account_id, notes in draft_reductions(accounts, user=user).items():
        names = {account.pk: account.name for account in accounts}
        report.credited.extend(names[account_id] for _ in notes)


def _supplement(account: Account, currency: str, until: Period, report: ClosingReport, *, user: User | None) -> None:
    """One for each month that was billed in that currency and has changed since."""
    future = Invoice(account=account, currency=currency, period_start=until.end)
    currency_now = profile_of(account).currency
    others = others_of(future, invoices_of([account.pk])[account.pk], currency_now=currency_now)
    for late in changed_periods({account.pk: others}, until.following).get(account.pk, ()):
        _draft([account], late, report, user=user, kind=InvoiceKind.SUPPLEMENT)


def _former_currencies(accounts: Iterable[Account]) -> dict[int, set[str]]:
    """By account: in which its usage was billed, though it is billed in another by now."""
    billed = Invoice.objects.frozen().filter(account__in=[account.pk for account in accounts])
    former = billed.exclude(kind=InvoiceKind.CREDIT_NOTE).exclude(currency=F("account__billing_profile__currency"))
    found: dict[int, set[str]] = defaultdict(set)
    for account_id, currency in former.order_by().values_list("account_id", "currency").distinct():
        found[account_id].add(currency)
    return found


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
    return _days_used([account.pk], period).exists()


def _days_used(account_ids: Collection[int], period: Period) -> QuerySet[DailyUsage]:
    return DailyUsage.objects.filter(
        account__in=account_ids, local_day__gte=period.start, local_day__lt=period.end
    ).order_by()


def _month_of_fees(account: Account, last: Period) -> set[Period]:
    """The last month, which may have fees where it has no usage: not for who came after it."""
    return {last} if account.created_at.date() < last.end else set()


def is_billed(account: Account, period: Period) -> bool:
    profile: BillingProfile | None = getattr(account, "billing_profile", None)
    return profile is None or profile.billed_from is None or period.start >= profile.billed_from


def _months_used() -> dict[int, set[Period]]:
    """Months with billable usage, by account."""
    parts = (
        rows.filter(is_billable=True)
        .annotate(month=TruncMonth("local_day"))
        .values_list("account_id", "month")
        .distinct()
        for rows in rows_with("account_id", "local_day", "is_billable")
    )
    return _periods_by_account(chain.from_iterable(parts))


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
