"""What an account's page and a key's page begin with: its usage, its cost, its charge, and its limits.

The figures are those of the usage explorer, live; each page asks it once. Our cost is shown to people who may see calls
or the explorer, charges and margins to those who may see invoices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import AnonymousUser, PermissionsMixin
from django.utils import timezone

from billing.calendar import local_date
from billing.currencies import COST_CURRENCY, DECIMALS
from billing.enums import LineKind
from billing.errors import BillingError
from billing.invoices.exchange_rates import rate_on
from billing.models import BillingProfile, Invoice, PlanVersion
from billing.periods import BillingPeriod
from billing.plans import build_terms, version_in_force
from billing.rating import rate
from billing.rollup import load_usage_sums
from billing.usage_reports import Dimension, Exploration, Filters, Group, Measure, Question, TooMuchUsageError, explore
from llm.admin.limits.standing import LimitStanding, load_standings
from llm.enums import FAILED_OUTCOMES, CallOutcome
from llm.ids import first_id_at
from llm.models import Account, ApiKey, Limit, Usage
from llm.money import exact_sum, pico_to_usd, round_half_away

DAYS = 90
MAX_KEYS = 20
MAX_LIMITS = 60
MAX_INVOICES = 6
ERRORS_OF = timedelta(days=7)
MAX_CALLS_READ = 1000
_FIXED = (LineKind.FLAT_FEE, LineKind.COMMITMENT)
_CENTS = 2

Person = PermissionsMixin | AnonymousUser


@dataclass(frozen=True, slots=True)
class Figures:
    """cost: None for people who may not see it."""

    calls: int
    tokens: int
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class Part:
    """A key or a model of the last DAYS. month_cost: of the current month."""

    name: str
    figures: Figures
    month_cost: Decimal | None
    key: ApiKey | None = None
    gauge: LimitStanding | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """amount: without tax, as if the month ended now. fixed: the fees and the top-up to a minimum in it.

    margin_percent: of the amount; None where nothing is charged.
    """

    amount: Decimal
    fixed: Decimal
    currency: str
    margin: Decimal
    margin_percent: Decimal | None


@dataclass(frozen=True, slots=True)
class Home:
    """points: of the chart. problem: why there are no figures."""

    first: date
    today: date
    month: Figures
    former: Figures
    points: Sequence[Mapping[str, Any]]
    parts: Sequence[Part]
    other_parts: int
    as_of: datetime | None
    unpriced_calls: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AccountHome:
    home: Home
    charge: Charge | None = None
    why_no_charge: str = ""
    profile: BillingProfile | None = None
    version: PlanVersion | None = None
    invoices: Sequence[Invoice] = ()


@dataclass(frozen=True, slots=True)
class Errors:
    """Of the latest calls of a week: how many were looked at, and how many of them ended in which way."""

    looked_at: int
    is_all: bool
    failed: Sequence[tuple[str, str, int]] = ()

    @property
    def number(self) -> int:
        return sum(number for _, _, number in self.failed)

    @property
    def percent(self) -> Decimal:
        return round_half_away(Decimal(self.number * 100) / self.looked_at, 1) if self.looked_at else Decimal(0)


@dataclass(frozen=True, slots=True)
class KeyHome:
    home: Home
    errors: Errors | None


def account_home(account: Account, user: Person) -> AccountHome | None:
    """None for people who may see nothing of it."""
    may_see_invoices = user.has_perm("billing.view_invoice")
    may_see_usage = _may_see_usage(user)
    if not (may_see_usage or may_see_invoices):
        return None
    now = timezone.now()
    # A form that was refused leaves what was typed on its object, such as a time zone that doesn't exist.
    account = Account.objects.get(pk=account.pk)
    filters = Filters(account_id=account.pk)
    home = _home(account, filters, Dimension.KEY, now, sees_cost=may_see_usage)
    home = _with_keys(home, account, user, now)
    if not may_see_invoices:
        return AccountHome(home)
    profile = BillingProfile.objects.filter(account=account).select_related("plan").first()
    invoices = Invoice.objects.filter(account=account).select_related("series").order_by("-period_start", "-id")
    found = list(invoices[:MAX_INVOICES])
    if profile is None:
        return AccountHome(home, why_no_charge="It has no billing profile yet.", invoices=found)
    try:
        version = version_in_force(profile.plan_in(BillingPeriod.of(home.today)), BillingPeriod.of(home.today))
        charge = _charge(account, version, home.today)
    except (BillingError, ValueError) as error:
        return AccountHome(home, why_no_charge=str(error), profile=profile, invoices=found)
    return AccountHome(home, charge, profile=profile, version=version, invoices=found)


def key_home(key: ApiKey, user: Person) -> KeyHome | None:
    if not _may_see_usage(user):
        return None
    now = timezone.now()
    filters = Filters(account_id=key.account_id, api_key_ids=(key.pk,))
    home = _home(key.account, filters, Dimension.MODEL, now, sees_cost=True)
    return KeyHome(home, _errors(key, now) if user.has_perm("llm.view_usage") else None)


def _may_see_usage(user: Person) -> bool:
    return user.has_perm("llm.view_usage") or user.has_perm("billing.view_dailyusage")


def _home(account: Account, filters: Filters, by: Dimension, now: datetime, *, sees_cost: bool) -> Home:
    today = local_date(account, now)
    month, former = BillingPeriod.of(today), BillingPeriod.of(today).previous
    first = min(today - timedelta(days=DAYS - 1), former.start)
    question = Question(first, today, filters, by=by, measure=Measure.COST, zone=account.time_zone)
    by_time = Question(first, today, filters, by=Dimension.TIME, measure=Measure.COST, zone=account.time_zone)
    try:
        found, times = explore(question, with_before=False), explore(by_time, with_before=False)
    except TooMuchUsageError as error:
        nothing = Figures(0, 0, None)
        return Home(first, today, nothing, nothing, (), (), 0, None, problem=str(error))
    until = former.start + (today - month.start)
    days = [group for group in times.groups if isinstance(group.value, date)]
    return Home(
        first=today - timedelta(days=DAYS - 1),
        today=today,
        month=_sum((each for each in days if each.value >= month.start), sees_cost=sees_cost),
        former=_sum((each for each in days if former.start <= each.value <= until), sees_cost=sees_cost),
        points=[_point(each, sees_cost=sees_cost) for each in days if each.value > today - timedelta(days=DAYS)],
        parts=[_part(each, found, month.start, sees_cost=sees_cost) for each in found.groups],
        other_parts=found.other_values,
        as_of=times.as_of,
        unpriced_calls=times.total.unpriced_calls,
    )


def _sum(days: Iterable[Group], *, sees_cost: bool) -> Figures:
    figures = [each.figures for each in days]
    return Figures(
        sum(each.calls for each in figures),
        sum(each.prompt_tokens + each.completion_tokens for each in figures),
        exact_sum(each.cost for each in figures) if sees_cost else None,
    )


def _point(group: Group, *, sees_cost: bool) -> Mapping[str, Any]:
    cost = f"{group.figures.cost:f}" if sees_cost else None
    return {"day": group.value.isoformat(), "calls": group.figures.calls, "cost": cost}


def _part(group: Group, found: Exploration, month_start: date, *, sees_cost: bool) -> Part:
    in_month = [value for bucket, value in zip(found.buckets, group.series, strict=True) if _day(bucket) >= month_start]
    return Part(str(group.value), _sum([group], sees_cost=sees_cost), exact_sum(in_month) if sees_cost else None)


def _day(bucket: date | datetime) -> date:
    return bucket.date() if isinstance(bucket, datetime) else bucket


def _with_keys(home: Home, account: Account, user: Person, now: datetime) -> Home:
    """Keys by their names, those without calls too, each with the fullest of its own limits."""
    if not user.has_perm("llm.view_apikey"):
        return replace(home, parts=())
    gauges = _fullest_by_key(account, now) if user.has_perm("llm.view_limit") else {}
    used = {part.name: part for part in home.parts}
    keys = list(account.keys.order_by("-id")[:MAX_KEYS])
    known = {key.pk for key in keys}
    keys += account.keys.filter(pk__in=[int(name) for name in used if int(name) not in known])
    nothing = Figures(0, 0, None if home.month.cost is None else Decimal(0))
    parts = []
    for key in keys:
        part = used.get(str(key.pk), Part(key.name, nothing, nothing.cost))
        parts.append(Part(key.name, part.figures, part.month_cost, key, gauges.get(key.pk)))
    parts.sort(key=lambda part: (-(part.figures.cost or 0), -part.figures.calls, part.name))
    return replace(home, parts=parts)


def _fullest_by_key(account: Account, now: datetime) -> Mapping[int, LimitStanding]:
    limits = Limit.objects.in_force().filter(account=account, api_key__isnull=False).select_related("account")
    fullest: dict[int, LimitStanding] = {}
    for standing in load_standings(limits.order_by("-id")[:MAX_LIMITS], now):
        key_id = standing.limit.api_key_id
        if key_id is not None and (key_id not in fullest or standing.percent > fullest[key_id].percent):
            fullest[key_id] = standing
    return fullest


# --- What the account is charged --------------------------------------------------------------------------------------


def _charge(account: Account, version: PlanVersion, today: date) -> Charge:
    """As the draft of the month would come to, without late usage of earlier ones. Raises BillingError, ValueError."""
    period = BillingPeriod.of(today)
    usage = load_usage_sums([account.pk], period)[account.pk]
    per_usd = None if version.currency == COST_CURRENCY else rate_on(version.currency, today).per_usd
    lines = rate(usage, build_terms(version), per_usd=per_usd, decimals=DECIMALS[version.currency])
    amount = exact_sum(line.amount for line in lines)
    cost = pico_to_usd(sum(line.cost_pico for line in lines))
    margin = exact_sum((amount / (per_usd or 1), -cost))
    percent = round_half_away(margin * 100 * (per_usd or 1) / amount, 1) if amount else None
    return Charge(
        amount=amount,
        fixed=exact_sum(line.amount for line in lines if line.kind in _FIXED),
        currency=version.currency,
        margin=round_half_away(margin, _CENTS),
        margin_percent=percent,
    )


# --- What went wrong --------------------------------------------------------------------------------------------------


def _errors(key: ApiKey, now: datetime) -> Errors:
    calls = Usage.objects.filter(api_key=key, id__gte=first_id_at(now - ERRORS_OF)).order_by("-id")
    outcomes = list(calls.values_list("outcome", flat=True)[: MAX_CALLS_READ + 1])
    counted: Counter[str] = Counter(outcomes[:MAX_CALLS_READ])
    failed = [(each.value, each.label, counted[each.value]) for each in map(CallOutcome, FAILED_OUTCOMES)]
    return Errors(
        looked_at=min(len(outcomes), MAX_CALLS_READ),
        is_all=len(outcomes) <= MAX_CALLS_READ,
        failed=[each for each in failed if each[2]],
    )
