"""Writes the demo's accounts, prices, calls and limits, with the digests that the books themselves compute."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import F, Max

from billing.management.demo.cast import MODELS, MONTHS, PLANS, Customer, DemoLimit, DemoModel
from billing.management.demo.clock import set_clock
from billing.management.demo.usage import PROCESS, Cast, calls_of
from billing.models import BillingProfile, Plan
from billing.periods import BillingPeriod
from billing.plans import add_version
from llm.books.clock import lock_books
from llm.books.figures import compute_figures
from llm.endusers import account_key, hash_end_user
from llm.enums import LimitMetric, PriceSource
from llm.keys import create_key
from llm.limits.changes import set_limit
from llm.limits.periods import period_of
from llm.models import Account, ApiKey, EndUser, Limit, LimitWindow, Price, Usage
from llm.prices.pricing import STANDARD, PriceSnapshot
from llm.prices.snapshots import load_snapshots
from llm.prices.terms import NewPrice, PriceTerms, RateValue, lock_catalog, write_prices

NOTE = "Demo data"
END_USERS = 40
_BATCH = 500
_DAY = timedelta(days=1)
_ROUND_TO = 2
"""Amounts of limits have this many digits other than zero."""

Prices = Mapping[str, Sequence[PriceSnapshot]]


def month_before(until: datetime, months: int) -> date:
    """The first day of the month that began so many months before the current one."""
    period = BillingPeriod.of(until.date())
    for _ in range(months):
        period = period.previous
    return period.start


def write_prices_of_models(until: datetime) -> Prices:
    """By model. They are written by the first run; later ones read them."""
    since = datetime.combine(month_before(until, MONTHS + 1), time(), UTC)
    with transaction.atomic():
        lock_catalog()
        if not Price.objects.filter(note=NOTE).exists():
            write_prices(_new_price(model, since) for model in MODELS.values() if model.rates)
    found: dict[str, list[PriceSnapshot]] = defaultdict(list)
    for snapshot in load_snapshots(Price.objects.filter(note=NOTE).values_list("pk", flat=True)).values():
        found[snapshot.model].append(snapshot)
    return found


def _new_price(model: DemoModel, since: datetime) -> NewPrice:
    rates = {meter.value: RateValue(Decimal(amount)) for meter, amount in model.rates}
    content = PriceTerms(rate_sets={(STANDARD, 0): rates}, note=NOTE)
    return NewPrice(model.provider, model.name, since, PriceSource.STAFF, content)


def write_plans(until: datetime) -> None:
    for each in PLANS:
        plan, is_new = Plan.objects.get_or_create(name=each.name)
        if is_new:
            add_version(
                plan,
                effective_from=month_before(until, MONTHS),
                currency=each.currency,
                markup_percent=each.markup_percent,
                flat_fee=each.flat_fee,
                minimum_commitment=each.minimum_commitment,
                discount_percent=each.discount_percent,
                note=NOTE,
            )


def write_customer(customer: Customer, prices: Prices, until: datetime) -> int:
    """The account, if it is missing, and its calls since the last day that has any. Returns how many were added."""
    with transaction.atomic():
        account = Account.objects.filter(name=customer.name).first()
        is_new = account is None
        if account is None:
            account = _write_account(customer, until)
        keys = list(account.keys.order_by("id"))
        if is_new:
            with set_clock(account.created_at):
                for wanted in customer.limits:
                    _write_limit(wanted, account, keys)
        end_users = list(account.end_users.order_by("id").values_list("end_user", flat=True))
        rows = _rows(Cast(customer, account, keys, prices, end_users), until)
        _count_in_limits(account, rows, until)
        _write_calls(rows)
        if is_new:
            for wanted, limit in zip(customer.limits, account.limits.order_by("id"), strict=True):
                _fit_amount(wanted, limit)
    return len(rows)


def _write_account(customer: Customer, until: datetime) -> Account:
    since = datetime.combine(month_before(until, customer.joined), time(9), ZoneInfo(customer.time_zone))
    address = "".join(each for each in customer.name.lower() if each.isascii() and each.isalpha()) or "customer"
    with set_clock(since):
        account = Account.objects.create(
            name=customer.name,
            time_zone=customer.time_zone,
            alert_email=f"alerts@{address}.example",
            records_end_users=customer.names_end_users,
        )
        plan = Plan.objects.get(name=customer.plan)
        BillingProfile.objects.create(
            account=account,
            legal_name=customer.name,
            address="1 Example Street",
            country=customer.country,
            email=f"invoices@{address}.example",
            tax_percent=Decimal(customer.tax_percent),
            plan=plan,
            currency=plan.versions.latest("effective_from").currency,
            time_zone=customer.time_zone,
            payment_days=14,
        )
        for name in customer.keys:
            create_key(account, name=name)
    if customer.names_end_users:
        secret = account_key(account.pk)
        names = [f"user-{number:03d}" for number in range(1, END_USERS + 1)]
        EndUser.objects.bulk_create(
            EndUser(account=account, name=name, end_user=hash_end_user(name, secret)) for name in names
        )
    return account


def _rows(cast: Cast, until: datetime) -> list[Usage]:
    zone = ZoneInfo(cast.account.time_zone)
    first_day = cast.account.created_at.astimezone(zone).date()
    latest = Usage.objects.filter(account=cast.account).aggregate(day=Max("local_day"))["day"]
    day = first_day if latest is None else latest + _DAY
    rows: list[Usage] = []
    while day <= until.astimezone(zone).date():
        rows += calls_of(cast, day, first_day=first_day, open_since=month_before(until, 1), until=until)
        day += _DAY
    return rows


def _write_calls(rows: Iterable[Usage]) -> None:
    """They are recorded now, whenever they were made: what sums up the books reads what was recorded since."""
    recorded_at = lock_books()
    stamped = []
    for row in rows:
        row.recorded_at = recorded_at
        stamped.append(row.stamp_digest())
    Usage.objects.bulk_create(stamped, batch_size=_BATCH)


# --- Limits -----------------------------------------------------------------------------------------------------------


def _write_limit(limit: DemoLimit, account: Account, keys: Sequence[ApiKey]) -> None:
    """Its amount is set once it is known what is used of it."""
    key = next((each for each in keys if each.name == limit.key), None)
    set_limit(account, key, limit.metric, limit.per, 10**12, limit.soft_percent)


def _count_in_limits(account: Account, rows: Sequence[Usage], until: datetime) -> None:
    """Calls name the windows that they used, as if they had reserved something there."""
    used: Counter[int] = Counter()
    for limit in account.limits.order_by("id"):
        period = period_of(limit.per, account.time_zone, until)
        window, _ = LimitWindow.objects.get_or_create(
            limit=limit, starts_at=period.starts_at, defaults={"is_announced": True}
        )
        reserved = 1 if limit.metric == LimitMetric.REQUESTS else 0
        for row in rows:
            if period.contains(row.opened_at) and limit.api_key_id in (None, row.api_key_id):
                row.holds = [*(row.holds or ()), [window.pk, reserved]]
                used[window.pk] += compute_figures(row, ()).units_used(limit.metric, reserved)
    for window_id, units in used.items():
        LimitWindow.objects.filter(pk=window_id).update(used=F("used") + units)


def _fit_amount(demo_limit: DemoLimit, limit: Limit) -> None:
    """So that the current period has used the wanted share; a round figure unless it is used up."""
    window = LimitWindow.objects.filter(limit=limit).latest("starts_at")
    amount = max(window.used, 1) * 100 // demo_limit.used_percent
    if demo_limit.used_percent < 100:
        digits = max(len(str(amount)) - _ROUND_TO, 0)
        amount = round(amount, -digits) or 1
    set_limit(limit.account, limit.api_key, demo_limit.metric, demo_limit.per, max(amount, 1), limit.soft_percent)


def accounts_of_the_demo(account_names: Iterable[str]) -> set[str]:
    """Those among these accounts that have calls of the demo."""
    calls = Usage.objects.filter(account__name__in=list(account_names), process_id=PROCESS).order_by()
    return set(calls.values_list("account__name", flat=True).distinct())
