from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from llm.models import ReratingRun
from tests.llm.admin.factories import NOON, staff_with

pytestmark = pytest.mark.django_db

LIST = "/admin/llm/reratingrun/"


def make_run(user: User | None = None, **values: Any) -> ReratingRun:
    defaults: dict[str, Any] = {"cost_before": Decimal(2), "cost_after": Decimal("1.25"), "calls": 7, "ended_at": NOON}
    return ReratingRun.objects.create(
        provider="openai",
        model="gpt-4o",
        first_day=date(2026, 11, 1),
        last_day=date(2026, 11, 2),
        reason="a wrong price",
        started_at=NOON,
        started_by=user,
        **{**defaults, **values},
    )


def test_the_list_says_what_a_re_rating_changed(
    admin_client: Client, admin_user: User, django_assert_max_num_queries: Any
) -> None:
    for _ in range(20):
        make_run(admin_user)
    with django_assert_max_num_queries(8):
        page = admin_client.get(LIST).content.decode()
    assert page.count("-$0.75") == 20
    assert "not finished" not in page


def test_a_run_that_was_cut_off_says_so(admin_client: Client) -> None:
    run = make_run(ended_at=None)
    assert "not finished" in admin_client.get(f"{LIST}{run.pk}/change/").content.decode()


def test_re_ratings_are_only_looked_at(admin_client: Client) -> None:
    run = make_run()
    assert admin_client.post(f"{LIST}{run.pk}/change/", {"reason": "another"}).status_code == 403
    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert staff_with("view_usage").get(LIST).status_code == 403
    run.refresh_from_db()
    assert run.reason == "a wrong price"
