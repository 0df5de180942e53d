"""Windows that a batch locks before it knows which it wants: right, wrong and gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llm import models
from llm.books.batches import commit
from llm.books.batches.commit import commit_batch
from llm.books.batches.foresight import WantedWindow, WindowForesight
from llm.books.operations import Closed, OpenCall, Opened, Refused, Result
from llm.enums import LimitMetric, LimitPer
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import archive_limit, set_limit
from llm.models import ApiKey, Limit, LimitWindow, Outbox
from tests.databases import only_on_postgresql
from tests.llm.books.making import a_close, a_key, an_open

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
MINUTE = WantedWindow((1, NOON), NOON + timedelta(minutes=1))
EVER = WantedWindow((2, NOON), None)


@pytest.fixture(autouse=True)
def foresight(monkeypatch: pytest.MonkeyPatch) -> WindowForesight:
    """Of a process that has just started."""
    fresh = WindowForesight()
    monkeypatch.setattr(commit, "_foresight", fresh)
    return fresh


def ask() -> ReservationEstimate:
    return ReservationEstimate(requests=1, input_tokens=10, output_tokens=10)


def opening(key: ApiKey) -> OpenCall:
    return an_open(key, ask=ask)


def call(key: ApiKey) -> list[Result]:
    """One that is opened in a batch and settled in the next one."""
    operation = opening(key)
    return [*commit_batch([operation]), *commit_batch([a_close(operation.id, account_id=key.account_id)])]


# --- What is foreseen -------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_windows_of_keys_that_are_known_are_foreseen_until_one_of_their_periods_is_over(
    foresight: WindowForesight,
) -> None:
    known, free, new = (an_open(a_key(name), ask=ask) for name in "abc")
    foresight.learn([known, free], {known.key_id: [MINUTE, EVER]})

    with time_machine.travel(NOON + timedelta(seconds=59), tick=False):
        assert foresight.windows_of([known, free], []) == {MINUTE.key, EVER.key}
        assert foresight.windows_of([known, new], []) is None
    with time_machine.travel(NOON + timedelta(seconds=60), tick=False):
        assert foresight.windows_of([known], []) is None


@pytest.mark.django_db
def test_calls_without_limits_lock_nothing(foresight: WindowForesight) -> None:
    known, free = an_open(a_key("a"), ask=ask), an_open(a_key("b"), ask=ask)
    foresight.learn([known, free], {known.key_id: [EVER]})

    assert foresight.windows_of([], []) is None
    assert foresight.windows_of([free], [a_close(free.id, account_id=free.account_id)]) is None
    assert foresight.windows_of([free], [a_close(known.id, account_id=known.account_id)]) == set()


@pytest.mark.django_db
def test_what_was_never_asked_teaches_nothing(foresight: WindowForesight) -> None:
    known = an_open(a_key(), ask=ask)
    foresight.learn([known], {known.key_id: [EVER]})
    foresight.learn([replace(known, ask=None, is_stillborn=True)], {})
    assert foresight.windows_of([known], []) == {EVER.key}


@pytest.mark.django_db
def test_foresight_never_grows_beyond_a_bound(foresight: WindowForesight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WindowForesight, "MAX_KEYS", 2)
    for number in range(4):
        foresight.learn([an_open(a_key(), key_id=number, ask=ask)], {number: [EVER]})
    assert foresight.windows_of([an_open(a_key(), key_id=0)], []) is None
    assert foresight.windows_of([an_open(a_key(), key_id=3)], []) == {EVER.key}


# --- What comes of it -------------------------------------------------------------------------------------------------


@pytest.mark.postgres
@only_on_postgresql("a trip to SQLite is a function call")
@pytest.mark.django_db(transaction=True)
def test_limits_cost_no_trip_where_their_windows_are_foreseen() -> None:
    key = a_key()
    for metric in (LimitMetric.REQUESTS, LimitMetric.TOKENS):
        set_limit(key.account, None, metric, LimitPer.MONTH, 1000, None)
    trips = []
    for _ in range(2):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert [type(result) for result in call(key)] == [Opened, Closed]
        trips.append(len(queries))
    # To read, to lock and to write, for the open; the close knows already that there are limits.
    assert trips == [3 + 2, 2 + 2]
    assert set(LimitWindow.objects.values_list("used", "held")) == {(2, 0), (26, 0)}


@pytest.mark.django_db(transaction=True)
def test_a_limit_that_was_not_foreseen_holds_the_next_call_back() -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.MONTH, 1000, None)
    call(key)
    set_limit(key.account, key, LimitMetric.REQUESTS, LimitPer.MONTH, 1, None)

    assert [type(result) for result in call(key)] == [Opened, Closed]
    [refused] = commit_batch([opening(key)])

    assert isinstance(refused, Refused)
    assert refused.exceeded is not None
    assert (refused.exceeded.kind, refused.exceeded.is_of_key) == ("spent", True)
    assert set(LimitWindow.objects.values_list("limit__metric", "used", "held")) == {
        ("tokens", 26, 0),
        ("requests", 1, 0),
    }


@pytest.mark.django_db(transaction=True)
def test_a_limit_that_was_foreseen_and_is_no_more_holds_nobody_back() -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 1, None)
    call(key)
    archive_limit(Limit.objects.get())
    assert [type(result) for result in call(key)] == [Opened, Closed]
    assert LimitWindow.objects.get().used == 1


@pytest.mark.django_db(transaction=True)
def test_of_a_window_that_was_locked_in_vain_nobody_is_told() -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.MONTH, 1000, None)
    call(key)
    # A threshold that is crossed already, taken back before any call.
    limit, _ = set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.MONTH, 20, 50)
    archive_limit(limit)

    assert [type(result) for result in call(key)] == [Opened, Closed]
    assert not Outbox.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_period_that_begins_while_nobody_looks_costs_nothing_but_a_second_try(foresight: WindowForesight) -> None:
    key = a_key()
    limit, _ = set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 10, None)
    last_month = LimitWindow.objects.create(limit=limit, starts_at=datetime(2026, 1, 1, tzinfo=UTC), used=7)
    foresight.learn([opening(key)], {key.pk: [WantedWindow((limit.pk, last_month.starts_at), None)]})

    assert [type(result) for result in call(key)] == [Opened, Closed]
    assert list(LimitWindow.objects.order_by("id").values_list("used", "held")) == [(7, 0), (1, 0)]


@pytest.mark.django_db(transaction=True)
def test_a_window_that_was_foreseen_and_cleared_away_is_made_again() -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 10, None)
    for _ in range(2):
        assert [type(result) for result in call(key)] == [Opened, Closed]
        assert list(LimitWindow.objects.values_list("used", "held")) == [(1, 0)]
        LimitWindow.objects.all().delete()


@pytest.mark.django_db(transaction=True)
def test_what_a_call_holds_is_released_where_its_key_has_no_limits_any_more() -> None:
    """The close's windows are those of its row, whatever is foreseen."""
    key, other = a_key("acme"), a_key("globex")
    limit, _ = set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 10, None)
    set_limit(other.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 10, None)
    operation = opening(key)
    commit_batch([operation])
    call(other)
    archive_limit(limit)

    results = commit_batch([a_close(operation.id), opening(other), opening(key)])

    assert [type(result) for result in results] == [Closed, Opened, Opened]
    assert set(LimitWindow.objects.values_list("limit__account__name", "used", "held")) == {
        ("acme", 1, 0),
        ("globex", 1, 1),
    }


@pytest.mark.postgres
@only_on_postgresql("SQLite foresees nothing")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("holds", ["null", "{}", "[]"])
def test_holds_that_say_nothing_hold_nothing(holds: str) -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 10, None)
    call(key)
    odd = opening(key)
    names = [field.attname for field in models.OpenCall._meta.concrete_fields if field.name not in ("id", "holds")]
    open_row = opening(key)
    commit_batch([open_row])
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO llm_opencall (id, holds, {', '.join(names)}) "  # noqa: S608
            f"SELECT %s, %s::jsonb, {', '.join(names)} FROM llm_opencall WHERE id = %s",
            [odd.id, holds, open_row.id],
        )

    assert commit_batch([a_close(odd.id, account_id=key.account_id)]) == [Closed()]
    assert LimitWindow.objects.get().held == 1
