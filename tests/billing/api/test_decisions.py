"""Decisions on lost and disputed calls over the management API."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from billing.enums import TokenScope
from llm.audit import verify
from llm.enums import Meter
from llm.models import ApiKey, Usage, UsageAdjustment
from llm.prices.staff import set_price
from llm.types import Service
from tests.billing.api.asking import Asker, customer, make_staff, staff_asker, token_of
from tests.billing.factories import make_account
from tests.llm.admin.factories import NOON, disputed_row, make_key, save, usage_row

pytestmark = pytest.mark.django_db

DECIDED = {"is_billable": True, "reason": "By their records."}
USED = {"prompt_tokens": 1000, "completion_tokens": 0}


@pytest.fixture
def staff() -> Asker:
    return staff_asker("view_usage", "change_usage")


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


@pytest.fixture
def call(key: ApiKey) -> Usage:
    """Disputed, served as `priority`: input is 2 USD a million where the standard is 1, searches 5 USD a thousand."""
    standard = {Meter.INPUT: Decimal(1), Meter.OUTPUT: Decimal(10)}
    set_price("openai", "gpt-test", rates=standard, per_thousand={"web_searches": Decimal(5)}, effective_from=NOON)
    rates = {Meter.INPUT: Decimal(2), Meter.OUTPUT: Decimal(20)}
    later = NOON.replace(second=1)
    price = set_price("openai", "gpt-test", rates=rates, service=Service("priority"), effective_from=later)
    rate_set = price.rate_sets.get(service_tier="priority")
    row = disputed_row(key, price=price, rate_set=rate_set, service_tier="priority", cost=Decimal("0.0006"))
    return save(row)[0]


def path_of(call: Usage) -> str:
    return f"calls/{call.pk}/decision/"


@pytest.mark.parametrize(
    ("used", "cost", "tier"),
    [
        (None, "0.0006", "priority"),
        (USED, "0.002", "priority"),
        ({**USED, "service_tier": ""}, "0.002", "priority"),
        ({**USED, "service_tier": "standard"}, "0.001", "standard"),
        ({**USED, "web_searches": 2}, "0.012", "priority"),
    ],
)
def test_staff_decide_on_a_call(staff: Asker, call: Usage, used: dict[str, Any] | None, cost: str, tier: str) -> None:
    response = staff.post(path_of(call), {**DECIDED, "used": used})

    assert response.status_code == 201, response.content
    shown = response.json()
    assert response["Location"].endswith(f"/api/v1/calls/{call.pk}/")
    assert (shown["cost"], shown["service_tier"], shown["is_billable"], shown["is_undecided"]) == (
        cost,
        tier,
        True,
        False,
    )
    assert shown["extra_meters"] == ({"web_searches": 2} if used and "web_searches" in used else {})
    adjustment = UsageAdjustment.objects.get()
    assert (adjustment.source, adjustment.reason) == ("decision", "By their records.")
    assert (adjustment.decided_by and adjustment.decided_by.username) == "finance"
    assert verify().sentences == []
    assert staff.post(path_of(call), DECIDED).json() == {"detail": "The usage of this call is already known."}
    assert UsageAdjustment.objects.count() == 1


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({}, "is_billable"),
        ({**DECIDED, "reason": " "}, "reason"),
        ({**DECIDED, "used": {"prompt_tokens": 5}}, "completion_tokens"),
        ({**DECIDED, "used": {**USED, "cache_read_tokens": 1001}}, "The parts exceed their total"),
        ({**DECIDED, "used": {**USED, "web_searches": -1}}, "web_searches"),
        ({**DECIDED, "used": {**USED, "inference_geo": "us"}}, "doesn't cover what it used"),
        ({**DECIDED, "used": {**USED, "service_tier": "x" * 51}}, "service_tier"),
        ({**DECIDED, "used": []}, "used"),
    ],
)
def test_a_wrong_decision_decides_nothing(staff: Asker, call: Usage, asked: dict[str, Any], complaint: str) -> None:
    response = staff.post(path_of(call), asked)

    assert response.status_code == 400, response.content
    assert complaint in response.json()["detail"]
    assert not UsageAdjustment.objects.exists()


def test_only_calls_in_doubt_are_decided(staff: Asker, key: ApiKey) -> None:
    (settled,) = save(usage_row(key))

    assert staff.post(path_of(settled), DECIDED).json() == {"detail": "The usage of this call is already known."}
    assert staff.post(f"calls/{uuid4()}/decision/", DECIDED).status_code == 404
    assert not UsageAdjustment.objects.exists()


def test_deciding_takes_its_permission_and_scope(call: Usage) -> None:
    account_key, as_customer = customer(make_account("another"))
    reader = staff_asker("view_usage", name="reader")
    narrow = Asker(token_of(make_staff("view_usage", "change_usage", name="narrow"), TokenScope.READ))

    for asker, words in (
        (reader, "llm.change_usage"),
        (narrow, "the scope “decide”"),
        (as_customer, "API keys have read-only access here"),
    ):
        refused = asker.post(path_of(call), DECIDED)
        assert (refused.status_code, words in refused.json()["detail"]) == (403, True)
    assert account_key.account_id != call.account_id
    assert not UsageAdjustment.objects.exists()
