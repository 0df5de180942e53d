"""Accounts and limits over the management API."""

from __future__ import annotations

import pytest

from llm.limits.changes import archive_limit
from llm.limits.periods import EVER
from llm.models import LimitWindow
from tests.billing.api.asking import customer, staff_asker
from tests.billing.factories import make_account
from tests.llm.admin.factories import make_limit

pytestmark = pytest.mark.django_db


def test_limits_in_force_are_shown_with_their_use() -> None:
    account = make_account()
    key, _ = customer(account)
    make_limit(account, used=400, held=50)
    make_limit(account, api_key=key, metric="cost", per="total", amount=12_500_000, used=1)
    archive_limit(make_limit(account, metric="requests", per="day"))

    cost, tokens = staff_asker("view_limit").results("limits/")

    assert (tokens["metric"], tokens["per"], tokens["key"]) == ("tokens", "month", None)
    assert (tokens["amount"], tokens["used"], tokens["held"]) == ("1000", "400", "50")
    assert tokens["resets_at"].endswith("Z")
    assert (cost["key"], cost["amount"], cost["used"], cost["held"]) == (key.pk, "12.50", "0.000001", "0.00")
    assert cost["resets_at"] is None


def test_a_limit_for_each_end_user_shows_the_most_that_one_has_used() -> None:
    account = make_account()
    limit = make_limit(account, metric="requests", per="total", amount=9, is_per_end_user=True)
    for end_user, used in (("a" * 32, 3), ("b" * 32, 7)):
        LimitWindow.objects.create(end_user_limit=limit, end_user=end_user, starts_at=EVER, used=used, held=1)
    [each] = staff_asker("view_limit").results("limits/")
    assert (each["per_end_user"], each["amount"], each["used"], each["held"]) == (True, "9", "7", "1")


def test_customers_see_their_limits_but_those_on_our_cost() -> None:
    account = make_account()
    _, asker = customer(account)
    make_limit(account)
    make_limit(account, metric="cost")
    make_limit(make_account("Other"))

    assert [limit["metric"] for limit in asker.results("limits/")] == ["tokens"]

    account.shows_cost = True
    account.save()
    assert [limit["metric"] for limit in asker.results("limits/")] == ["cost", "tokens"]


def test_accounts_come_the_latest_first() -> None:
    make_account("First", time_zone="Asia/Kathmandu")
    make_account("Second")

    second, first = staff_asker("view_account").results("accounts/")

    assert (second["name"], first["name"], first["status"], first["time_zone"]) == (
        "Second",
        "First",
        "active",
        "Asia/Kathmandu",
    )
