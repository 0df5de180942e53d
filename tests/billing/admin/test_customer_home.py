"""What an account's and a key's page begin with."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing.admin.customer_home import account_home, key_home
from billing.enums import InvoiceState
from billing.models import Plan
from billing.plans import add_version
from billing.rollup import refresh
from llm.admin.limits.forecast import forecast
from llm.admin.limits.standing import LimitStanding
from llm.keys import rotate_key
from llm.models import Account, ApiKey, Limit, ModelRoute
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_invoice, make_profile
from tests.billing.people import make_person
from tests.llm.admin.factories import make_account, make_key, make_limit, messages_of, save, staff_with, usage_row
from tests.pages import form_on, send

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
COST = Decimal("2.00")
"""Of a million input tokens."""


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOON)


def make_customer() -> Account:
    """Two calls in November, one in October, each of a million tokens; 10 % on top, and a fee of 5."""
    account = make_account("Acme")
    plan = Plan.objects.create(name="Ten percent")
    add_version(plan, effective_from=date(2026, 1, 1), markup_percent=Decimal(10), flat_fee=Decimal(5))
    make_profile(account, plan=plan, email="pay@acme.example")
    price = make_price()
    for day in (date(2026, 11, 2), date(2026, 11, 20), date(2026, 10, 3)):
        make_call(account, day=day, price=price, prompt_tokens=1_000_000, recorded_at=NOON - timedelta(hours=1))
    refresh()
    return account


def test_an_account_begins_with_what_it_costs_and_pays(admin_client: Client) -> None:
    account = make_customer()
    make_key(account, "unused")
    make_invoice(account.billing_profile, state=InvoiceState.ISSUED)

    response = admin_client.get(f"/admin/llm/account/{account.pk}/change/")

    found = account_home(account, response.wsgi_request.user)
    assert found is not None
    assert (found.home.month.calls, found.home.month.cost) == (2, 2 * COST)
    assert (found.home.former.calls, found.home.former.cost) == (1, COST)
    assert len(found.home.points) == 90
    assert [(part.name, part.figures.calls, part.month_cost) for part in found.home.parts] == [
        ("production", 3, 2 * COST),
        ("unused", 0, Decimal(0)),
    ]
    assert found.charge is not None
    assert (found.charge.amount, found.charge.fixed) == (Decimal("9.40"), Decimal(5))
    assert (found.charge.margin, found.charge.margin_percent) == (Decimal("5.40"), Decimal("57.4"))
    page = response.content.decode()
    for text in ("9.40", "$5.40", "57.4 %", "Ten percent", "pay@acme.example", "INV-2026-000017", "unused"):
        assert text in page


@pytest.mark.parametrize(
    ("permissions", "shown", "hidden"),
    [
        (("view_account", "view_usage"), ("Our cost", "$4.00"), ("Charge so far", "Margin", "Ten percent")),
        (("view_account", "view_invoice"), ("Charge so far", "Ten percent"), ("Our cost", "Margin", "$4.00")),
        (("view_account",), (), ("Our cost", "Charge so far", "gw-home")),
    ],
)
def test_purchase_prices_are_for_those_who_may_see_them(
    permissions: tuple[str, ...], shown: tuple[str, ...], hidden: tuple[str, ...]
) -> None:
    account = make_customer()

    page = staff_with(*permissions).get(f"/admin/llm/account/{account.pk}/change/").content.decode()

    assert [text for text in shown if text not in page] == []
    assert [text for text in hidden if text in page] == []


def test_a_key_begins_with_its_models_and_errors(admin_client: Client) -> None:
    account = make_customer()
    key = account.keys.get()
    # Not summed up yet: recorded since the rollups' cutoff, which is by the database's clock.
    seen = {"opened_at": NOON - timedelta(days=1), "recorded_at": datetime.now(UTC)}
    save(*(usage_row(key, outcome=outcome, **seen) for outcome in ("ok", "timeout", "upstream_failed", "ok")))
    make_limit(account, api_key=key, used=900, created_at=NOON - timedelta(days=80))

    response = admin_client.get(f"/admin/llm/apikey/{key.pk}/change/")

    found = key_home(key, response.wsgi_request.user)
    assert found is not None
    assert {part.name for part in found.home.parts} == {"gpt-4o", "gpt-test"}
    assert found.errors is not None
    assert (found.errors.number, found.errors.looked_at, found.errors.percent) == (2, 5, Decimal("40.0"))
    page = response.content.decode()
    for text in ("40.0 %", "1 upstream failed", "1 timed out", "90 %", "reached in about 2 days"):
        assert text in page


def test_pages_take_few_queries_however_many_keys_there_are(admin_client: Client) -> None:
    account = make_customer()

    def queries(url: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(url).status_code == 200
        return len(captured)

    account_url = f"/admin/llm/account/{account.pk}/change/"
    key_url = f"/admin/llm/apikey/{account.keys.get().pk}/change/"
    few = queries(account_url)
    for number in range(30):
        make_limit(account, api_key=make_key(account, f"key {number}"))
    assert queries(account_url) <= few + 3
    assert few <= 45
    assert queries(key_url) <= 40


def test_an_account_without_anything_has_a_page(admin_client: Client) -> None:
    account = make_account()
    page = admin_client.get(f"/admin/llm/account/{account.pk}/change/").content.decode()
    assert "It has no billing profile yet." in page
    assert make_person("other", "view_plan") is not None


@pytest.mark.parametrize(
    ("per", "used", "expected"),
    [
        ("month", 1000, "used up"),
        ("month", 900, "reached in about 2 days"),
        ("month", 300, "not reached before it resets"),
        ("month", 0, ""),
        ("day", 990, "reached within the hour"),
        ("minute", 900, ""),
        ("total", 900, "reached in about 8 days"),
        ("total", 10, "not reached within a year"),
    ],
)
def test_when_a_limit_will_be_reached(per: str, used: int, expected: str) -> None:
    """November began 19.5 days ago; a lifetime limit counts since it was set, 80 days ago."""
    limit = Limit(account=Account(time_zone="UTC"), per=per, metric="tokens", amount=1000)
    limit.created_at = NOON - timedelta(days=80)
    ends = {"month": datetime(2026, 12, 1, tzinfo=UTC), "day": datetime(2026, 11, 21, tzinfo=UTC)}
    standing = LimitStanding(limit, used=used, held=0, resets_at=ends.get(per))
    assert forecast(standing, NOON) == expected


def test_owner_and_note_stay_with_the_successor() -> None:
    key = make_key(make_account())
    ApiKey.objects.filter(pk=key.pk).update(owner="Team Search", note="Nightly index")
    successor, _ = rotate_key(key)
    assert (successor.owner, successor.note) == ("Team Search", "Nightly index")


def test_unknown_models_are_kept_with_a_warning(admin_client: Client) -> None:
    key = make_key(make_account())
    ModelRoute.objects.create(name="fast")
    ModelRoute.objects.create(name="claude-*")
    url = f"/admin/llm/apikey/{key.pk}/change/"
    names = "fast\nclaude-next\ngpt-*\ngtp-4"

    response = send(admin_client, url, {**form_on(admin_client, url), "allowed_models": names})

    key.refresh_from_db()
    assert key.allowed_models == names.split()
    unknown = [text for text in messages_of(response) if "“" in text and "changed successfully" not in text]
    assert [text.split(":")[0] for text in unknown] == ["“gpt-*”", "“gtp-4”"]
    assert 'value="fast"' in admin_client.get(url).content.decode()
