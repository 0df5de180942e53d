"""Unknown members are rejected: the default of the member that was meant may select everything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from billing.models import ExportJob, Invoice
from llm.models import UsageAdjustment
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.months import IN_SEPTEMBER, SEPTEMBER, close_and_issue
from tests.llm.admin.factories import disputed_row, make_key, save

pytestmark = pytest.mark.django_db

LINE = {"position": 1, "amount": "1.50"}
GOODWILL = {"kind": "goodwill", "reason": "an outage"}
DECIDED = {"is_billable": True, "reason": "by their records"}
USED = {"prompt_tokens": 0, "completion_tokens": 0}


@pytest.fixture
def paths() -> dict[str, str]:
    account = make_account()
    make_profile(account)
    make_call(account, day=IN_SEPTEMBER, price=make_price(input="100"), prompt_tokens=1_000_000)
    [invoice] = close_and_issue(account, SEPTEMBER)
    [call] = save(disputed_row(make_key(account)))
    return {
        "credit": f"/api/v1/invoices/{invoice.pk}/credit-notes/",
        "decide": f"/api/v1/calls/{call.pk}/decision/",
        "export": "/api/v1/exports/",
    }


def post(path: str, body: str) -> Any:
    client = APIClient()
    client.force_login(User.objects.create_superuser("root"))
    return client.post(path, body, content_type="application/json")


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("credit", {**GOODWILL, "line": [LINE]}, "line"),
        ("credit", {**GOODWILL, "lines": [{**LINE, "amout": "1.50"}]}, "amout"),
        ("decide", {**DECIDED, "Used": USED}, "Used"),
        ("decide", {**DECIDED, "used": {**USED, "cached": 1}}, "cached"),
        ("export", {"period": "2025-09", "acount": 1}, "acount"),
    ],
)
def test_an_unknown_member_is_refused_by_its_name(
    paths: dict[str, str], path: str, body: dict[str, Any], place: str
) -> None:
    response = post(paths[path], json.dumps(body))
    assert response.status_code == 400
    assert f"{place}: Unknown member. Allowed: " in response.json()["detail"]
    assert not Invoice.objects.filter(kind="credit_note").exists()
    assert not UsageAdjustment.objects.exists()
    assert not ExportJob.objects.exists()


def test_a_member_that_appears_twice_is_refused(paths: dict[str, str]) -> None:
    body = '{"is_billable": true, "reason": "r", "is_billable": false}'
    response = post(paths["decide"], body)
    assert response.status_code == 400
    assert response.json() == {"detail": "JSON parse error - the member “is_billable” appears more than once."}
    assert not UsageAdjustment.objects.exists()
