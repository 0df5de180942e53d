"""Billing profiles in the admin: made for an account, changed without surprise to the month that runs."""

from __future__ import annotations

import html
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from billing.admin import profiles
from billing.models import BillingProfile, Plan
from billing.periods import BillingPeriod
from billing.plans import add_version, default_plan
from billing.timezones import set_time_zone
from llm.models import Account
from tests.billing.factories import make_account, make_profile
from tests.llm.admin.factories import staff_with
from tests.pages import send

pytestmark = pytest.mark.django_db

LIST = "/admin/billing/billingprofile/"


def form(**values: Any) -> dict[str, Any]:
    defaults = {
        "legal_name": "Acme Ltd",
        "address": "1 Street\nLisbon",
        "tax_percent": "23",
        "currency": "USD",
        "payment_days": "14",
        "plan": default_plan().pk,
        "time_zone": "UTC",
    }
    return {**defaults, **values}


def page_of(profile: BillingProfile) -> str:
    return f"{LIST}{profile.pk}/change/"


def next_month() -> date:
    return BillingPeriod.of(timezone.now().date()).following.start


def test_a_profile_is_made_for_an_account(admin_client: Client) -> None:
    account = make_account(time_zone="UTC")
    assert admin_client.post(f"{LIST}add/", form(account=account.pk)).status_code == 302
    profile = BillingProfile.objects.get()
    assert (profile.account, profile.legal_name, profile.tax_percent) == (account, "Acme Ltd", Decimal(23))
    assert (profile.time_zone, profile.time_zone_from) == ("UTC", None)


def test_the_account_of_a_profile_stays(admin_client: Client) -> None:
    profile = make_profile()
    other = make_account("Other")
    assert send(admin_client, page_of(profile), form(account=other.pk, payment_days="7")).status_code == 302
    profile.refresh_from_db()
    assert (profile.account.name, profile.payment_days) == ("Acme", 7)


@pytest.mark.slow
@pytest.mark.parametrize("is_new", [True, False])
def test_another_zone_holds_from_the_next_month_on(admin_client: Client, is_new: bool) -> None:
    account = make_account(time_zone="UTC")
    page = f"{LIST}add/" if is_new else page_of(make_profile(account))
    send(admin_client, page, form(account=account.pk, time_zone="Asia/Tokyo"))
    profile = BillingProfile.objects.select_related("account").get()
    assert (profile.time_zone, profile.time_zone_from) == ("Asia/Tokyo", next_month())
    assert profile.account.time_zone == "UTC"
    until = f"are counted in UTC until {next_month()}"
    assert until in admin_client.get(page_of(profile)).content.decode()


def test_another_change_leaves_the_zone_that_is_to_come(admin_client: Client) -> None:
    profile = make_profile(make_account(time_zone="UTC"), time_zone="Asia/Tokyo", time_zone_from=date(2020, 2, 1))
    send(admin_client, page_of(profile), form(time_zone="Asia/Tokyo", legal_name="Acme Inc"))
    profile.refresh_from_db()
    assert (profile.legal_name, profile.time_zone_from) == ("Acme Inc", date(2020, 2, 1))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"currency": "EUR"}, "has prices in another currency."),
        ({"time_zone": "Mars/Base"}, "Mars/Base"),
        ({"billed_from": "2026-10-02"}, "give the first day of a month."),
        ({"tax_percent": "101"}, "less than or equal to 100"),
    ],
)
def test_a_wrong_profile_is_refused(admin_client: Client, wrong: dict[str, str], complaint: str) -> None:
    response = admin_client.post(f"{LIST}add/", form(account=make_account().pk, **wrong))
    assert response.status_code == 200
    assert complaint in response.content.decode()
    assert not BillingProfile.objects.exists()


def test_an_archived_plan_is_kept_but_not_offered(admin_client: Client) -> None:
    plan = Plan.objects.create(name="Old plan", archived_at=timezone.now())
    add_version(plan, effective_from=date(2026, 1, 1))
    assert "Old plan" not in admin_client.get(f"{LIST}add/").content.decode()
    profile = make_profile(plan=plan)
    assert send(admin_client, page_of(profile), form(plan=plan.pk)).status_code == 302


def test_the_right_to_look_is_not_that_to_change() -> None:
    profile = make_profile()
    client = staff_with("view_billingprofile")
    assert client.get(LIST).status_code == 200
    assert client.post(page_of(profile), form()).status_code == 403
    assert client.get(f"{LIST}add/").status_code == 403
    profile.refresh_from_db()
    assert profile.legal_name == "Acme"


@pytest.mark.slow
def test_the_list_takes_few_queries(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    plan = default_plan()
    accounts = Account.objects.bulk_create(Account(name=f"Account {number}") for number in range(1000))
    BillingProfile.objects.bulk_create(
        BillingProfile(account=account, legal_name=account.name, plan=plan) for account in accounts
    )
    with django_assert_max_num_queries(8):
        assert "1000 billing profiles" in admin_client.get(LIST).content.decode()


def account_page(account: Account) -> str:
    return f"/admin/llm/account/{account.pk}/change/"


def account_form(**values: Any) -> dict[str, Any]:
    inlines = {"keys-TOTAL_FORMS": "0", "keys-INITIAL_FORMS": "0"}
    return {"name": "Acme", "time_zone": "UTC", "alert_email": "", "webhook_url": "", **inlines, **values}


def test_the_zone_of_an_account_with_a_profile_is_not_changed_at_once(admin_client: Client) -> None:
    account = make_account(time_zone="UTC")
    profile = make_profile(account)
    page = admin_client.get(account_page(account)).content.decode()
    assert (
        f'Change it in the <a href="{page_of(profile)}">billing profile</a>; a new one takes effect next month' in page
    )
    assert 'name="time_zone"' not in page
    changed = account_form(name="Acme Inc", time_zone="Asia/Tokyo")
    assert send(admin_client, account_page(account), changed).status_code == 302
    account.refresh_from_db()
    assert (account.name, account.time_zone) == ("Acme Inc", "UTC")


def test_an_account_without_a_profile_keeps_its_zone_itself(admin_client: Client) -> None:
    account = make_account(time_zone="UTC")
    page = admin_client.get(account_page(account)).content.decode()
    assert 'name="time_zone"' in page
    assert "A change applies to later calls." in page
    assert send(admin_client, account_page(account), account_form(time_zone="Asia/Tokyo")).status_code == 302
    account.refresh_from_db()
    assert account.time_zone == "Asia/Tokyo"


def test_an_account_says_which_zone_is_to_come() -> None:
    account = make_account(time_zone="UTC")
    set_time_zone(make_profile(account).pk, "Asia/Tokyo")
    page = staff_with("change_account").get(account_page(account)).content.decode()
    assert "Change it in the billing profile; a new one takes effect next month. It changes to Asia/Tokyo" in page
    assert f"on {next_month()}." in page
    assert "/admin/billing/billingprofile/" not in page


# --- What is chosen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("country", ["XX", "de", "Germany", "EU"])
def test_a_country_that_does_not_exist_is_refused(admin_client: Client, country: str) -> None:
    response = admin_client.post(f"{LIST}add/", form(account=make_account().pk, country=country))
    assert "is not one of the available choices" in response.content.decode()
    assert not BillingProfile.objects.exists()


def test_a_country_and_a_currency_are_chosen(admin_client: Client) -> None:
    page = admin_client.get(f"{LIST}add/").content.decode()
    assert '<option value="DE">Germany (DE)</option>' in page
    assert '<option value="EUR">EUR</option>' in page
    admin_client.post(f"{LIST}add/", form(account=make_account().pk, country="DE"))
    assert BillingProfile.objects.get().country == "DE"


def test_a_country_of_before_there_was_a_choice_is_neither_kept_nor_dropped_unnoticed(admin_client: Client) -> None:
    profile = make_profile(country="XX")
    assert "XX (not a country: choose another)" in admin_client.get(page_of(profile)).content.decode()
    response = send(admin_client, page_of(profile), form(country="XX", legal_name="Acme Inc"))
    assert "is not a country code of ISO 3166-1" in response.content.decode()
    profile.refresh_from_db()
    assert (profile.country, profile.legal_name) == ("XX", "Acme")


@pytest.mark.slow
@pytest.mark.parametrize("currency", ["XXX", "usd", ""])
def test_a_currency_that_can_not_be_billed_in_is_refused(admin_client: Client, currency: str) -> None:
    admin_client.post(f"{LIST}add/", form(account=make_account().pk, currency=currency))
    assert not BillingProfile.objects.exists()


def test_another_plan_is_in_force_from_this_month_on_unless_asked_otherwise(admin_client: Client) -> None:
    profile = make_profile()
    for name, asked in (("Plus", None), ("Max", "2026-03-01")):
        plan = Plan.objects.create(name=name)
        add_version(plan, effective_from=date(2026, 1, 1))
        send(admin_client, page_of(profile), form(plan=plan.pk, **({"plan_from": asked} if asked else {})))
        profile.refresh_from_db()
        expected = date.fromisoformat(asked) if asked else BillingPeriod.of(timezone.now().date()).start
        assert (profile.plan, profile.plan_from) == (plan, expected)


@pytest.mark.parametrize("edited", ["plan", "currency"])
def test_a_plan_and_a_currency_changed_by_two_people_still_agree(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    """Each form was right when it was checked; the other one was saved meanwhile."""
    empty, euros = Plan.objects.create(name="No prices yet"), Plan.objects.create(name="Euros")
    add_version(euros, effective_from=date(2026, 1, 1), currency="EUR")
    profile = make_profile(plan=empty, currency="EUR")
    checked = profiles._check_again

    def change_meanwhile(stored: BillingProfile, obj: BillingProfile, changed: set[str]) -> None:
        BillingProfile.objects.update(**({"currency": "USD"} if edited == "plan" else {"plan": euros}))
        stored.refresh_from_db()
        checked(stored, obj, changed)

    monkeypatch.setattr(profiles, "_check_again", change_meanwhile)
    change = form(plan=euros.pk, currency="EUR") if edited == "plan" else form(plan=empty.pk, currency="GBP")
    reply = send(admin_client, page_of(profile), change)
    assert reply.status_code == 200
    assert "Someone else has just changed this. The plan “Euros” has prices in another currency." in (
        html.unescape(reply.content.decode())
    )
    profile.refresh_from_db()
    assert (profile.plan, profile.currency) == (empty, "EUR")
