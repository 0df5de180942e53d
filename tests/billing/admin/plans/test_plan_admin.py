"""Plans and versions in the admin: edited until they are billed, copied afterwards."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from billing.enums import InvoiceState
from billing.models import Plan, PlanRate, PlanVersion
from billing.periods import BillingPeriod
from billing.plans import add_version, default_plan
from llm.models import Account
from tests.billing.factories import make_account, make_invoice, make_profile
from tests.llm.admin.factories import staff_with
from tests.pages import seen_on, send, text_of

pytestmark = pytest.mark.django_db

PLANS, VERSIONS = "/admin/billing/plan/", "/admin/billing/planversion/"
Rate = tuple[str, str, int, str]
INPUT, OUTPUT = ("gpt-*", "input", 0, "3"), ("gpt-*", "output", 0, "12.5")


def form(plan: Plan, *rates: Rate, **values: Any) -> dict[str, Any]:
    """rates: (pattern, meter, from tokens, price)."""
    amounts = ("minimum_commitment", "allowance_tokens", "allowance_amount", "discount_percent")
    data = {
        "plan": plan.pk,
        "effective_from": "2030-02-01",
        "currency": "USD",
        "markup_percent": "10",
        "flat_fee": "5",
        **dict.fromkeys(amounts, "0"),
        "rates-TOTAL_FORMS": str(len(rates)),
        "rates-INITIAL_FORMS": "0",
        **values,
    }
    for number, (pattern, meter, start, price) in enumerate(rates):
        row = {
            "position": 0,
            "model_pattern": pattern,
            "meter": meter,
            "tier_mode": "graduated",
            "from_tokens": start,
            "price_per_million": price,
        }
        data |= {f"rates-{number}-{name}": str(value) for name, value in row.items()}
    return data


def make_version(plan: Plan | None = None, **values: Any) -> PlanVersion:
    plan = plan or Plan.objects.create(name="Team")
    rates = [
        PlanRate(model_pattern=pattern, meter=meter, from_tokens=start, price_per_million=Decimal(price))
        for pattern, meter, start, price in (INPUT, OUTPUT)
    ]
    return add_version(plan, **{"effective_from": date(2026, 1, 1), "rates": rates, "note": "agreed", **values})


def page_of(version: PlanVersion) -> str:
    return f"{VERSIONS}{version.pk}/change/"


def fields_of(content: str) -> dict[str, str]:
    """Inputs and chosen options of a page's form, as a browser would post them."""
    fields = dict(re.findall(r'<input type="(?:text|date|number|hidden)" name="([^"]+)"(?: value="([^"]*)")?', content))
    for name, options in re.findall(r'<select name="([^"]+)".*?>(.*?)</select>', content, re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)" selected', options)
        fields[name] = chosen[1] if chosen else ""
    return fields


def test_a_version_is_made_with_its_prices(admin_client: Client, admin_user: User) -> None:
    plan = Plan.objects.create(name="Team")
    assert admin_client.post(f"{VERSIONS}add/", form(plan, INPUT, OUTPUT)).status_code == 302
    version = PlanVersion.objects.get()
    assert (version.plan, version.effective_from, version.flat_fee) == (plan, date(2030, 2, 1), Decimal(5))
    assert version.created_by == admin_user
    assert sorted(version.rates.values_list("meter", "price_per_million")) == [
        ("input", Decimal(3)),
        ("output", Decimal("12.5")),
    ]


@pytest.mark.parametrize(
    ("rates", "values", "complaint"),
    [
        ((INPUT,), {}, "needs a price for"),
        ((INPUT, ("gpt-*", "output", 5, "1")), {}, "the first tier starts at 0 tokens"),
        ((INPUT, OUTPUT, OUTPUT), {}, "Please correct the duplicate data"),
        ((), {"effective_from": "2030-02-02"}, "A version starts on the first of a month"),
        ((), {"currency": "EUR"}, "Accounts with this plan are billed in a currency other than EUR."),
        ((), {"discount_percent": "101"}, "less than or equal to 100"),
    ],
)
def test_a_wrong_version_is_refused(
    admin_client: Client, rates: tuple[Rate, ...], values: dict[str, str], complaint: str
) -> None:
    plan = default_plan()
    make_profile(plan=plan)
    response = admin_client.post(f"{VERSIONS}add/", form(plan, *rates, **values))
    assert response.status_code == 200
    assert complaint in response.content.decode()
    assert plan.versions.count() == 1
    assert not PlanRate.objects.exists()


def test_a_version_can_be_edited_while_only_a_draft_has_it(admin_client: Client) -> None:
    version = make_version()
    make_invoice(make_profile(plan=version.plan), state=InvoiceState.DRAFT)
    data = form(version.plan, effective_from="2026-01-01", markup_percent="20")
    data |= seen_on(admin_client, page_of(version))
    assert admin_client.post(page_of(version), data).status_code == 302
    version.refresh_from_db()
    assert version.markup_percent == Decimal(20)


def test_a_billed_version_is_only_looked_at(admin_client: Client) -> None:
    version = make_version()
    make_invoice(make_profile(plan=version.plan), state=InvoiceState.IN_REVIEW)
    page = admin_client.get(page_of(version)).content.decode()
    assert "This version is used by invoices" in page
    assert f"{VERSIONS}add/?copy={version.pk}" in page
    assert 'name="markup_percent"' not in page
    assert 'name="rates-0-price_per_million"' not in page
    answer = admin_client.post(page_of(version), form(version.plan, effective_from="2027-05-01", markup_percent="20"))
    assert "“Team from 2026-01” is used by invoices and can't be changed: add a version" in text_of(answer)
    assert 'name="markup_percent" value="20"' in text_of(answer)
    version.refresh_from_db()
    assert version.markup_percent == Decimal(0)


def test_a_new_version_starts_as_a_copy_from_the_next_month_on(admin_client: Client) -> None:
    version = make_version(markup_percent=Decimal("7.5"))
    make_invoice(make_profile(plan=version.plan), state=InvoiceState.PAID)
    page = f"{VERSIONS}add/?copy={version.pk}"
    fields = fields_of(admin_client.get(page).content.decode())
    assert version.plan.versions.count() == 1
    assert admin_client.post(page, fields).status_code == 302
    copy = version.plan.versions.exclude(pk=version.pk).get()
    assert copy.effective_from == BillingPeriod.of(timezone.now().date()).following.start
    assert (copy.plan, copy.markup_percent, copy.note) == (version.plan, Decimal("7.5"), "")
    names = ("model_pattern", "meter", "tier_mode", "from_tokens", "price_per_million")
    assert list(copy.rates.values_list(*names)) == list(version.rates.values_list(*names))


def test_a_copy_starts_after_the_latest_version(admin_client: Client) -> None:
    version = make_version(effective_from=date(2040, 5, 1))
    page = admin_client.get(f"{VERSIONS}add/?copy={version.pk}").content.decode()
    assert 'name="effective_from" value="2040-06-01"' in page


def test_a_plan_shows_its_versions_and_leads_to_a_new_one(admin_client: Client) -> None:
    version = make_version()
    make_invoice(make_profile(plan=version.plan), state=InvoiceState.PAID)
    add_version(version.plan, effective_from=date(2026, 12, 1))
    page = admin_client.get(f"{PLANS}{version.plan_id}/change/").content.decode()
    assert "billed" in page
    assert "can be edited" in page
    assert f"?copy={version.plan.versions.latest('effective_from').pk}" in page


def test_a_plan_is_archived_and_restored(admin_client: Client) -> None:
    plan = default_plan()
    action = f"{PLANS}{plan.pk}/action/"
    assert admin_client.get(f"{action}archive/").status_code == 200
    assert Plan.objects.get().archived_at is None
    send(admin_client, f"{action}archive/")
    assert Plan.objects.get().archived_at is not None
    send(admin_client, f"{action}restore/")
    assert Plan.objects.get().archived_at is None


def test_the_right_to_look_is_not_that_to_change() -> None:
    version = make_version()
    client = staff_with("view_plan", "view_planversion")
    assert client.get(PLANS).status_code == 200
    assert "3.000000" in client.get(page_of(version)).content.decode()
    assert client.post(page_of(version), form(version.plan)).status_code == 403
    assert client.get(f"{VERSIONS}add/?copy={version.pk}").status_code == 403
    assert PlanVersion.objects.count() == 1


@pytest.mark.parametrize("page", [PLANS, VERSIONS])
def test_lists_take_few_queries(admin_client: Client, django_assert_max_num_queries: Any, page: str) -> None:
    for number in range(20):
        add_version(Plan.objects.create(name=f"Plan {number}"), effective_from=date(2026, 1, 1))
    make_profile(make_account(), plan=Plan.objects.get(name="Plan 1"))
    assert Account.objects.count() == 1
    with django_assert_max_num_queries(8):
        assert "Plan 19" in admin_client.get(page).content.decode()
