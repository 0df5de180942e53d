"""Limits for each end user: each has a window, the key's names are bounded, and nobody else pays for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from llm.books.batches import commit
from llm.books.batches.commit import commit_batch
from llm.books.batches.foresight import WindowForesight
from llm.books.operations import Closed, OpenCall, Opened, Refused, Result
from llm.db.prepared import PreparedStatements
from llm.enums import LimitMetric, LimitPer
from llm.limits import sql
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import archive_limit, set_limit
from llm.limits.periods import EVER
from llm.models import ApiKey, Limit, LimitWindow, Outbox
from tests.databases import only_on_postgresql
from tests.llm.books.making import a_close, a_key, an_open

pytestmark = pytest.mark.django_db(transaction=True)

ANNE, BEN, CLEO = "a" * 32, "b" * 32, "c" * 32


@pytest.fixture(autouse=True)
def foresight(monkeypatch: pytest.MonkeyPatch) -> WindowForesight:
    fresh = WindowForesight()
    monkeypatch.setattr(commit, "_foresight", fresh)
    return fresh


def limit_each(key: ApiKey, amount: int, *, of_key: bool = False, per: LimitPer = LimitPer.MONTH) -> Limit:
    owner = key if of_key else None
    limit, _ = set_limit(key.account, owner, LimitMetric.REQUESTS, per, amount, None, is_per_end_user=True)
    return limit


def opening(key: ApiKey, end_user: str, **changes: Any) -> OpenCall:
    ask = changes.pop("ask", lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1))
    return an_open(key, ask=ask, end_user=end_user, **changes)


def call(key: ApiKey, end_user: str) -> Result:
    """One that is opened, and settled in the next batch."""
    operation = opening(key, end_user)
    [opened] = commit_batch([operation])
    if isinstance(opened, Opened):
        assert commit_batch([a_close(operation.id, account_id=key.account_id)]) == [Closed()]
    return opened


def windows() -> dict[str, tuple[int, int]]:
    rows = LimitWindow.objects.exclude(end_user="").values_list("end_user", "used", "held")
    return {end_user: (used, held) for end_user, used, held in rows}


def exceeded(result: Result) -> tuple[str, bool]:
    assert isinstance(result, Refused)
    assert result.exceeded is not None
    return result.exceeded.kind, result.exceeded.is_per_end_user


@pytest.mark.parametrize("of_key", [False, True])
def test_each_end_user_has_the_whole_limit(of_key: bool) -> None:
    key = a_key()
    limit_each(key, 2, of_key=of_key)
    results = [call(key, who) for who in (ANNE, BEN, ANNE, ANNE, BEN, BEN)]
    assert [isinstance(each, Opened) for each in results] == [True, True, True, False, True, False]
    assert exceeded(results[3]) == exceeded(results[5]) == ("spent", True)
    assert windows() == {ANNE: (2, 0), BEN: (2, 0)}


def test_those_who_are_not_named_are_one() -> None:
    key = a_key()
    limit_each(key, 1)
    assert isinstance(call(key, ""), Opened)
    assert exceeded(call(key, "")) == ("spent", True)
    assert isinstance(call(key, ANNE), Opened)
    assert windows() == {"-": (1, 0), ANNE: (1, 0)}


def test_in_one_batch_too_nobody_gets_more_than_their_own() -> None:
    key = a_key()
    limit_each(key, 2)
    for _ in range(2):
        opens = [opening(key, who) for who in (ANNE, ANNE, ANNE, BEN)]
        commit_batch(opens)
    assert windows() == {ANNE: (0, 2), BEN: (0, 2)}


def test_names_beyond_the_bound_of_their_key_share_one_window(settings: Settings) -> None:
    settings.LLM_LIMIT_END_USERS = 2
    key = a_key()
    other = ApiKey.objects.create(account=key.account, name="other", digest=b"o" * 32, prefix="llm_o", last_four="oooo")
    limit_each(key, 2)
    commit_batch([opening(key, who) for who in (ANNE, BEN, CLEO, "d" * 32)])
    assert windows() == {ANNE: (0, 1), BEN: (0, 1), f"*{key.pk}": (0, 2)}
    assert exceeded(call(key, "e" * 32)) == ("busy", True)
    assert exceeded(call(key, CLEO)) == ("busy", True)
    # Those who have one keep it, and so do the names of another key.
    assert isinstance(call(key, ANNE), Opened)
    assert isinstance(call(other, CLEO), Opened)
    assert windows()[CLEO] == (1, 0)


def test_a_limit_for_each_stands_beside_one_for_all() -> None:
    key = a_key()
    limit_each(key, 2)
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 3, None)
    results = [call(key, who) for who in (ANNE, ANNE, ANNE, BEN, BEN)]
    assert [isinstance(each, Opened) for each in results] == [True, True, False, True, False]
    assert (exceeded(results[2]), exceeded(results[4])) == (("spent", True), ("spent", False))
    assert Limit.objects.in_force().count() == 2


def test_a_change_acts_on_the_next_call() -> None:
    key = a_key()
    limit = limit_each(key, 1)
    assert isinstance(call(key, ANNE), Opened)
    assert isinstance(call(key, ANNE), Refused)
    limit_each(key, 2)
    assert isinstance(call(key, ANNE), Opened)
    assert isinstance(call(key, ANNE), Refused)
    archive_limit(limit)
    assert isinstance(call(key, ANNE), Opened)
    assert windows() == {ANNE: (2, 0)}


def test_a_limit_that_is_new_is_seen_by_who_called_before() -> None:
    key = a_key()
    assert isinstance(call(key, ANNE), Opened)
    limit_each(key, 1)
    limit_each(key, 5, per=LimitPer.DAY)
    assert isinstance(call(key, ANNE), Opened)
    assert isinstance(call(key, ANNE), Refused)


@pytest.mark.postgres
@only_on_postgresql("a trip to SQLite is a function call")
def test_it_costs_no_trip_where_the_window_is_known_and_none_without_such_limits() -> None:
    key, free = a_key(), a_key("free")
    limit_each(key, 100)
    trips = []
    for each, who in ((key, ANNE), (key, ANNE), (key, BEN), (free, ANNE), (free, BEN)):
        with CaptureQueriesContext(connection) as queries:
            assert isinstance(call(each, who), Opened)
        trips.append(len(queries))
    # To read, to look who there is, to lock and to write; then the window is known.
    assert trips == [4 + 2, 2 + 2, 4 + 2, 2 + 2, 2 + 2]


@pytest.mark.postgres
@only_on_postgresql("SQLite makes its plans with the parameters")
def test_nobody_reads_past_the_windows_of_others_that_begin_at_the_same_moment() -> None:
    """With a plan that is made before it is known what is looked for, as the writer's are."""
    key = a_key()
    many = limit_each(key, 5, per=LimitPer.TOTAL)
    one, _ = set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.TOTAL, 5, None)
    windows = [LimitWindow(end_user_limit=many, end_user=f"{n:032x}", starts_at=EVER) for n in range(2_000)]
    windows += [LimitWindow(limit=one, starts_at=EVER + timedelta(hours=n)) for n in range(2_000)]
    LimitWindow.objects.bulk_create(windows)
    start = {"limit_id": one.pk, "starts_at": EVER.isoformat()}
    named = {**start, "limit_id": many.pk, "end_user": ANNE, "key_id": key.pk, "number": 0}
    plans = [
        _plan(sql.windows_sql("postgresql"), "{}", orjson.dumps([start]).decode()),
        _plan(sql.windows_sql("postgresql", has_end_users=True), "{}", "[]", orjson.dumps([named]).decode()),
        _plan(sql.named_sql("postgresql", limit=10), orjson.dumps([named]).decode()),
    ]
    assert ["Rows Removed by Filter" in plan for plan in plans] == [False] * 3


def _plan(text: str, *parameters: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE llm_limitwindow")
        prepared = PreparedStatements().call(cursor, text)
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {prepared}", parameters)
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("DEALLOCATE ALL; RESET plan_cache_mode; RESET enable_seqscan")
    return plan


@pytest.mark.slow
@pytest.mark.parametrize("bound", [1, 100])
def test_of_many_at_once_no_window_is_overspent_and_nobody_has_two(settings: Settings, bound: int) -> None:
    settings.LLM_LIMIT_END_USERS = bound
    key = a_key()
    limit_each(key, 3)
    results: list[Result] = []
    threads = [
        threading.Thread(target=_run_many, args=([ANNE, BEN] if number % 2 else [BEN, ANNE], key, results.append))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 6 * 2 * 3
    used = windows()
    shared = used.pop(f"*{key.pk}", (0, 0))
    assert set(used.values()) | {shared if bound == 1 else (3, 0)} == {(3, 0)}
    assert len(used) == (1 if bound == 1 else 2)
    assert sum(isinstance(each, Opened) for each in results) == 6


def _run_many(names: list[str], key: ApiKey, tell: Callable[[Result], None]) -> None:
    try:
        for _ in range(3):
            for who in names:
                tell(call(key, who))
    finally:
        connection.close()


def test_where_end_users_are_not_recorded_they_cannot_be_limited() -> None:
    key = a_key()
    key.account.records_end_users = False
    key.account.save()
    with pytest.raises(ValidationError, match="doesn't record end users"):
        limit_each(key, 1)
    assert not Limit.objects.exists()


def test_of_all_end_users_that_cross_the_threshold_the_first_is_alerted() -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.TOTAL, 2, 100, is_per_end_user=True)
    for who in ("", ANNE, BEN, BEN):
        call(key, who)
    assert not LimitWindow.objects.filter(is_announced=True).exclude(end_user=BEN).exists()
    for who in (ANNE, ANNE, CLEO, CLEO):
        call(key, who)
    messages = Outbox.objects.order_by("pk")
    assert [message.kind for message in messages] == ["mail", "webhook"]
    assert {message.payload["end_user"] for message in messages} == {BEN}
    assert LimitWindow.objects.filter(is_announced=True).count() == 3
