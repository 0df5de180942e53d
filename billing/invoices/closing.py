"""The end of a month: drafts one invoice per account, once the account's own last day has ended.

Nothing here relies on being called once, or at all: due months are found by query, and an existing draft is recomputed.
So a job that is delivered twice, or a worker that is killed, does no harm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import F, QuerySet
from django.db.models.functions import TruncMonth
from django.utils import timezone

from billing.calendar import first_month, is_closed_at, local_date, may_have_been_open_in, was_open_in
from billing.enums import InvoiceKind, InvoiceState
from billing.errors import BillingError
from billing.invoices.drafting import DraftResult, draft_invoices
from billing.invoices.late_usage import changed_periods, find_prior_invoices, load_invoices
from billing.invoices.reductions import accounts_to_look_at, draft_reductions
from billing.models import BillingProfile, DailyUsage, Invoice, PlanVersion
from billing.periods import BillingPeriod, months_between
from billing.plans import get_or_create_profile
from billing.rollup import refresh, rows_with
from billing.timezones import apply_time_zones
from llm.models import Account

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger("billing")

_FARTHEST_AHEAD = timedelta(hours=14)
"""How far ahead of UTC a time zone can be (Kiritimati)."""
# Accounts per transaction: users who want to move one of their invoices wait for it; on SQLite, the gateway does too.
ACCOUNTS_AT_A_TIME = 1 if connection.vendor == "sqlite" else 20


@dataclass
class ClosingReport:
    """By account name. kept: submitted before, so nothing was changed. failed: (account, why).

    credited: drafts of credit notes for months that cost less than was billed; an account appears once for each.
    """

    drafted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    credited: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def add(self, account: Account, period: BillingPeriod, outcome: DraftResult) -> None:
        if isinstance(outcome, BillingError):
            log.warning("invoices.account_failed", account=account.name, period=str(period), reason=str(outcome))
            self.failed.append((account.name, str(outcome)))
        elif outcome is None:
            self.empty.append(account.name)
        elif outcome.state == InvoiceState.DRAFT:
            self.drafted.append(account.name)
        else:
            self.kept.append(account.name)


def close_month(
    period: BillingPeriod,
    *,
    account: Account | None = None,
    user: User | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ClosingReport:
    """Draft the month's invoice for every account, or for one; existing drafts are recomputed.

    Accounts that aren't invoiced yet in that month count as empty, unless one is named. Naming an account asserts that
    it was open in the month, if that is unknown.
    on_progress: called with (accounts done, total). Raises BillingError if the month hasn't begun, for the named
    account or for all; otherwise accounts in which it hasn't begun count as empty too.
    """
    require_begun(period, account)
    refresh(account_ids=None if account is None else [account.pk])
    report = ClosingReport()
    accounts = [account] if account is not None else _accounts_billed_in(period, report)
    done = len(report.empty)
    of = done + len(accounts)
    for some in _batches(accounts):
        _close(some, period, report, user=user, is_asked_for=account is not None)
        done += len(some)
        if on_progress is not None:
            on_progress(done, of)
    return report


def require_begun(period: BillingPeriod, account: Account | None) -> None:
    """Raises BillingError where the month has not begun: anywhere, or for the one account."""
    now = timezone.now()
    if period.start > (now + _FARTHEST_AHEAD).date() or (account and not _has_begun(period, account, now)):
        raise BillingError(f"{period} has not started: its invoices can be generated once it has ended.")


def close_due_months(*, now: datetime | None = None) -> ClosingReport:
    """Draft each month that has ended for its account and wasn't invoiced; recompute the drafts of such months.

    Also drafts credit notes for issued months whose cost has dropped, even for accounts with no month due. A month
    whose invoice was voided is skipped; staff can close it by hand.
    """
    now = now or timezone.now()
    apply_time_zones(now=now)
    refresh()
    report = ClosingReport()
    due = _accounts_by_month_due(now)
    for period in sorted(due):
        for some in _batches(due[period]):
            _close(some, period, report, user=None)
    done = {account.pk for accounts in due.values() for account in accounts}
    for some in _batches(list(Account.objects.filter(pk__in=accounts_to_look_at() - done).order_by("id"))):
        _reduce(some, report, user=None)
    return report


def _accounts_by_month_due(now: datetime) -> dict[BillingPeriod, list[Account]]:
    used, settled, drafts, terms = _months_used(), _months_settled(), _months_drafted(), terms_by_plan()
    due: dict[BillingPeriod, list[Account]] = defaultdict(list)
    for account in _accounts():
        last = last_ended(account, now)
        fees = months_of_fees(account, last, terms)
        # The invoice of the last month includes late usage of earlier ones.
        latest = {last} if first_month(account) <= last else set()
        for period in (used[account.pk] | drafts[account.pk] | fees | latest) - settled[account.pk]:
            if period <= last and is_billed(account, period):
                due[period].append(account)
    return due


def _accounts() -> QuerySet[Account]:
    accounts = Account.objects.select_related("billing_profile")
    return accounts.prefetch_related("billing_profile__former_plans").order_by("id")


def _accounts_billed_in(period: BillingPeriod, report: ClosingReport) -> list[Account]:
    """All accounts except those invoiced only from a later month on, or created later: they would be charged fees.

    Those are reported as empty.
    """
    accounts = list(_accounts())
    newcomers = [account.pk for account in accounts if first_month(account) > period]
    with_usage = _days_used(newcomers, period).values_list("account_id", flat=True).distinct() if newcomers else ()
    too_early = set(newcomers) - set(with_usage)
    found, now = [], timezone.now()
    for account in accounts:
        if account.pk in too_early or not is_billed(account, period) or not _has_begun(period, account, now):
            report.empty.append(account.name)
        else:
            found.append(account)
    return found


def _has_begun(period: BillingPeriod, account: Account, now: datetime) -> bool:
    return local_date(account, now) >= period.start


def _batches(accounts: Sequence[Account]) -> Iterator[Sequence[Account]]:
    return (accounts[start : start + ACCOUNTS_AT_A_TIME] for start in range(0, len(accounts), ACCOUNTS_AT_A_TIME))


def last_ended(account: Account, now: datetime) -> BillingPeriod:
    """The latest month that ended at least BILLING_CLOSE_AFTER_HOURS ago in the account's time zone.

    Closing an account ends its month on that day.
    """
    moment = now - timedelta(hours=settings.BILLING_CLOSE_AFTER_HOURS)
    month = BillingPeriod.of(local_date(account, moment))
    return month if is_closed_at(account, moment) else month.previous


def _close(
    accounts: Sequence[Account],
    period: BillingPeriod,
    report: ClosingReport,
    *,
    user: User | None,
    is_asked_for: bool = False,
) -> None:
    """A regular invoice for each; supplements for late usage that no regular invoice will take."""
    was_open = may_have_been_open_in if is_asked_for else was_open_in
    closed = [account for account in accounts if not was_open(account, period) and _owes_nothing(account, period)]
    _draft([account for account in accounts if account not in closed], period, report, user=user)
    currencies = _former_currencies(accounts)
    for account in accounts:
        if account in closed:
            currencies[account.pk].add(get_or_create_profile(account).currency)
        elif currencies[account.pk]:
            # Late usage in the regular invoice's currency is on that invoice.
            currencies[account.pk].discard(get_or_create_profile(account).currency_in(period))
        for currency in sorted(currencies[account.pk]):
            _supplement(account, currency, period, report, user=user)
    _reduce(accounts, report, user=user)


def _reduce(accounts: Sequence[Account], report: ClosingReport, *, user: User | None) -> None:
    reductions = draft_reductions(accounts, user=user)
    for account in accounts:
        if (found := reductions.get(account.pk)) is not None:
            report.credited.extend(account.name for _ in found.drafts)
            for period, error in found.failed.items():
                failure = (account.name, f"The current cost of {period} could not be calculated: {error}")
                if failure not in report.failed:
                    report.failed.append(failure)


def _supplement(
    account: Account, currency: str, until: BillingPeriod, report: ClosingReport, *, user: User | None
) -> None:
    """One for each month that was billed in that currency and has changed since."""
    future = Invoice(account=account, currency=currency, period_start=until.end)
    others = find_prior_invoices(
        future, load_invoices([account.pk])[account.pk], profile=get_or_create_profile(account)
    )
    for late in changed_periods({account.pk: others}, until.following).get(account.pk, ()):
        _draft([account], late, report, user=user, kind=InvoiceKind.SUPPLEMENT)


def _former_currencies(accounts: Iterable[Account]) -> dict[int, set[str]]:
    """By account: the currencies in which it was billed before, other than its current one."""
    billed = Invoice.objects.frozen().filter(account__in=[account.pk for account in accounts])
    former = billed.exclude(kind=InvoiceKind.CREDIT_NOTE).exclude(currency=F("account__billing_profile__currency"))
    found: dict[int, set[str]] = defaultdict(set)
    for account_id, currency in former.order_by().values_list("account_id", "currency").distinct():
        found[account_id].add(currency)
    return found


def _draft(
    accounts: Sequence[Account],
    period: BillingPeriod,
    report: ClosingReport,
    *,
    user: User | None,
    kind: InvoiceKind = InvoiceKind.REGULAR,
) -> None:
    outcomes = draft_invoices(accounts, period, user=user, kind=kind)
    for account in accounts:
        report.add(account, period, outcomes[account.pk])


def _owes_nothing(account: Account, period: BillingPeriod) -> bool:
    """Whether a month in which the account was closed needs no invoice: it has no fees, and no usage.

    If staff have asked for a draft, it is recomputed.
    """
    drafts = Invoice.objects.filter(kind=InvoiceKind.REGULAR, state=InvoiceState.DRAFT)
    is_drafted = drafts.filter(account=account, period_start=period.start).exists()
    return not (is_drafted or _used(account, period))


def _used(account: Account, period: BillingPeriod) -> bool:
    return _days_used([account.pk], period).exists()


def _days_used(account_ids: Collection[int], period: BillingPeriod) -> QuerySet[DailyUsage]:
    days = DailyUsage.objects.with_calls().filter(
        account__in=account_ids, local_day__gte=period.start, local_day__lt=period.end
    )
    return days.order_by()


def months_of_fees(
    account: Account, last: BillingPeriod, terms: Mapping[int, Sequence[PlanVersion]]
) -> set[BillingPeriod]:
    """Every month up to the last in which the plan in force has a fee or a commitment, drafted or not.

    Months in which the account was closed have no fees. terms: from `terms_by_plan`.
    """
    first = first_month(account)
    profile: BillingProfile | None = getattr(account, "billing_profile", None)
    months: set[BillingPeriod] = set()
    if profile is None:
        return months
    for plan_id, begin, end in _plans_with_months(profile, last):
        starts = [first.start, profile.billed_from or first.start, begin or first.start]
        for version, until in _in_force(terms.get(plan_id, ()), end):
            if version.flat_fee or version.minimum_commitment:
                since = BillingPeriod.of(max(*starts, version.effective_from))
                months |= {each for each in months_between(since, until) if was_open_in(account, each)}
    return months


def _plans_with_months(
    profile: BillingProfile, last: BillingPeriod
) -> Iterator[tuple[int, date | None, BillingPeriod]]:
    """(plan id, the day from which its fees are due, the last month it applies to), for former plans and the current
    one.
    """
    before: date | None = None
    for each in sorted(profile.former_plans.all(), key=lambda former: former.until):
        yield each.plan_id, _later(before, each.since), min(last, BillingPeriod(each.until).previous)
        before = each.until
    yield profile.plan_id, _later(before, profile.plan_from), last


def _later(one: date | None, other: date | None) -> date | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _in_force(versions: Sequence[PlanVersion], last: BillingPeriod) -> Iterator[tuple[PlanVersion, BillingPeriod]]:
    """Each version with the last month it applies to. versions: of one plan, by month."""
    for version, following in zip(versions, [*versions[1:], None], strict=True):
        yield version, last if following is None else min(last, BillingPeriod(following.effective_from).previous)


def terms_by_plan() -> dict[int, list[PlanVersion]]:
    """The versions of each plan, by month."""
    found: dict[int, list[PlanVersion]] = defaultdict(list)
    for version in PlanVersion.objects.order_by("effective_from"):
        found[version.plan_id].append(version)
    return found


def is_billed(account: Account, period: BillingPeriod) -> bool:
    profile: BillingProfile | None = getattr(account, "billing_profile", None)
    return profile is None or profile.billed_from is None or period.start >= profile.billed_from


def _months_used() -> dict[int, set[BillingPeriod]]:
    """Months with billable usage, by account."""
    parts = (
        rows.filter(is_billable=True)
        .annotate(month=TruncMonth("local_day"))
        .values_list("account_id", "month")
        .distinct()
        for rows in rows_with("account_id", "local_day", "is_billable")
    )
    return _periods_by_account(chain.from_iterable(parts))


def _months_settled() -> dict[int, set[BillingPeriod]]:
    """Months whose regular invoice was submitted, or voided without a successor."""
    states = defaultdict(set)
    for account_id, start, state in Invoice.objects.filter(kind=InvoiceKind.REGULAR).values_list(
        "account_id", "period_start", "state"
    ):
        states[account_id, start].add(state)
    settled = [key for key, found in states.items() if InvoiceState.DRAFT not in found]
    return _periods_by_account(settled)


def _months_drafted() -> dict[int, set[BillingPeriod]]:
    drafts = Invoice.objects.filter(kind=InvoiceKind.REGULAR, state=InvoiceState.DRAFT)
    return _periods_by_account(drafts.values_list("account_id", "period_start"))


def _periods_by_account(rows: Iterable[tuple[int, date]]) -> dict[int, set[BillingPeriod]]:
    found: dict[int, set[BillingPeriod]] = defaultdict(set)
    for account_id, start in rows:
        found[account_id].add(BillingPeriod(start))
    return found
