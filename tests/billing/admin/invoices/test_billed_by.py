"""A call's page names the invoice that bills it."""

from __future__ import annotations

import pytest
from django.test import Client

from billing.periods import BillingPeriod
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_profile
from tests.billing.months import close_and_issue
from tests.llm.admin.factories import staff_with
from tests.pages import text_of

pytestmark = pytest.mark.django_db


def test_a_call_names_its_invoice_and_the_lines_of_its_model(admin_client: Client) -> None:
    account, price = make_profile().account, make_price()
    call = make_call(account, price=price, prompt_tokens=1_000_000)
    page = f"/admin/llm/usage/{call.pk}/change/"
    assert "On no invoice yet." in text_of(admin_client.get(page))
    [invoice] = close_and_issue(account, BillingPeriod.of(call.local_day))
    billed = text_of(admin_client.get(page))
    assert f"/admin/billing/invoice/{invoice.pk}/change/" in billed
    assert invoice.lines.exclude(model="")[0].description in billed
    late = make_call(account, price=price, prompt_tokens=1)
    assert "On no invoice yet." in text_of(admin_client.get(f"/admin/llm/usage/{late.pk}/change/"))
    assert "<h2>Billed</h2>" not in text_of(staff_with("view_usage").get(page))
