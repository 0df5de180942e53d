"""Plans and their dated versions: which is in force, how rating sees it, and what may still be changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from itertools import combinations
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max

from billing.enums import TierMode
from billing.errors import BillingError, NotBillableError
from billing.models import BillingProfile, FormerPlan, Invoice, InvoiceLine, Plan, PlanRate, PlanVersion
from billing.periods import BillingPeriod
from billing.types import FixedPrice, PlanTerms, Tier
from llm.enums import Meter
from llm.models import Account

if TYPE_CHECKING:
    from django.contrib.auth.models import User

DEFAULT_PLAN = "At cost"
_DEFAULT_FROM = date(2000, 1, 1)

_NEEDED_METERS = (Meter.INPUT, Meter.OUTPUT)
"""Every other meter falls back on one of these."""


class NoPlanVersion(NotBillableError):
    """No version of the plan was in force at the start of a period."""


class PlanVersionUsed(BillingError):
    """Invoices use the version, so it can't be changed any more."""


def build_terms(version: PlanVersion) -> PlanTerms:
    """The version as rating sees it: fixed prices by position, then by pattern; a price's tiers by tokens."""
    return PlanTerms(
        version_id=version.pk,
        effective_from=version.effective_from,
        currency=version.currency,
        markup_percent=version.markup_percent,
        flat_fee=version.flat_fee,
        minimum_commitment=version.minimum_commitment,
        allowance_tokens=version.allowance_tokens,
        allowance_amount=version.allowance_amount,
        discount_percent=version.discount_percent,
        fixed_prices=_fixed_prices(version.rates.all()),
    )


def version_in_force(plan: Plan, period: BillingPeriod) -> PlanVersion:
    """The latest version that started by the period's first day. Raises NoPlanVersion with a sentence."""
    version = plan.versions.filter(effective_from__lte=period.start).order_by("-effective_from").first()
    if version is None:
        raise NoPlanVersion(
            f"The plan “{plan}” has no version in force in {period}: add one that starts then or earlier."
        )
    return version


def default_plan() -> Plan:
    """The plan that passes cost on in USD, created if it doesn't exist. Safe against concurrent creation."""
    with transaction.atomic():
        plan, _ = Plan.objects.get_or_create(name=DEFAULT_PLAN)
        PlanVersion.objects.get_or_create(plan=plan, effective_from=_DEFAULT_FROM)
    return plan


def get_or_create_profile(account: Account) -> BillingProfile:
    """The account's profile, created if it doesn't exist."""
    make_profiles([account])
    return BillingProfile.objects.get(account=account)


def profile_to_bill_by(account_id: int) -> BillingProfile:
    """With its plans, without a lock: for reading only."""
    profiles = BillingProfile.objects.select_related("plan").prefetch_related("former_plans__plan")
    return profiles.get(account=account_id)


def make_profiles(accounts: Iterable[Account]) -> None:
    """Create a profile for each account without one, from the account's data and the default plan."""
    missing = [account for account in accounts if getattr(account, "billing_profile", None) is None]
    if not missing:
        return
    plan = default_plan()
    BillingProfile.objects.bulk_create(
        (
            BillingProfile(account_id=each.pk, legal_name=each.name, time_zone=each.time_zone, plan=plan)
            for each in missing
        ),
        ignore_conflicts=True,
    )


def is_used(version: PlanVersion) -> bool:
    """Whether a submitted invoice that isn't void uses it, for its own month or in a line of late usage.

    A draft doesn't count: it is recomputed with the terms in force then.
    """
    frozen = Invoice.objects.frozen()
    lines = InvoiceLine.objects.filter(invoice__in=frozen, plan_version=version)
    return frozen.filter(plan_version=version).exists() or lines.exists()


def lock_plan(plan_id: int) -> None:
    """Until the transaction ends, no other process submits an invoice of the plan, or changes or adds a version of it.

    no_key: a stronger lock would block transactions that only refer to the plan.
    """
    Plan.objects.select_for_update(no_key=True).get(pk=plan_id)


def lock_plans(profile: BillingProfile) -> None:
    """`lock_plan` for each plan by which a month of the account may be billed, by ascending id."""
    for plan_id in sorted({profile.plan_id, *(each.plan_id for each in profile.former_plans.all())}):
        lock_plan(plan_id)


def keep_former_plans(before: BillingProfile, after: BillingProfile) -> None:
    """Keep a profile's former plan for the months before its new plan applies.

    A plan that applies from a past month on, or from the first, takes over from there: the change is retroactive. Call
    it with the saved profile, in the same transaction and under its lock.
    """
    former = list(before.former_plans.order_by("until"))
    starts: list[date | None] = [None, *(each.until for each in former)]
    if before.plan_id != after.plan_id:
        present = {"plan_id": before.plan_id, "currency": before.currency, "since": before.plan_from}
        former.append(FormerPlan(**present, until=date.max))
    elif former and after.plan_from is not None:
        former[-1].until = after.plan_from
    until = after.plan_from
    kept = (
        []
        if until is None
        else [
            FormerPlan(
                profile=after,
                plan_id=each.plan_id,
                currency=each.currency,
                since=each.since,
                until=min(each.until, until),
            )
            for start, each in zip(starts, former, strict=False)
            if start is None or start < until
        ]
    )
    after.former_plans.all().delete()
    FormerPlan.objects.bulk_create(kept)


def ensure_unused(version: PlanVersion) -> None:
    """Call it before changing or deleting a version or its rates, in the same transaction, so that no submit
    intervenes.

    Raises PlanVersionUsed with a sentence.
    """
    lock_plan(version.plan_id)
    if why := why_unchangeable(version):
        raise PlanVersionUsed(why)


def why_unchangeable(version: PlanVersion) -> str:
    """A sentence; "" if no invoice uses the version. It names the version's stored month, whatever was typed."""
    if not is_used(version):
        return ""
    stored = PlanVersion.objects.select_related("plan").get(pk=version.pk)
    return f"“{stored}” is used by invoices and can't be changed: add a version from a later month."


@transaction.atomic
def add_version(
    plan: Plan,
    *,
    effective_from: date,
    currency: str = "USD",
    markup_percent: Decimal = Decimal(0),
    flat_fee: Decimal = Decimal(0),
    minimum_commitment: Decimal = Decimal(0),
    allowance_tokens: int = 0,
    allowance_amount: Decimal = Decimal(0),
    discount_percent: Decimal = Decimal(0),
    rates: Sequence[PlanRate] = (),
    note: str = "",
    user: User | None = None,
) -> PlanVersion:
    """Add a version with its fixed prices. rates: unsaved; their version is set here.

    Raises ValidationError with sentences if a figure or the rates are invalid, or the month is billed already.
    """
    version = PlanVersion(
        plan=plan,
        effective_from=effective_from,
        currency=currency,
        markup_percent=markup_percent,
        flat_fee=flat_fee,
        minimum_commitment=minimum_commitment,
        allowance_tokens=allowance_tokens,
        allowance_amount=allowance_amount,
        discount_percent=discount_percent,
        note=note,
        created_by=user,
    )
    version.full_clean()
    lock_plan(plan.pk)
    if problems := [*problems_of_version(version), *problems_of_rates(rates)]:
        raise ValidationError(problems)
    version.save(force_insert=True)
    for each in rates:
        each.version = version
        each.full_clean()
        each.save(force_insert=True)
    return version


def problems_of_version(version: PlanVersion) -> list[str]:
    """Sentences on why a version can't start then, or have that currency; empty if it can."""
    problems = []
    if (latest := _last_month_billed(version.plan)) is not None and latest.start >= version.effective_from:
        problems.append(f"{latest} was already billed under this plan: start the version in a later month.")
    former = version.plan.former_profiles.filter(until__gt=version.effective_from)
    if any(rows.exclude(currency=version.currency).exists() for rows in (version.plan.profiles, former)):
        problems.append(f"Accounts with this plan are billed in a currency other than {version.currency}.")
    return problems


def _last_month_billed(plan: Plan) -> BillingPeriod | None:
    """The last month billed by a submitted invoice that isn't void, as its own month or in lines of late usage."""
    frozen = Invoice.objects.frozen()
    starts = (
        rows.filter(plan_version__plan=plan).aggregate(last=Max("period_start"))["last"]
        for rows in (frozen, InvoiceLine.objects.filter(invoice__in=frozen))
    )
    last = max(filter(None, starts), default=None)
    return None if last is None else BillingPeriod(last)


def problems_of_rates(rates: Iterable[PlanRate]) -> list[str]:
    """Sentences on what is wrong with a version's fixed prices as a whole. They may be unsaved."""
    by_pattern: dict[str, list[PlanRate]] = defaultdict(list)
    for each in rates:
        by_pattern[each.model_pattern].append(each)
    problems = _ambiguous_positions(by_pattern)
    for pattern, group in by_pattern.items():
        by_meter: dict[str, list[PlanRate]] = defaultdict(list)
        for each in group:
            by_meter[each.meter].append(each)
        problems += [
            f"“{pattern}” needs a price for {meter.label} as well." for meter in _NEEDED_METERS if meter not in by_meter
        ]
        for meter_value, tiers in by_meter.items():
            problems += _problems_of_tiers(f"“{pattern}”, {Meter(meter_value).label}", tiers)
    return problems


def _problems_of_tiers(name: str, tiers: Sequence[PlanRate]) -> list[str]:
    starts = [tier.from_tokens for tier in tiers]
    problems = []
    if min(starts) != 0:
        problems.append(f"{name}: the first tier starts at 0 tokens, not at {min(starts):,}.")
    if len(set(starts)) < len(starts):
        problems.append(f"{name}: two tiers start at the same number of tokens.")
    if len({tier.tier_mode for tier in tiers}) > 1:
        problems.append(f"{name}: its tiers are either all graduated or all volume.")
    return problems


def _ambiguous_positions(by_pattern: dict[str, list[PlanRate]]) -> list[str]:
    """Patterns with `*` that share a position. Exact names match different models, so their order doesn't matter."""
    positions = {pattern: min(each.position for each in group) for pattern, group in by_pattern.items()}
    return [
        f"“{one}” and “{other}” have the same position: say which comes first."
        for one, other in combinations(positions, 2)
        if positions[one] == positions[other] and "*" in one + other
    ]


def _fixed_prices(rates: Iterable[PlanRate]) -> tuple[FixedPrice, ...]:
    """Sorted in Python: databases order names by their own collations."""
    tiers: dict[tuple[str, str], list[PlanRate]] = defaultdict(list)
    for each in sorted(rates, key=lambda rate: (rate.position, rate.model_pattern, rate.meter, rate.from_tokens)):
        tiers[each.model_pattern, each.meter].append(each)
    return tuple(
        FixedPrice(pattern, meter, TierMode(group[0].tier_mode), _tiers_of(group))
        for (pattern, meter), group in tiers.items()
    )


def _tiers_of(rates: Iterable[PlanRate]) -> tuple[Tier, ...]:
    ordered = sorted(rates, key=lambda rate: rate.from_tokens)
    return tuple(Tier(each.from_tokens, each.price_per_million) for each in ordered)
