"""Calls one by one over the management API, and the pages that they come in."""

from __future__ import annotations

import base64
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llm.enums import AdjustmentSource, UsageSource, UsageStatus
from llm.models import ApiKey, Usage, UsageAdjustment
from tests.billing.api.asking import Asker, customer, staff_asker
from tests.billing.factories import make_account
from tests.llm.admin.factories import NOON, disputed_row, lost_row, make_key, open_row, save, usage_row

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff() -> Asker:
    return staff_asker("view_usage")


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


def adjust(row: Usage, **values: Any) -> None:
    defaults = {"source": AdjustmentSource.DECISION, "is_billable": False, "reason": "asked the provider"}
    adjustment = UsageAdjustment(usage=row, recorded_at=NOON, **{**defaults, **values})
    adjustment.stamp_digest().save()


def ids(rows: list[Any]) -> list[str]:
    return [row["id"] for row in rows]


def test_a_call_is_shown_with_what_was_corrected_later(staff: Asker, key: ApiKey) -> None:
    (row,) = save(usage_row(key, cost=Decimal("0.000000000001"), reported_model="gpt-test-1"))
    adjust(row, prompt_tokens=-40, cost=Decimal("0.000000000002"))

    for shown in (staff.results("calls/")[0], staff.get(f"calls/{row.id}/").json()):
        assert (shown["id"], shown["account"], shown["key"], shown["key_name"]) == (
            str(row.id),
            key.account_id,
            key.pk,
            "production",
        )
        assert (shown["prompt_tokens"], shown["completion_tokens"], shown["cost"]) == (60, 20, "0.000000000003")
        assert (shown["is_billable"], shown["reported_model"]) == (False, "gpt-test-1")
        assert (shown["opened_at"], shown["local_day"]) == ("2026-11-20T12:00:00Z", "2026-11-20")
    (adjustment,) = staff.get(f"calls/{row.id}/").json()["adjustments"]
    assert (adjustment["source"], adjustment["prompt_tokens"], adjustment["cost"], adjustment["reason"]) == (
        "decision",
        -40,
        "0.000000000002",
        "asked the provider",
    )


def test_a_call_without_a_price_has_no_cost(staff: Asker, key: ApiKey) -> None:
    save(usage_row(key, cost=None), open_row(key))

    assert [row["cost"] for row in staff.results("calls/")] == [None, None]


def test_calls_that_somebody_must_decide_on_say_so(staff: Asker, key: ApiKey) -> None:
    settled, lost, disputed, decided = save(usage_row(key), lost_row(key), disputed_row(key), disputed_row(key))
    adjust(decided, is_billable=True)

    shown = {
        row["id"]: (row["is_disputed"], row["is_undecided"], row["is_billable"]) for row in staff.results("calls/")
    }

    assert shown == {
        str(settled.id): (False, False, True),
        str(lost.id): (False, True, False),
        str(disputed.id): (True, True, False),
        str(decided.id): (True, False, True),
    }


def test_a_customer_sees_its_own_calls_without_our_side_of_them() -> None:
    key, asker = customer(make_account())
    own, foreign = save(usage_row(key), usage_row(make_key(make_account("Other"))))
    adjust(own)

    assert ids(asker.results("calls/")) == [str(own.id)]
    shown = asker.get(f"calls/{own.id}/").json()
    assert not {"cost", "upstream_model", "reported_model", "rate_set", "error_code"} & set(shown)
    assert not {"cost", "reason"} & set(shown["adjustments"][0])
    assert asker.refusal(f"calls/{foreign.id}/", status=404) == asker.refusal(f"calls/{uuid4()}/", status=404)


def test_staff_see_which_instance_was_called_and_find_its_calls(staff: Asker) -> None:
    key, asker = customer(make_account())
    plain, east, _ = save(
        usage_row(key),
        usage_row(key, provider_instance="east"),
        usage_row(key, provider="anthropic", provider_instance="west"),
    )
    assert sorted(row["provider_instance"] for row in staff.results("calls/")) == ["", "east", "west"]
    assert set(ids(staff.results("calls/", {"provider": "openai"}))) == {str(east.id), str(plain.id)}
    assert ids(staff.results("calls/", {"provider_instance": "east"})) == [str(east.id)]
    assert staff.results("calls/", {"provider_instance": "east", "provider": "anthropic"}) == []
    assert set(ids(asker.results("calls/", {"provider": "openai"}))) == {str(east.id), str(plain.id)}
    assert "provider_instance" not in asker.results("calls/")[0]
    assert "Only staff" in asker.refusal("calls/", {"provider_instance": "east"})


def test_filters_narrow(staff: Asker, key: ApiKey) -> None:
    other = make_key(make_account("Other"))
    request_id = uuid4()
    estimated, second, foreign, old = save(
        usage_row(key, status=UsageStatus.ESTIMATED, usage_source=UsageSource.ESTIMATED, request_id=request_id),
        usage_row(key, model="large"),
        usage_row(other),
        usage_row(other, opened_at=NOON - timedelta(days=40), local_day=date(2026, 10, 11)),
    )

    for query, expected in (
        ({"account": key.account_id}, {estimated, second}),
        ({"key": other.pk}, {foreign, old}),
        ({"model": "large"}, {second}),
        ({"status": "estimated"}, {estimated}),
        ({"request_id": str(request_id)}, {estimated}),
        ({"from": "2026-11-20"}, {estimated, second, foreign}),
        ({"to": "2026-10-11"}, {old}),
        ({"from": "2026-10-12", "to": "2026-11-19"}, set()),
    ):
        assert set(ids(staff.results("calls/", query))) == {str(row.id) for row in expected}, query


def test_days_are_the_accounts_own_up_to_their_last_minute(staff: Asker) -> None:
    """The 20th of November begins at 10:00 UTC on the 19th in Kiritimati."""
    key = make_key(make_account(time_zone="Pacific/Kiritimati"))
    (row,) = save(usage_row(key, opened_at=NOON.replace(day=19, hour=10), local_day=date(2026, 11, 20)))

    assert ids(staff.results("calls/", {"from": "2026-11-20", "to": "2026-11-20"})) == [str(row.id)]
    assert ids(staff.results("calls/", {"to": "2026-11-19"})) == []


def test_pages_hold_every_call_once(staff: Asker, key: ApiKey) -> None:
    rows = save(*(usage_row(key, opened_at=NOON + timedelta(seconds=second)) for second in range(7)))

    seen: list[str] = []
    page = staff.get("calls/", {"page_size": 3}).json()
    while True:
        seen += ids(page["results"])
        if page["next"] is None:
            break
        page = staff.get(page["next"].partition("/api/v1/")[2]).json()

    assert seen == [str(row.id) for row in reversed(rows)]
    assert ids(staff.get(page["previous"].partition("/api/v1/")[2]).json()["results"]) == seen[3:6]


def test_calls_in_flight_are_in_the_list_and_on_their_own(staff: Asker, key: ApiKey) -> None:
    moments = [NOON + timedelta(minutes=minute) for minute in range(6)]
    rows = save(*((open_row if at.minute % 2 else usage_row)(key, opened_at=at) for at in moments))
    newest_first = [str(row.pk) for row in reversed(rows)]

    assert ids(staff.results("calls/")) == newest_first
    assert ids(staff.results("calls/", {"status": "open"})) == newest_first[::2]
    assert ids(staff.results("calls/", {"status": "settled"})) == newest_first[1::2]
    first = staff.get("calls/", {"page_size": 4}).json()
    second = staff.get(first["next"].partition("/api/v1/")[2]).json()
    back = staff.get(second["previous"].partition("/api/v1/")[2]).json()
    assert [ids(page["results"]) for page in (first, second, back)] == [
        newest_first[:4],
        newest_first[4:],
        newest_first[:4],
    ]

    shown = staff.get(f"calls/{rows[1].pk}/").json()
    assert (shown["status"], shown["outcome"], shown["closed_at"], shown["cost"]) == ("open", "pending", None, None)
    assert (shown["prompt_tokens"], shown["adjustments"], shown["is_undecided"]) == (0, [], False)
    assert customer(make_account("Other"))[1].get(f"calls/{rows[1].pk}/").status_code == 404


def test_a_call_that_comes_in_between_moves_no_page(staff: Asker, key: ApiKey) -> None:
    rows = save(*(usage_row(key, opened_at=NOON + timedelta(seconds=second)) for second in range(4)))
    following = staff.get("calls/", {"page_size": 2}).json()["next"]

    save(usage_row(key, opened_at=NOON + timedelta(seconds=9)))

    assert ids(staff.get(following.partition("/api/v1/")[2]).json()["results"]) == [str(rows[1].id), str(rows[0].id)]


def test_a_page_takes_the_same_few_queries_whatever_its_size(staff: Asker, key: ApiKey) -> None:
    for row in save(*(usage_row(key) for _ in range(5))):
        adjust(row)

    def queries(size: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert len(staff.results("calls/", {"page_size": size})) == size
        return len(captured)

    assert queries(1) == queries(5)


def cursor(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "value",
    ["x", "é", cursor("p=1"), cursor("p=\0"), cursor("r=1&p=zzz"), cursor("o=x"), cursor("o=-1")],
)
def test_a_cursor_that_is_none_is_told(staff: Asker, value: str) -> None:
    assert staff.refusal("calls/", {"cursor": value}).startswith("cursor: Invalid cursor")


@pytest.mark.parametrize("size", ["0", "-1", "1001", "x", "9" * 5000, "१", ""])
def test_a_page_size_that_is_none_is_told(staff: Asker, size: str) -> None:
    assert staff.refusal("calls/", {"page_size": size}) == "page_size: Must be an integer from 1 to 1000."
