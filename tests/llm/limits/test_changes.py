"""Limits as people write them, and as staff set, change and end them; and windows that nobody asks for any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from llm.books.batches.commit import commit_batch
from llm.books.operations import Opened, Refused
from llm.enums import LimitMetric, LimitPer
from llm.limits.admission import ReservationEstimate
from llm.limits.amounts import MAX_UNITS, amount_digits, describe_limit, format_limit_amount, parse_amount
from llm.limits.changes import archive_limit, limit_in_force, prune_windows, set_limit
from llm.models import ApiKey, Limit, LimitWindow, Usage
from tests.books import get_call
from tests.databases import only_on_postgresql
from tests.llm.books.making import a_close, a_key, an_open

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
REQUESTS, TOKENS, COST = LimitMetric
MINUTE, HOUR, DAY, MONTH, TOTAL = LimitPer


def set_requests(key: ApiKey, amount: int, *, per: LimitPer = MONTH, of_key: bool = False) -> Limit:
    return set_limit(key.account, key if of_key else None, REQUESTS, per, amount, None)[0]


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """What each of them returned or raised, all begun together, each on a connection of its own."""
    begin = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)

    def run(index: int, job: Callable[[], Any]) -> None:
        begin.wait(10)
        try:
            results[index] = job()
        except (ValidationError, IntegrityError) as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# --- Amounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [REQUESTS, TOKENS])
@pytest.mark.parametrize(
    ("text", "units"),
    [("0", 0), ("60", 60), (" 60 ", 60), ("007", 7), ("1,000", 1000), ("1,000,000", 10**6), ("1_000_000", 10**6)],
)
def test_requests_and_tokens_are_whole_numbers(metric: LimitMetric, text: str, units: int) -> None:
    assert parse_amount(metric, text) == units


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("0", 0),
        ("12", 12_000_000),
        ("12.5", 12_500_000),
        ("12.50", 12_500_000),
        ("$12.50", 12_500_000),
        ("$ 12.50", 12_500_000),
        (".000001", 1),
        ("0.0000010", 1),
        ("1,234,567.89", 1_234_567_890_000),
    ],
)
def test_a_cost_is_usd_in_whole_micro_units(text: str, units: int) -> None:
    assert parse_amount(COST, text) == units


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        *(
            (TOKENS, text)
            for text in ("", "-1", "+1", "1.5", "1e3", "1,00", "1,0000", "1,000_000", "1 000", "\u0663", "$5")
        ),
        *(
            (COST, text)
            for text in ("", "-1", "1e3", "1.", "$", "€5", "1,00.5", "NaN", "inf", "5 USD", "1.2.3", "\u0663.5")
        ),
    ],
)
def test_what_is_no_amount_is_refused_in_words(metric: LimitMetric, text: str) -> None:
    with pytest.raises(ValueError, match=r"^“.*” is not an? (whole number such as|amount in USD such as) ") as caught:
        parse_amount(metric, text)
    assert f"“{text}”" in str(caught.value)


def test_a_cost_has_six_decimals_at_most() -> None:
    with pytest.raises(ValueError, match=r"^“0\.0000001” has more than 6 decimals$"):
        parse_amount(COST, "0.0000001")


@pytest.mark.parametrize(("metric", "most"), [(TOKENS, "1,000,000,000,000,000"), (COST, "1,000,000,000.00")])
def test_an_amount_has_an_upper_bound(metric: LimitMetric, most: str) -> None:
    assert parse_amount(metric, most) == MAX_UNITS
    with pytest.raises(ValueError, match=r"is higher than a limit can be; omit the limit instead$"):
        parse_amount(metric, most.replace("1", "2", 1))


def test_a_very_long_text_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"^“1{40}…” is too long for an amount$"):
        parse_amount(TOKENS, "1" * 100_000)


@given(st.sampled_from(LimitMetric), st.integers(0, MAX_UNITS))
def test_an_amount_is_read_as_it_is_written(metric: LimitMetric, units: int) -> None:
    assert parse_amount(metric, amount_digits(metric, units)) == units


@pytest.mark.parametrize(
    ("metric", "units", "text"),
    [
        (REQUESTS, 0, "0 requests"),
        (REQUESTS, 1, "1 request"),
        (TOKENS, 1, "1 token"),
        (TOKENS, 1_000_000, "1,000,000 tokens"),
        (COST, 0, "$0.00"),
        (COST, 1, "$0.000001"),
        (COST, 12_500_000, "$12.50"),
        (COST, 1_234_567_890_000, "$1,234,567.89"),
    ],
)
def test_amounts_for_people(metric: LimitMetric, units: int, text: str) -> None:
    assert format_limit_amount(metric, units) == text


@pytest.mark.parametrize(
    ("metric", "per", "amount", "text"),
    [(TOKENS, MONTH, 10**6, "1,000,000 tokens per month"), (COST, TOTAL, 500_000, "$0.50 in total")],
)
def test_a_limit_in_words(metric: LimitMetric, per: LimitPer, amount: int, text: str) -> None:
    assert describe_limit(Limit(metric=metric, per=per, amount=amount)) == text


# --- Setting, changing, ending ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_limit_is_made_and_then_changed() -> None:
    account = a_key().account
    limit, is_new = set_limit(account, None, TOKENS, MONTH, 1000, 80)
    assert is_new
    again, is_new = set_limit(account, None, TOKENS, MONTH, 2000, None)
    assert not is_new
    assert again.pk == limit.pk
    assert list(Limit.objects.values_list("amount", "soft_percent", "archived_at")) == [(2000, None, None)]


@pytest.mark.django_db
def test_limits_of_an_account_of_its_keys_and_of_other_periods_stand_beside_each_other() -> None:
    key, other = a_key(), a_key("other")
    made = {
        set_limit(key.account, None, TOKENS, MONTH, 1, None),
        set_limit(key.account, key, TOKENS, MONTH, 2, None),
        set_limit(key.account, None, TOKENS, DAY, 3, None),
        set_limit(key.account, None, COST, MONTH, 4, None),
        set_limit(other.account, None, TOKENS, MONTH, 5, None),
    }
    assert [is_new for _, is_new in made] == [True] * 5
    found = limit_in_force(key.account, key, TOKENS, MONTH)
    assert found is not None
    assert found.amount == 2


@pytest.mark.django_db
@pytest.mark.parametrize(("amount", "soft_percent"), [(-1, None), (1, 0), (1, 101)])
def test_what_a_limit_cannot_be_is_refused_and_nothing_is_written(amount: int, soft_percent: int | None) -> None:
    account = a_key().account
    with pytest.raises(ValidationError):
        set_limit(account, None, TOKENS, MONTH, amount, soft_percent)
    assert not Limit.objects.exists()


@pytest.mark.django_db
def test_a_key_of_another_account_is_refused() -> None:
    account, key = a_key().account, a_key("other")
    with pytest.raises(ValidationError, match="This key belongs to another account"):
        set_limit(account, key, TOKENS, MONTH, 1, None)
    assert not Limit.objects.exists()


@pytest.mark.django_db
def test_an_archived_limit_stays_as_it_was_and_makes_room_for_another() -> None:
    account = a_key().account
    former, _ = set_limit(account, None, TOKENS, MONTH, 1, None)
    assert archive_limit(former)
    moment = former.archived_at
    assert not archive_limit(former)
    assert former.archived_at == moment is not None

    _, is_new = set_limit(account, None, TOKENS, MONTH, 2, None)
    assert is_new
    assert set(Limit.objects.values_list("amount", "archived_at")) == {(1, moment), (2, None)}


def call_with(key: ApiKey) -> Any:
    [result] = commit_batch(
        [an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1))]
    )
    return result


@pytest.mark.django_db
def test_a_new_limit_counts_from_when_it_is_set() -> None:
    key = a_key()
    call_with(key)
    set_requests(key, 1)

    assert isinstance(call_with(key), Opened)
    assert isinstance(call_with(key), Refused)
    assert LimitWindow.objects.get().taken == 1


@pytest.mark.django_db
def test_a_change_of_a_limit_acts_on_the_next_call() -> None:
    key = a_key()

    def call() -> Any:
        return call_with(key)

    assert isinstance(call(), Opened)
    limit = set_requests(key, 0)
    assert isinstance(call(), Refused)
    set_requests(key, 1)
    assert isinstance(call(), Opened)
    assert isinstance(call(), Refused)
    set_requests(key, 2)
    assert isinstance(call(), Opened)
    assert isinstance(call(), Refused)
    archive_limit(limit)
    assert isinstance(call(), Opened)


@pytest.mark.django_db(transaction=True)
def test_of_two_who_set_a_limit_at_once_one_makes_it_and_one_changes_it() -> None:
    account = a_key().account
    jobs = [lambda n=n: set_limit(account, None, TOKENS, MONTH, n, None)[1] for n in (1, 2, 3, 4)]
    assert sorted(at_once(*jobs)) == [False, False, False, True]
    assert Limit.objects.get().amount in (1, 2, 3, 4)


@pytest.mark.django_db(transaction=True)
def test_whoever_comes_after_an_archival_makes_a_new_limit() -> None:
    account = a_key().account
    former, _ = set_limit(account, None, TOKENS, MONTH, 1, None)
    archived, is_new = at_once(
        lambda: archive_limit(Limit.objects.get(pk=former.pk)),
        lambda: set_limit(account, None, TOKENS, MONTH, 2, None)[1],
    )
    assert archived
    former.refresh_from_db()
    assert former.archived_at is not None
    # Either it was changed and then archived, or archived and then followed by another.
    in_force = list(Limit.objects.in_force().values_list("amount", flat=True))
    assert (in_force, former.amount) == (([2], 1) if is_new else ([], 2))


@pytest.mark.django_db(transaction=True)
@only_on_postgresql("SQLite has one writer at a time")
def test_calls_go_on_while_somebody_changes_a_limit() -> None:
    """A lock that rows which point at the account or the limit had to wait for would stop the gateway."""
    key = a_key()
    set_requests(key, 10)
    with transaction.atomic():
        set_requests(key, 20)
        [result] = at_once(
            lambda: commit_batch(
                [an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1))],
                lock_timeout_ms=5000,
            )
        )
    assert isinstance(result[0], Opened)
    assert LimitWindow.objects.get().held == 1


# --- Pruning ----------------------------------------------------------------------------------------------------------


def a_window(limit: Limit, starts_at: datetime, *, held: int = 0) -> LimitWindow:
    return LimitWindow.objects.create(limit=limit, starts_at=starts_at, used=5, held=held)


@pytest.mark.django_db
def test_windows_of_minutes_and_hours_go_after_a_week_and_no_others() -> None:
    key = a_key()
    limit_of = {per: set_requests(key, 1, per=per) for per in LimitPer}
    long_ago, just_so, too_young = NOW - timedelta(days=400), NOW - WEEK - timedelta(seconds=1), NOW - WEEK
    for limit in limit_of.values():
        for starts_at in (long_ago, just_so, too_young):
            a_window(limit, starts_at)

    assert prune_windows(now=NOW) == 4

    for per, limit in limit_of.items():
        left = set(limit.windows.values_list("starts_at", flat=True))
        assert left == ({too_young} if per in (MINUTE, HOUR) else {long_ago, just_so, too_young})
    assert prune_windows(now=NOW) == 0


@pytest.mark.django_db
def test_windows_of_end_users_go_once_their_period_is_surely_over() -> None:
    account = a_key().account
    longest = {"minute": 60, "hour": 3600, "day": 2 * 86_400, "month": 32 * 86_400}
    for per in LimitPer:
        limit, _ = set_limit(account, None, REQUESTS, per, 1, None, is_per_end_user=True)
        over = NOW - timedelta(seconds=longest.get(per, 10**8), hours=6)
        for starts_at in (over - timedelta(seconds=1), over):
            LimitWindow.objects.create(end_user_limit=limit, end_user="a" * 32, starts_at=starts_at)

    assert prune_windows(now=NOW) == 4

    left = {limit.per: limit.end_user_windows.count() for limit in Limit.objects.all()}
    assert left == {"minute": 1, "hour": 1, "day": 1, "month": 1, "total": 2}


@pytest.mark.django_db
def test_windows_of_end_users_of_a_total_go_once_the_limit_has_ended() -> None:
    key = a_key()
    limit, _ = set_limit(key.account, None, REQUESTS, LimitPer.TOTAL, 9, None, is_per_end_user=True)
    in_flight = an_open(
        key, end_user="a" * 32, ask=lambda: ReservationEstimate(requests=0, input_tokens=1, output_tokens=1)
    )
    ended = an_open(
        key, end_user="b" * 32, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1)
    )
    commit_batch([in_flight, ended])
    commit_batch([a_close(ended.id)])
    much_later = timezone.now() + 60 * WEEK
    assert prune_windows(now=much_later) == 0
    archive_limit(limit)
    assert prune_windows(now=timezone.now() + timedelta(hours=5)) == 0
    assert prune_windows(now=much_later) == 1
    assert LimitWindow.objects.get().end_user == "a" * 32
    commit_batch([a_close(in_flight.id)])
    assert prune_windows(now=much_later) == 1


@pytest.mark.django_db
def test_a_window_in_which_something_is_held_stays() -> None:
    limit = set_requests(a_key(), 1, per=MINUTE)
    held = a_window(limit, NOW - 2 * WEEK, held=1)
    a_window(limit, NOW - 3 * WEEK)
    assert prune_windows(now=NOW) == 1
    assert LimitWindow.objects.get() == held


@pytest.mark.django_db
def test_a_window_that_an_open_call_names_stays_even_where_it_holds_nothing_there() -> None:
    """A retry holds no further request; its close still looks for the window."""
    key = a_key()
    set_requests(key, 10, per=HOUR)
    first = an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1))
    retry = an_open(key, ask=lambda: ReservationEstimate(requests=0, input_tokens=1, output_tokens=1))
    commit_batch([first])
    commit_batch([a_close(first.id), retry])
    window = LimitWindow.objects.get()
    assert (window.used, window.held) == (1, 0)
    assert get_call(retry.id).holds == [[window.pk, 0]]
    later = timezone.now() + 2 * WEEK

    assert prune_windows(now=later) == 0
    commit_batch([a_close(retry.id)])
    assert prune_windows(now=later) == 1
    assert Usage.objects.count() == 2


@pytest.mark.django_db
def test_windows_of_an_archived_limit_go_too() -> None:
    limit = set_requests(a_key(), 1, per=HOUR)
    a_window(limit, NOW - 2 * WEEK)
    archive_limit(limit)
    assert prune_windows(now=NOW) == 1


@pytest.mark.django_db
def test_windows_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("llm.limits.changes.time.sleep", pauses.append)
    limit = set_requests(a_key(), 1, per=MINUTE)
    old = NOW - 2 * WEEK
    LimitWindow.objects.bulk_create(
        LimitWindow(limit=limit, starts_at=old - timedelta(minutes=number)) for number in range(2001)
    )
    assert prune_windows(now=NOW) == 2001
    assert pauses == [0.05] * 3
    assert not LimitWindow.objects.exists()
