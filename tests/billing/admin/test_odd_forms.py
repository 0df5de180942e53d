"""Forms with rows that somebody tampered with: what is posted is refused with a sentence, and never breaks the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal

import pytest
from django.test import Client

from billing.models import Invoice, Plan, PlanRate, PlanVersion
from billing.plans import add_version
from llm.models import ModelRoute, RouteTarget
from tests.billing.admin.plans.test_plan_admin import fields_of, make_version
from tests.billing.calls import make_call, make_key, make_price
from tests.billing.factories import make_account, make_invoice, make_profile
from tests.billing.months import IN_SEPTEMBER, SEPTEMBER, close_and_issue

pytestmark = [pytest.mark.slow, pytest.mark.wire, pytest.mark.django_db]

ODD = ("x", "-1", "9" * 30, "NaN", "\0")
COUNTS = ("x", "-1", "0", "3")
HUGE = "999999999"
# What breaks the first row of a form breaks the next ones.
_FURTHER_ROW = re.compile(r"-[1-9]\d*-")
PAIRS = (("0", "1"), ("1", "3"), ("3", "3"), ("1", "-1"))


def tampered(fields: dict[str, str], others_id: int) -> Iterator[dict[str, str]]:
    """The form with one field after the other replaced, left out, or given a row that isn't the object's."""
    for name in fields:
        if _FURTHER_ROW.search(name):
            continue
        is_count = name.endswith("_FORMS")
        odd = COUNTS if is_count else (*ODD, str(others_id))
        yield {key: value for key, value in fields.items() if key != name}
        yield from ({**fields, name: value} for value in odd)
    totals = [name for name in fields if name.endswith("-TOTAL_FORMS")]
    for total in totals:
        initial = total.replace("TOTAL", "INITIAL")
        yield from ({**fields, total: one, initial: other} for one, other in PAIRS)
    # Django makes two thousand rows of it, which takes a while.
    yield from ({**fields, total: "0", total.replace("TOTAL", "INITIAL"): HUGE} for total in totals[:1])


def check(client: Client, url: str, fields: dict[str, str], others_id: int) -> None:
    client.raise_request_exception = False
    bodies = [fields, *tampered(fields, others_id)]
    broken = []
    for body in bodies:
        changed = {name: value[:20] for name, value in body.items() if fields.get(name) != value}
        status = client.post(url, body).status_code
        if status not in (200, 302, 400, 403):
            broken.append((status, changed, sorted(set(fields) - set(body))))
    assert broken == []


def posted(client: Client, url: str, **values: str) -> dict[str, str]:
    fields = {name: value or "" for name, value in fields_of(client.get(url).content.decode()).items()}
    return {
        name: value for name, value in {**fields, **values}.items() if "__prefix__" not in name and "csrf" not in name
    }


def test_a_version_and_its_prices(admin_client: Client) -> None:
    version = make_version()
    other = make_version(Plan.objects.create(name="Other"))
    url = f"/admin/billing/planversion/{version.pk}/change/"
    fields = posted(admin_client, url)
    assert {"rates-TOTAL_FORMS", "rates-0-id", "rates-1-price_per_million"} <= set(fields)
    check(admin_client, url, fields, other.rates.earliest("id").pk)
    assert PlanRate.objects.filter(version=other).count() == 2
    assert not PlanRate.objects.filter(price_per_million__lt=0).exists()


def test_a_plan_with_its_versions(admin_client: Client) -> None:
    version = make_version()
    other = make_version(Plan.objects.create(name="Other"))
    url = f"/admin/billing/plan/{version.plan_id}/change/"
    check(admin_client, url, posted(admin_client, url), other.pk)
    assert PlanVersion.objects.filter(plan=other.plan).count() == 1


def test_an_account_with_its_keys(admin_client: Client) -> None:
    account, other = make_account(), make_account("Other")
    make_key(account)
    url = f"/admin/llm/account/{account.pk}/change/"
    check(admin_client, url, posted(admin_client, url), make_key(other).pk)
    assert (account.keys.count(), other.keys.count()) == (1, 1)


def test_a_route_with_its_targets(admin_client: Client) -> None:
    routes = [ModelRoute.objects.create(name=name) for name in ("one", "other")]
    targets = [RouteTarget.objects.create(route=each, provider="openai", upstream_model="gpt-4o") for each in routes]
    url = f"/admin/llm/modelroute/{routes[0].pk}/change/"
    check(admin_client, url, posted(admin_client, url), targets[1].pk)
    assert RouteTarget.objects.filter(route=routes[1]).count() == 1


@pytest.mark.parametrize("step", ["credit", "bill_again"])
def test_the_lines_of_an_invoice(admin_client: Client, step: str) -> None:
    account = make_account()
    make_profile(account)
    make_call(account, day=IN_SEPTEMBER, price=make_price(), prompt_tokens=1_000_000, completion_tokens=1_000_000)
    [invoice] = close_and_issue(account, SEPTEMBER)
    others = make_invoice(make_profile(make_account("Other")))
    lines = {f"line_{line.pk}": "1.00" for line in invoice.lines.all()}
    fields = {"scope": "lines", "reason": "a mistake", **lines}
    url = f"/admin/billing/invoice/{invoice.pk}/{step}/"
    admin_client.raise_request_exception = False
    other_line = others.lines.get().pk
    check(admin_client, url, fields, other_line)
    assert admin_client.post(url, {**fields, f"line_{other_line}": "1.00"}).status_code in (200, 302)
    assert all(note.original_id == invoice.pk for note in Invoice.objects.filter(kind="credit_note"))
    assert not Invoice.objects.filter(kind="credit_note", total__gte=Decimal(0)).exists()


def test_a_profile(admin_client: Client) -> None:
    profile = make_profile(plan=Plan.objects.create(name="A"))
    add_version(profile.plan, effective_from=date(2025, 1, 1))
    url = f"/admin/billing/billingprofile/{profile.pk}/change/"
    check(admin_client, url, posted(admin_client, url, legal_name="Acme"), profile.pk + 1000)
