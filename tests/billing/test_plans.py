"""Plans: which version is in force, what rating sees of it, and what may still be changed."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction

from billing.enums import InvoiceState, TierMode
from billing.models import BillingProfile, Plan, PlanRate, PlanVersion
from billing.periods import BillingPeriod
from billing.plans import (
    NoPlanVersion,
    PlanVersionUsed,
    add_version,
    build_terms,
    default_plan,
    ensure_unused,
    get_or_create_profile,
    is_used,
    problems_of_rates,
    version_in_force,
)
from billing.types import FixedPrice, PlanTerms, Tier
from llm.models import Account
from tests.billing.factories import make_account, make_invoice, make_profile

pytestmark = pytest.mark.django_db

OCTOBER = BillingPeriod.parse("2026-10")
_COPY_A_PRICE = """
INSERT INTO billing_planrate (version_id, position, model_pattern, meter, tier_mode, from_tokens, price_per_million)
SELECT {old}, 1, 'another-*', meter, tier_mode, from_tokens, price_per_million FROM billing_planrate
WHERE version_id = {other}
"""


def plan_from(*starts: date) -> Plan:
    plan = Plan.objects.create(name="Team")
    for start in starts:
        add_version(plan, effective_from=start)
    return plan


def price(
    pattern: str, meter: str, per_million: str = "1", *, start: int = 0, position: int = 0, **values: Any
) -> PlanRate:
    """Not saved."""
    return PlanRate(
        model_pattern=pattern,
        meter=meter,
        price_per_million=Decimal(per_million),
        from_tokens=start,
        position=position,
        **values,
    )


def refusal_of(plan: Plan, **values: Any) -> list[str]:
    before = list(PlanVersion.objects.order_by("pk").values())
    with pytest.raises(ValidationError) as refusal:
        add_version(plan, **{"effective_from": date(2026, 11, 1), **values})
    assert list(PlanVersion.objects.order_by("pk").values()) == before
    assert not PlanRate.objects.exists()
    return refusal.value.messages


# --- Which version ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("month", "start"),
    [("2026-06", date(2026, 6, 1)), ("2026-09", date(2026, 6, 1)), ("2026-10", date(2026, 10, 1))],
)
def test_the_latest_version_that_started_by_then_is_in_force(month: str, start: date) -> None:
    plan = plan_from(date(2026, 10, 1), date(2026, 6, 1), date(2026, 12, 1))
    assert version_in_force(plan, BillingPeriod.parse(month)).effective_from == start


def test_before_the_first_version_there_is_none() -> None:
    plan = plan_from(date(2026, 11, 1))
    with pytest.raises(NoPlanVersion, match="“Team” has no version in force in 2026-10: add one"):
        version_in_force(plan, OCTOBER)


def test_another_plans_version_does_not_count() -> None:
    default_plan()
    with pytest.raises(NoPlanVersion):
        version_in_force(plan_from(), OCTOBER)


# --- What rating sees -------------------------------------------------------------------------------------------------


def test_terms_say_what_the_version_does_with_prices_by_position_and_tiers_by_tokens() -> None:
    version = add_version(
        Plan.objects.create(name="Team"),
        effective_from=date(2026, 10, 1),
        currency="EUR",
        markup_percent=Decimal("12.5"),
        flat_fee=Decimal("49.9"),
        minimum_commitment=Decimal(500),
        allowance_tokens=5_000_000,
        allowance_amount=Decimal("7.25"),
        discount_percent=Decimal(10),
        rates=[
            price("*", "output", "9", position=2),
            price("*", "input", "3", position=2),
            price("gpt-*", "input", "1.5", start=1000, position=1, tier_mode=TierMode.VOLUME),
            price("gpt-*", "output", "8", position=1),
            price("gpt-*", "input", "2", position=1, tier_mode=TierMode.VOLUME),
        ],
    )
    assert build_terms(PlanVersion.objects.get(pk=version.pk)) == PlanTerms(
        version_id=version.pk,
        effective_from=date(2026, 10, 1),
        currency="EUR",
        markup_percent=Decimal("12.5"),
        flat_fee=Decimal("49.9"),
        minimum_commitment=Decimal(500),
        allowance_tokens=5_000_000,
        allowance_amount=Decimal("7.25"),
        discount_percent=Decimal(10),
        fixed_prices=(
            FixedPrice("gpt-*", "input", TierMode.VOLUME, (Tier(0, Decimal(2)), Tier(1000, Decimal("1.5")))),
            FixedPrice("gpt-*", "output", TierMode.GRADUATED, (Tier(0, Decimal(8)),)),
            FixedPrice("*", "input", TierMode.GRADUATED, (Tier(0, Decimal(3)),)),
            FixedPrice("*", "output", TierMode.GRADUATED, (Tier(0, Decimal(9)),)),
        ),
    )


def test_names_at_one_position_are_ordered_by_their_characters_on_any_database() -> None:
    names = ("b", "B", "a", "_", "é")
    rates = [price(name, meter) for name in names for meter in ("input", "output")]
    version = add_version(Plan.objects.create(name="Team"), effective_from=date(2026, 10, 1), rates=rates)
    patterns = [each.pattern for each in build_terms(version).fixed_prices]
    assert list(dict.fromkeys(patterns)) == ["B", "_", "a", "b", "é"]


# --- Defaults ---------------------------------------------------------------------------------------------------------


def test_the_default_plan_passes_the_cost_on_in_usd_from_2000_and_is_made_once() -> None:
    plan = default_plan()
    assert default_plan() == plan
    version = PlanVersion.objects.get()
    assert build_terms(version) == PlanTerms(version.pk, date(2000, 1, 1), "USD")
    assert plan.name == "At cost"


def test_a_profile_is_made_from_the_account() -> None:
    account = make_account("Müller & Co", time_zone="Asia/Kathmandu")
    profile = get_or_create_profile(account)
    assert (profile.legal_name, profile.time_zone, profile.currency) == ("Müller & Co", "Asia/Kathmandu", "USD")
    assert profile.plan == default_plan()
    assert get_or_create_profile(account) == profile


def test_a_profile_that_is_there_stays_as_it_is(django_assert_num_queries: Any) -> None:
    plan = plan_from(date(2026, 10, 1))
    account = make_profile(make_account(), legal_name="Acme Corporation", plan=plan).account
    with django_assert_num_queries(1):
        profile = get_or_create_profile(account)
    assert (profile.legal_name, profile.plan_id) == ("Acme Corporation", plan.pk)


@pytest.mark.django_db(transaction=True)
def test_many_at_once_make_one_plan_and_one_profile() -> None:
    account = Account.objects.create(name="Acme")
    barrier = threading.Barrier(4)
    made: list[BillingProfile] = []

    def make() -> None:
        try:
            barrier.wait(timeout=10)
            made.append(get_or_create_profile(account))
        finally:
            connection.close()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert [profile.pk for profile in made] == [BillingProfile.objects.get().pk] * 4
    assert (Plan.objects.count(), PlanVersion.objects.count()) == (1, 1)


# --- What may be changed ----------------------------------------------------------------------------------------------


def test_a_version_without_invoices_is_unused() -> None:
    version = version_in_force(default_plan(), OCTOBER)
    assert not is_used(version)
    ensure_unused(version)


@pytest.mark.parametrize("state", [InvoiceState.IN_REVIEW, InvoiceState.APPROVED, InvoiceState.PAID])
def test_a_version_that_an_invoice_stands_on_is_used(state: InvoiceState) -> None:
    version = make_invoice(state=state).plan_version
    assert is_used(version)
    with pytest.raises(PlanVersionUsed, match="“At cost from 2000-01” is used by invoices"):
        ensure_unused(version)


@pytest.mark.parametrize("state", [InvoiceState.DRAFT, InvoiceState.VOID])
def test_a_draft_and_a_void_invoice_use_nothing(state: InvoiceState) -> None:
    assert not is_used(make_invoice(state=state).plan_version)


def test_a_line_of_late_usage_uses_the_version_of_its_own_month() -> None:
    old = plan_from(date(2026, 1, 1)).versions.get()
    invoice = make_invoice(state=InvoiceState.IN_REVIEW, lines=({"amount": "1.00", "plan_version": old},))
    assert invoice.plan_version != old
    assert is_used(old)


@pytest.mark.parametrize("state", InvoiceState)
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_planversion SET markup_percent = 7 WHERE id = {old}",
        "UPDATE billing_planrate SET price_per_million = 0 WHERE version_id = {old}",
        "UPDATE billing_planrate SET version_id = {old} WHERE version_id = {other}",
        "UPDATE billing_planrate SET version_id = {other} WHERE version_id = {old}",
        "DELETE FROM billing_planrate WHERE version_id = {old}",
        _COPY_A_PRICE,
    ],
)
def test_the_database_keeps_a_version_that_only_lines_stand_on(state: InvoiceState, sql: str) -> None:
    """As late usage does, and what was credited and billed again under another plan; a draft and a void one don't."""
    old, other = (
        add_version(
            Plan.objects.create(name=name),
            effective_from=date(2026, 1, 1),
            rates=[price(f"{name}-*", "input", "5"), price(f"{name}-*", "output", "5")],
        )
        for name in ("gpt", "o")
    )
    assert make_invoice(state=state, lines=({"amount": "1.00", "plan_version": old},)).plan_version != old
    before = list(PlanRate.objects.order_by("id").values()), list(PlanVersion.objects.order_by("id").values())

    refused = state not in (InvoiceState.DRAFT, InvoiceState.VOID)
    expected = pytest.raises(IntegrityError, match="invoices stand on this version") if refused else nullcontext()
    with expected, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql.format(old=old.pk, other=other.pk))

    after = list(PlanRate.objects.order_by("id").values()), list(PlanVersion.objects.order_by("id").values())
    assert (after == before) is refused


def test_the_database_deletes_no_version_that_only_lines_stand_on() -> None:
    old = plan_from(date(2026, 1, 1)).versions.get()
    make_invoice(state=InvoiceState.IN_REVIEW, lines=({"amount": "1.00", "plan_version": old},))
    with pytest.raises(IntegrityError, match="invoices stand on this version"), transaction.atomic():
        connection.cursor().execute("DELETE FROM billing_planversion WHERE id = %s", [old.pk])
    assert PlanVersion.objects.filter(pk=old.pk).exists()


# --- New versions -----------------------------------------------------------------------------------------------------


def test_a_version_starts_with_a_month_and_once() -> None:
    plan = plan_from(date(2026, 11, 1))
    assert refusal_of(plan, effective_from=date(2026, 12, 2)) == [
        "A version starts on the first of a month.",
    ]
    assert len(refusal_of(plan, effective_from=date(2026, 11, 1))) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("markup_percent", Decimal("-100.0001")),
        ("markup_percent", Decimal("0.00001")),
        ("flat_fee", Decimal(-1)),
        ("discount_percent", Decimal("100.0001")),
        ("allowance_tokens", -1),
        ("currency", "XXX"),
    ],
)
def test_figures_that_make_no_sense_are_refused(field: str, value: object) -> None:
    assert len(refusal_of(plan_from(), **{field: value})) == 1


def test_a_month_that_was_billed_gets_no_new_version() -> None:
    plan = plan_from(date(2026, 1, 1))
    make_invoice(make_profile(plan=plan), state=InvoiceState.ISSUED)
    assert refusal_of(plan, effective_from=date(2026, 10, 1)) == [
        "2026-10 was already billed under this plan: start the version in a later month.",
    ]
    add_version(plan, effective_from=date(2026, 11, 1))
    assert plan.versions.count() == 2


def test_a_month_that_was_billed_by_late_lines_alone_gets_no_new_version() -> None:
    plan = plan_from(date(2026, 1, 1))
    other = add_version(Plan.objects.create(name="Other"), effective_from=date(2026, 1, 1))
    late = {"amount": "1.00", "period_start": date(2026, 9, 1), "plan_version": version_in_force(plan, OCTOBER)}
    make_invoice(make_profile(plan=plan), state=InvoiceState.ISSUED, plan_version=other, lines=(late,))
    assert refusal_of(plan, effective_from=date(2026, 9, 1)) == [
        "2026-09 was already billed under this plan: start the version in a later month.",
    ]
    add_version(plan, effective_from=date(2026, 10, 1))


def test_a_month_with_mere_drafts_gets_a_new_version() -> None:
    plan = plan_from(date(2026, 1, 1))
    make_invoice(make_profile(plan=plan))
    assert version_in_force(plan, OCTOBER) != add_version(plan, effective_from=date(2026, 10, 1))


def test_accounts_in_another_currency_keep_a_version_away() -> None:
    plan = plan_from(date(2026, 1, 1))
    make_profile(plan=plan)
    assert refusal_of(plan, currency="EUR") == ["Accounts with this plan are billed in a currency other than EUR."]


def test_a_rate_that_does_not_hold_leaves_nothing_behind() -> None:
    rates = [price("*", "input"), price("*", "output", "-1")]
    plan = plan_from()
    assert len(refusal_of(plan, rates=rates)) == 1
    assert refusal_of(plan, rates=[price("*", "input")]) == ["“*” needs a price for output tokens as well."]


# --- Fixed prices as a whole ------------------------------------------------------------------------------------------


def test_prices_that_hold_have_no_problems() -> None:
    rates = [
        price("gpt-*", "input"),
        price("gpt-*", "input", start=1000),
        price("gpt-*", "output"),
        price("*", "input", position=1),
        price("*", "output", position=1, tier_mode=TierMode.VOLUME),
    ]
    assert problems_of_rates(rates) == []
    assert problems_of_rates([]) == []


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ([price("*", "cache_read", start=5)], "“*”, cached input tokens: the first tier starts at 0 tokens, not at 5."),
        ([price("*", "input")], "“*”, input tokens: two tiers start at the same number of tokens."),
        (
            [price("*", "output", start=9, tier_mode=TierMode.VOLUME)],
            "“*”, output tokens: its tiers are either all graduated or all volume.",
        ),
        ([price("o3", "input", position=1)], "“o3” needs a price for output tokens as well."),
        ([price("o3", "output", position=1)], "“o3” needs a price for input tokens as well."),
        (
            [price("o3", "input"), price("o3", "output")],
            "“*” and “o3” have the same position: say which comes first.",
        ),
    ],
)
def test_what_is_wrong_with_prices_is_named(extra: list[PlanRate], problem: str) -> None:
    assert problems_of_rates([price("*", "input"), price("*", "output"), *extra]) == [problem]


def test_names_without_a_star_may_share_a_position() -> None:
    names = ("gpt-4o", "o3")
    assert problems_of_rates([price(name, meter) for name in names for meter in ("input", "output")]) == []
