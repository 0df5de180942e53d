"""Rates of exchange are added by staff, with their source, and never changed."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from billing.models import ExchangeRate
from tests.billing.factories import make_exchange_rate
from tests.llm.admin.factories import staff_with

pytestmark = pytest.mark.django_db

LIST = "/admin/billing/exchangerate/"
FORM = {"currency": "EUR", "on": "2026-10-30", "per_usd": "0.92", "source": "ECB reference rate"}


def test_a_rate_is_added_with_who_did(admin_client: Client, admin_user: User) -> None:
    assert admin_client.post(f"{LIST}add/", FORM).status_code == 302
    rate = ExchangeRate.objects.get()
    assert (rate.currency, rate.on, rate.per_usd, rate.source, rate.created_by) == (
        "EUR",
        date(2026, 10, 30),
        Decimal("0.92"),
        "ECB reference rate",
        admin_user,
    )


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"currency": "USD"}, "USD is not one of the available choices"),
        ({"currency": "XXX"}, "XXX is not one of the available choices"),
        ({"per_usd": "0"}, "greater than or equal to 0.000001"),
        ({"per_usd": "0.1234567"}, "no more than 6 decimal places"),
        ({"source": " "}, "This field is required."),
    ],
)
def test_what_is_no_rate_is_refused(admin_client: Client, wrong: dict[str, str], complaint: str) -> None:
    response = admin_client.post(f"{LIST}add/", {**FORM, **wrong})
    assert complaint in response.content.decode()
    assert not ExchangeRate.objects.exists()


def test_a_rate_is_never_changed(admin_client: Client) -> None:
    rate = make_exchange_rate("EUR", "0.92")
    page = f"{LIST}{rate.pk}/change/"
    assert admin_client.get(page).status_code == 200
    assert admin_client.post(page, {**FORM, "per_usd": "2"}).status_code == 403
    rate.refresh_from_db()
    assert rate.per_usd == Decimal("0.92")


def test_the_right_to_look_is_not_that_to_add() -> None:
    client = staff_with("view_exchangerate")
    assert client.get(LIST).status_code == 200
    assert client.post(f"{LIST}add/", FORM).status_code == 403
    assert not ExchangeRate.objects.exists()


def test_the_list_takes_few_queries(admin_client: Client, admin_user: User, django_assert_max_num_queries: Any) -> None:
    first = date(2026, 1, 1)
    ExchangeRate.objects.bulk_create(
        ExchangeRate(
            currency="EUR", on=first + timedelta(days=day), per_usd=Decimal(1), source="ECB", created_by=admin_user
        )
        for day in range(50)
    )
    with django_assert_max_num_queries(8):
        assert admin_client.get(LIST).status_code == 200
