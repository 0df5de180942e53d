"""Where staff find what was refused, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llm.admin.format import NOTHING
from llm.admin.usage import refused_admin
from llm.models import ApiKey, Limit, RefusedRequests
from tests.llm.admin.factories import make_account, make_key, make_limit, staff_with
from tests.pages import text_of

pytestmark = pytest.mark.django_db

PAGE = "/admin/llm/refusedrequests/"
NOON = datetime(2026, 11, 20, 12, 34, tzinfo=UTC)
DAY = {"first": "2026-11-20", "last": "2026-11-20"}


def refuse(key: ApiKey | None, *, code: str = "rate_limit_exceeded", requests: int = 1, **values: Any) -> None:
    account_id, key_id = (0, 0) if key is None else (key.account_id, key.pk)
    defaults = {"minute": NOON, "last_at": NOON, "last_message": "Limit reached.", "last_request_id": "req_1"}
    RefusedRequests.objects.create(
        account_id=account_id, api_key_id=key_id, code=code, requests=requests, **{**defaults, **values}
    )


def shown(client: Client, **query: str) -> list[tuple[str, str, str, int]]:
    """Key, model, code and requests of each row."""
    rows = client.get(PAGE, {**DAY, **query}).context["rows"]
    return [(row.key.name if row.key else "", row.model, row.code, row.group.requests) for row in rows]


def test_refusals_are_added_up_by_caller_model_and_reason(admin_client: Client) -> None:
    key = make_key(make_account())
    refuse(key, model="gpt-4o", requests=3)
    refuse(key, model="gpt-4o", requests=4, minute=NOON - timedelta(minutes=1), last_message="Earlier.")
    refuse(key, model="*", code="model_not_found", requests=2)
    refuse(None, code="invalid_api_key", requests=100)
    refuse(key, minute=NOON - timedelta(days=1))
    page = admin_client.get(PAGE, DAY)
    assert shown(admin_client) == [
        ("", NOTHING, "invalid_api_key", 100),
        ("production", "gpt-4o", "rate_limit_exceeded", 7),
        ("production", "other models", "model_not_found", 2),
    ]
    assert page.context["total"] == 109
    assert [(each.label, each.requests) for each in page.context["moments"]] == [("2026-11-20 12:00", 109)]
    assert "no known key" in text_of(page)


def test_filters_stack_and_lead_down_to_the_minute(admin_client: Client) -> None:
    key, other = make_key(make_account()), make_key(make_account("Contoso"), "other")
    refuse(key, model="gpt-4o")
    refuse(key, model="gpt-4o", minute=NOON + timedelta(minutes=1), requests=2)
    refuse(other, model="gpt-4o", requests=5)
    refuse(None, code="invalid_api_key")
    assert shown(admin_client, account="Acme", model="gpt-4o") == [("production", "gpt-4o", "rate_limit_exceeded", 3)]
    assert shown(admin_client, key="other") == [("other", "gpt-4o", "rate_limit_exceeded", 5)]
    assert shown(admin_client, key_known="none") == [("", NOTHING, "invalid_api_key", 1)]
    assert shown(admin_client, code="none-of-these") == []
    page = admin_client.get(PAGE, {**DAY, "account": "Acme"})
    [row] = page.context["rows"]
    assert [each.group.requests for each in admin_client.get(row.url).context["rows"]] == [3]
    [hour] = page.context["moments"]
    minutes = admin_client.get(hour.url).context["moments"]
    assert [(each.label, each.requests) for each in minutes] == [("2026-11-20 12:34", 1), ("2026-11-20 12:35", 2)]


@pytest.mark.parametrize(
    "query",
    [
        {"account": "nobody"},
        {"limit": "x"},
        {"limit": str(2**63)},
        {"hour": "77"},
        {"first": "2026-01-01", "last": "2026-12-01"},
        {"first": "0001-01-01"},
        {"last": "9999-12-31"},
        {"first": "2999-12-31"},
        {"code": "x" * 60},
    ],
)
def test_a_wrong_question_is_answered_with_a_page(admin_client: Client, query: dict[str, str]) -> None:
    refuse(make_key(make_account()))
    assert admin_client.get(PAGE, query).status_code == 200


def test_too_many_counts_are_not_added_up(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_admin, "MAX_ROWS", 1)
    key = make_key(make_account())
    refuse(key)
    refuse(key, minute=NOON - timedelta(minutes=1))
    assert "more than 1 counts to add up" in text_of(admin_client.get(PAGE, DAY))


def test_the_page_asks_as_little_for_many_rows_as_for_few(admin_client: Client) -> None:
    key = make_key(make_account())
    refuse(key)
    admin_client.get(PAGE, DAY)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(PAGE, DAY)
    limit = make_limit(key.account)
    for number in range(30):
        each = make_key(key.account, f"key {number}")
        refuse(each, model=f"model-{number}", limit_id=limit.pk, minute=NOON - timedelta(minutes=number))
    with CaptureQueriesContext(connection) as many:
        admin_client.get(PAGE, DAY)
    assert len(many) == len(few) <= 14


def test_an_empty_period_explains_itself(admin_client: Client) -> None:
    assert "No requests were refused in this period." in text_of(admin_client.get(PAGE))
    key = make_key(make_account())
    refuse(key)
    found = text_of(admin_client.get(PAGE, {"account": "Acme", "first": "2026-11-01", "last": "2026-11-02"}))
    assert "No requests were refused that match these filters in this period." in found


def test_a_keys_page_and_its_limits_page_say_what_was_refused(admin_client: Client) -> None:
    key = make_key(make_account())
    limit: Limit = make_limit(key.account)
    now = timezone.now()
    refuse(key, model="gpt-4o", limit_id=limit.pk, requests=7, minute=now, last_message="The limit is used up.")
    refuse(key, code="invalid_request", requests=2, minute=now, last_message="No model.")
    of_key = admin_client.get(f"/admin/llm/apikey/{key.pk}/change/")
    assert [(group.last.code, group.requests) for group in of_key.context["refusals"].groups] == [
        ("rate_limit_exceeded", 7),
        ("invalid_request", 2),
    ]
    of_limit = admin_client.get(f"/admin/llm/limit/{limit.pk}/change/")
    assert [group.requests for group in of_limit.context["refusals"].groups] == [7]
    assert "The limit is used up." in text_of(of_limit)
    for page, total in ((of_key, 9), (of_limit, 7)):
        assert admin_client.get(page.context["refusals"].more_url).context["total"] == total


def test_whoever_may_not_see_calls_sees_no_refusals() -> None:
    key = make_key(make_account())
    refuse(key, minute=timezone.now())
    client = staff_with("view_apikey")
    assert client.get(PAGE).status_code == 403
    assert "Refused requests" not in text_of(client.get(f"/admin/llm/apikey/{key.pk}/change/"))


def test_whoever_may_see_calls_sees_refusals_without_a_right_of_their_own() -> None:
    assert staff_with("view_usage").get(PAGE).status_code == 200
