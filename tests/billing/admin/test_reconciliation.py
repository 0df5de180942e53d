"""Imported reports are looked at, and set against the books on a page."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from billing.models import CostImport
from billing.reconcile import import_report
from tests.billing.factories import make_account
from tests.llm.admin.factories import make_key, save, staff_with, usage_row

pytestmark = pytest.mark.django_db

LIST = "/admin/billing/costimport/"
PAGE = f"{LIST}reconciliation/"
QUERY = {"provider": "openai", "first": "2026-11-01", "last": "2026-11-01"}
REPORTS = Path(__file__).parents[1] / "reports"


@pytest.fixture
def _imported() -> None:
    content = (REPORTS / "openai_completions.json").read_bytes()
    import_report("openai", content, file_name="completions.json")


@pytest.mark.usefixtures("_imported")
def test_the_page_says_ours_theirs_difference_and_why(admin_client: Client) -> None:
    key = make_key(make_account())
    save(usage_row(key, opened_at=datetime(2026, 11, 1, 12, tzinfo=UTC), upstream_model="gpt-ours", cost=Decimal(3)))
    page = admin_client.get(PAGE, QUERY).content.decode()
    assert "gpt-ours" in page
    assert "The imported reports don&#x27;t contain these calls" in page
    assert "The books have no such call" in page
    assert "$3.00" in page


def test_days_without_anything_say_so(admin_client: Client) -> None:
    page = admin_client.get(PAGE, QUERY).content.decode()
    assert "Neither the books nor any imported report contain anything for these days." in page


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"last": "2026-10-31"}, "This is before the start date."),
        ({"last": "2027-02-01"}, "At most 92 days here"),
        ({"provider": "nobody"}, "Select a valid choice."),
        ({"first": ""}, "This field is required."),
    ],
)
def test_a_wrong_question_is_not_answered(admin_client: Client, wrong: dict[str, str], complaint: str) -> None:
    page = admin_client.get(PAGE, {**QUERY, **wrong}).content.decode()
    assert complaint in page
    assert "<table" not in page.partition('id="content"')[2]


@pytest.mark.usefixtures("_imported")
def test_imports_are_only_looked_at(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    imported = CostImport.objects.get()
    with django_assert_max_num_queries(8):
        page = admin_client.get(LIST).content.decode()
    assert "completions.json" in page
    assert PAGE in page
    assert imported.digest in admin_client.get(f"{LIST}{imported.pk}/change/").content.decode()
    assert admin_client.post(f"{LIST}{imported.pk}/change/", {"provider": "x"}).status_code == 403
    assert admin_client.get(f"{LIST}add/").status_code == 403


def test_others_see_neither() -> None:
    client = staff_with("view_invoice")
    assert client.get(LIST).status_code == 403
    assert client.get(PAGE, QUERY).status_code == 403
