"""Calls and usage by end user and by tag over the management API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import connection

from billing.rollup import refresh
from llm.endusers import forget_name, hash_end_user
from llm.enums import AdjustmentSource, UsageStatus
from llm.models import Account, ApiKey, EndUser, EndUserKey, Usage, UsageAdjustment
from tests.billing.api.asking import Asker, customer, staff_asker
from tests.billing.factories import make_account
from tests.llm.admin.factories import NOON, lost_row, make_key, open_row, save, usage_row

NOVEMBER = {"from": "2026-11-01", "to": "2026-11-30"}
KEY = bytes(range(32))


@pytest.fixture
def staff(db: None) -> Asker:
    return staff_asker("view_usage", "view_dailyusage")


@pytest.fixture
def acme(db: None) -> Account:
    return known(make_account())


def known(account: Account, key: bytes = KEY) -> Account:
    EndUserKey.objects.create(account=account, key=key)
    return account


def named(account: Account, name: str) -> str:
    """Their hash; the name is known."""
    end_user = hash_end_user(name, bytes(EndUserKey.objects.get(account=account).key))
    EndUser.objects.get_or_create(account=account, end_user=end_user, defaults={"name": name})
    return end_user


def call_of(key: ApiKey, name: str = "", **values: Any) -> Usage:
    [row] = save(usage_row(key, end_user=named(key.account, name) if name else "", **values))
    return row


def ids(rows: list[Any]) -> list[str]:
    return [row["id"] for row in rows]


# --- Calls ------------------------------------------------------------------------------------------------------------


def test_calls_are_found_by_name_and_by_hash(staff: Asker, acme: Account) -> None:
    key, own = customer(acme)
    alice = call_of(key, "alice", tags={"team": "search"})
    call_of(key, "bob")
    call_of(key)
    for asker, query in (
        (own, {"end_user": "alice"}),
        (own, {"end_user": alice.end_user}),
        (staff, {"end_user": "alice", "account": acme.pk}),
        (staff, {"end_user": "alice", "key": key.pk}),
        (staff, {"end_user": alice.end_user.upper()}),
    ):
        [found] = asker.results("calls/", query)
        assert (found["id"], found["end_user"], found["end_user_name"], found["tags"]) == (
            str(alice.id),
            alice.end_user,
            "alice",
            {"team": "search"},
        )
    assert own.results("calls/", {"end_user": "carol"}) == []
    assert len(own.results("calls/")) == 3


def test_a_name_alone_is_not_enough_for_staff(staff: Asker, acme: Account) -> None:
    call_of(make_key(acme), "alice")
    assert staff.refusal("calls/", {"end_user": "alice"}) == (
        "end_user: A name needs an account too: account=ID. A hash, as calls show it, doesn't."
    )


def test_a_forgotten_name_is_still_found_and_not_shown(acme: Account) -> None:
    """Whoever knows the name finds the calls; nobody reads it here."""
    key, own = customer(acme)
    alice = call_of(key, "alice")
    assert forget_name(acme, "alice").names == 1
    [found] = own.results("calls/", {"end_user": "alice"})
    assert (found["end_user"], found["end_user_name"]) == (alice.end_user, None)


def test_nobody_finds_another_accounts_end_users(acme: Account) -> None:
    theirs = known(make_account("Other"), KEY[::-1])
    call = call_of(make_key(theirs), "alice", tags={"team": "search"})
    key, own = customer(acme)
    mine = call_of(key, "alice")
    assert mine.end_user != call.end_user
    assert ids(own.results("calls/", {"end_user": "alice"})) == [str(mine.id)]
    assert own.results("calls/", {"end_user": call.end_user}) == []
    assert own.results("calls/", {"tag": "team:search", **NOVEMBER}) == []
    assert own.refusal("calls/", {"end_user": "alice", "account": theirs.pk}) == "account: This id does not exist."


def test_the_same_hash_in_two_accounts_shows_each_its_own_name(staff: Asker, acme: Account) -> None:
    """It can't be, and if it were, no name would be shown to another account."""
    other = make_account("Other")
    row = call_of(make_key(acme), "alice")
    save(usage_row(make_key(other), end_user=row.end_user))
    EndUser.objects.create(account=other, end_user=row.end_user, name="mallory")
    shown = {each["account"]: each["end_user_name"] for each in staff.results("calls/", {"end_user": row.end_user})}
    assert shown == {acme.pk: "alice", other.pk: "mallory"}


@pytest.mark.parametrize(
    ("tag", "value"), [("team", "search"), ("1", "0"), ("a b", "x:y"), ("team", "ünïts %s"), ("$.a", "'"), ('"', '"')]
)
def test_calls_are_found_by_tag(staff: Asker, acme: Account, tag: str, value: str) -> None:
    key, own = customer(acme)
    tagged = call_of(key, tags={tag: value, "z": "other"})
    call_of(key, tags={tag: "another", "other": value})
    call_of(key)
    call_of(key, tags={tag: value}, opened_at=NOON - timedelta(days=60))
    query = {"tag": f"{tag}:{value}", **NOVEMBER}
    assert ids(own.results("calls/", query)) == [str(tagged.id)]
    assert ids(staff.results("calls/", {**query, "account": acme.pk})) == [str(tagged.id)]


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ({"tag": "team", **NOVEMBER}, "tag: Must be a key and a value such as team:search."),
        ({"tag": ":search", **NOVEMBER}, "tag: Must be a key and a value such as team:search."),
        ({"tag": "team:search"}, "tag: This needs a period of at most 31 days: from=DATE&to=DATE."),
        (
            {"tag": "team:search", "from": "2026-10-30", "to": "2026-11-30"},
            "tag: This needs a period of at most 31 days: from=DATE&to=DATE.",
        ),
    ],
)
def test_a_tag_is_looked_for_within_bounds(acme: Account, query: dict[str, str], refusal: str) -> None:
    _, own = customer(acme)
    assert own.refusal("calls/", query) == refusal


def test_a_tag_is_looked_for_in_one_account(staff: Asker, acme: Account) -> None:
    assert staff.refusal("calls/", {"tag": "team:search", **NOVEMBER}) == "tag: This needs an account too: account=ID."


def test_an_index_leads_to_the_calls_of_an_end_user(acme: Account) -> None:
    calls = Usage.objects.filter(account=acme).by_end_users({"0f" * 16}).order_by("-id")[:50]
    if connection.vendor == "sqlite":
        assert "usage_end_user" in calls.explain()
        return
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
    assert "usage_end_user" in calls.explain()


# --- Usage ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def november(transactional_db: None) -> Iterator[None]:
    with time_machine.travel(datetime(2026, 11, 25, 12, tzinfo=UTC), tick=False):
        yield


@pytest.fixture
def used(november: None) -> Account:
    """Alice: three calls, of which one was corrected and one is unpriced; bob: one; two name nobody."""
    account = known(make_account())
    key = make_key(account)
    call_of(key, "alice", tags={"team": "search"})
    corrected = call_of(key, "alice", tags={"team": "search", "1": "one"})
    call_of(key, "alice", cost=None, tags={"team": "sales"}, local_day=date(2026, 11, 5))
    call_of(key, "bob", model="other")
    call_of(make_key(account, "second"), tags={"team": "search"})
    save(
        lost_row(key),
        open_row(key, end_user=named(account, "bob")),
        usage_row(key, status=UsageStatus.VOID, cost=Decimal(0), prompt_tokens=0, completion_tokens=0),
    )
    adjustment = UsageAdjustment(
        usage=corrected,
        recorded_at=NOON,
        source=AdjustmentSource.DECISION,
        is_billable=True,
        reason="asked",
        prompt_tokens=-40,
        cost=Decimal("-0.000000000001"),
    )
    adjustment.stamp_digest().save()
    other = known(make_account("Other"), KEY[::-1])
    call_of(make_key(other), "alice", tags={"team": "search"})
    refresh()
    return account


def figures(summary: Any, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in summary["results"]]


def test_usage_is_summed_up_by_end_user(used: Account) -> None:
    staff = staff_asker("view_dailyusage")
    summary = staff.get("usage/", {"by": "end_user", "account": used.pk}).json()
    names = ("end_user_name", "calls", "estimated_calls", "unpriced_calls", "prompt_tokens", "cost")
    assert sorted(figures(summary, *names), key=str) == [
        ("alice", 3, 0, 1, 260, "0.000599999999"),
        ("bob", 1, 0, 0, 100, "0.0003"),
        (None, 2, 1, 0, 200, "0.0006"),
    ]
    by_day = staff.get("usage/", {"by": "day", "account": used.pk}).json()
    assert (summary["total"], summary["as_of"]) == (by_day["total"], by_day["as_of"])
    assert (summary["by"], summary["first"], summary["last"]) == ("end_user", "2026-11-01", None)


def test_usage_is_summed_up_by_the_values_of_a_tag(used: Account) -> None:
    _, own = customer(used, "another")
    summary = own.get("usage/", {"by": "tag:team", **NOVEMBER}).json()
    assert sorted(figures(summary, "tag", "calls"), key=str) == [("sales", 1), ("search", 3), (None, 2)]
    assert sorted(figures(own.get("usage/", {"by": "tag:1", **NOVEMBER}).json(), "tag", "calls"), key=str) == [
        ("one", 1),
        (None, 5),
    ]
    assert "cost" not in summary["total"]


def test_usage_by_end_user_is_narrowed(used: Account) -> None:
    _, own = customer(used, "another")
    by_model = own.get("usage/", {"by": "end_user", "model": "other"}).json()
    assert figures(by_model, "end_user_name", "calls") == [("bob", 1)]
    second = ApiKey.objects.get(name="second")
    by_key = own.get("usage/", {"by": "tag:team", "key": second.pk}).json()
    assert figures(by_key, "tag", "calls") == [("search", 1)]
    by_days = own.get("usage/", {"by": "end_user", "from": "2026-11-01", "to": "2026-11-10"}).json()
    assert figures(by_days, "end_user_name", "calls") == [("alice", 1)]


def test_usage_by_end_user_is_of_one_account_and_few_days(used: Account) -> None:
    staff = staff_asker("view_dailyusage")
    _, own = customer(used, "another")
    assert staff.refusal("usage/", {"by": "end_user"}) == "by: This needs an account too: account=ID."
    assert own.refusal("usage/", {"by": "tag:team", "from": "2026-10-01"}) == (
        "by: This needs a period of at most 31 days: from=DATE&to=DATE."
    )
    for by in ("user", "tag:", "tag", f"tag:{'k' * 65}"):
        assert own.refusal("usage/", {"by": by}) == (
            "by: Choose one of day, key, model, account, end_user and tag:KEY."
        )


def test_an_account_that_was_never_summed_up_has_no_usage_by_end_user(november: None) -> None:
    account = known(make_account())
    key, own = customer(account)
    call_of(key, "alice")
    summary = own.get("usage/", {"by": "end_user"}).json()
    assert (summary["results"], summary["as_of"], summary["total"]["calls"]) == ([], None, 0)
