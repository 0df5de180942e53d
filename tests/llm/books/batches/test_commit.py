"""The synchronous core of the books: one batch, one transaction, replayed without harm."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llm import models
from llm.books import comparing
from llm.books.batches.commit import commit_batch
from llm.books.operations import (
    Closed,
    Conflict,
    Failed,
    Indeterminate,
    Opened,
    Operation,
    Refused,
    Result,
    Stale,
)
from llm.enums import AccountStatus, CallOutcome, LimitMetric, LimitPer, UsageSource, UsageStatus
from llm.ids import uuid7
from llm.keys import revoke_key
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import CatalogVersion, Limit, LimitWindow, Usage, UsageAdjustment
from llm.types import TokenCounts, clean_text
from tests.books import all_calls, get_call
from tests.databases import only_on_postgresql
from tests.llm.books.making import a_close, a_key, an_open

pytestmark = pytest.mark.django_db


def test_an_open_row_holds_who_and_what_and_no_figures() -> None:
    key = a_key()
    operation = an_open(key, is_stream=True)
    [result] = commit_batch([operation])
    row = get_call(operation.id)
    assert result == Opened(row.opened_at)
    assert (row.id, row.request_id, row.attempt) == (operation.id, operation.request_id, 1)
    assert (row.account_id, row.api_key_id, row.process_id) == (key.account_id, key.pk, operation.process_id)
    assert (row.model, row.upstream_model, row.provider, row.is_stream) == (
        "public-name",
        "upstream-name",
        "openai",
        True,
    )
    assert (row.status, row.outcome, row.usage_source) == (UsageStatus.OPEN, CallOutcome.PENDING, UsageSource.NONE)
    assert (row.total_tokens, row.cost, row.closed_at) == (0, None, None)
    assert row.recorded_at == row.opened_at


def test_a_close_writes_every_figure_exactly() -> None:
    operation = an_open(a_key())
    counts = TokenCounts(100, 50, 10, 5, 3, 7, 2, 1, {"web_searches": 2})
    closing = a_close(operation.id, counts=counts, cost_pico=2**63 - 1, service_tier="flex")
    commit_batch([operation])
    assert commit_batch([closing]) == [Closed(is_new=True)]
    row = Usage.objects.get()
    assert (row.status, row.outcome, row.usage_source) == (UsageStatus.SETTLED, CallOutcome.OK, UsageSource.REPORTED)
    assert (row.prompt_tokens, row.completion_tokens, row.cache_read_tokens) == (100, 50, 10)
    assert (row.cache_write_5m_tokens, row.cache_write_1h_tokens, row.reasoning_tokens) == (5, 3, 7)
    assert (row.audio_input_tokens, row.audio_output_tokens, row.extra_meters) == (2, 1, {"web_searches": 2})
    assert row.cost == Decimal("9223372.036854775807")
    assert (row.reported_model, row.upstream_response_id, row.service_tier) == (
        "upstream-name-2026",
        "chatcmpl-1",
        "flex",
    )
    assert (row.first_byte_ms, row.duration_ms, row.upstream_status) == (10, 20, 200)
    assert row.closed_at == row.recorded_at
    assert row.closed_at is not None
    assert row.closed_at >= row.opened_at


def test_an_open_and_its_close_may_come_in_one_batch() -> None:
    operation = an_open(a_key())
    results = commit_batch([operation, a_close(operation.id)])
    assert [type(result) for result in results] == [Opened, Closed]
    assert Usage.objects.get().status == UsageStatus.SETTLED


def test_replaying_a_batch_changes_nothing() -> None:
    operation = an_open(a_key())
    batch: list[Operation] = [operation, a_close(operation.id)]
    commit_batch(batch)
    before = Usage.objects.values().get()
    # Whoever asks again must not send it: the call is over.
    assert commit_batch(batch) == [Failed("IntegrityError"), Closed(is_new=False)]
    assert Usage.objects.values().get() == before


def test_a_different_close_is_refused_and_changes_nothing() -> None:
    operation = an_open(a_key())
    commit_batch([operation, a_close(operation.id)])
    before = Usage.objects.values().get()
    [result] = commit_batch([a_close(operation.id, counts=TokenCounts(9, 5))])
    assert result == Conflict("this call is settled with different figures")
    assert Usage.objects.values().get() == before


def test_a_close_without_an_open_is_refused() -> None:
    assert commit_batch([a_close(uuid7())]) == [Conflict("this call was never opened")]
    assert all_calls() == []


def test_results_stand_in_the_order_of_the_operations() -> None:
    key = a_key()
    first, second = an_open(key), an_open(key, key_id=key.pk + 1000)
    results = commit_batch([a_close(first.id), second, first])
    assert [type(result) for result in results] == [Closed, Refused, Opened]


@pytest.mark.parametrize(
    ("counts", "reason"),
    [(TokenCounts(-1, 4), "IntegrityError"), (TokenCounts(1, 4, cache_read_tokens=2), "IntegrityError")],
)
def test_only_the_operation_whose_data_is_impossible_fails(counts: TokenCounts, reason: str) -> None:
    key = a_key()
    opens = [an_open(key) for _ in range(9)]
    commit_batch(opens)
    closes = [a_close(operation.id) for operation in opens]
    closes[5] = a_close(opens[5].id, counts=counts)
    results = commit_batch(closes)
    assert results[5] == Failed(reason)
    assert [result for index, result in enumerate(results) if index != 5] == [Closed()] * 8
    assert list(models.OpenCall.objects.values_list("id", flat=True)) == [opens[5].id]


def test_a_figure_that_no_integer_holds_fails_alone() -> None:
    key = a_key()
    opens = [an_open(key), an_open(key)]
    commit_batch(opens)
    results = commit_batch([a_close(opens[0].id, counts=TokenCounts(2**70, 0)), a_close(opens[1].id)])
    assert [type(result) for result in results] == [Failed, Closed]


def test_an_unknown_key_is_refused() -> None:
    key = a_key()
    assert commit_batch([an_open(key, key_id=key.pk + 1000)]) == [Refused("unknown")]
    assert all_calls() == []


def test_a_key_of_another_account_is_refused() -> None:
    key, other = a_key(), a_key("other")
    assert commit_batch([an_open(key, account_id=other.account_id)]) == [Refused("unknown")]
    assert all_calls() == []


def test_a_revoked_key_is_refused() -> None:
    key = a_key()
    revoke_key(key)
    assert commit_batch([an_open(key)]) == [Refused("revoked")]
    assert all_calls() == []


def test_a_key_that_will_be_revoked_later_works_until_then() -> None:
    key = a_key()
    key.revoked_at = timezone.now() + timedelta(hours=1)
    key.save()
    assert isinstance(commit_batch([an_open(key)])[0], Opened)


def test_an_expired_key_is_refused() -> None:
    key = a_key()
    key.expires_at = timezone.now() - timedelta(seconds=1)
    key.save()
    assert commit_batch([an_open(key)]) == [Refused("expired")]


@pytest.mark.parametrize("status", [AccountStatus.SUSPENDED, AccountStatus.CLOSED])
def test_keys_of_an_account_that_is_not_active_are_refused(status: AccountStatus) -> None:
    key = a_key()
    key.account.status = status
    key.account.save()
    assert commit_batch([an_open(key)]) == [Refused("account")]
    assert all_calls() == []


def test_a_model_outside_the_keys_list_is_refused() -> None:
    key = a_key()
    key.allowed_models = ["another"]
    key.save()
    assert commit_batch([an_open(key)]) == [Refused("model")]
    assert isinstance(commit_batch([an_open(key, model="another")])[0], Opened)


def test_a_call_resolved_under_an_older_catalog_is_sent_back() -> None:
    operation = an_open(a_key())
    CatalogVersion.bump()
    [result] = commit_batch([operation])
    assert isinstance(result, Stale)
    assert result.version == CatalogVersion.current()
    assert all_calls() == []


def test_a_price_that_is_not_in_force_at_the_databases_clock_is_sent_back() -> None:
    key = a_key()
    now = datetime.now(UTC)
    late = an_open(key, price_from=now + timedelta(hours=1))
    early = an_open(key, price_until=now - timedelta(hours=1))
    assert [type(result) for result in commit_batch([late, early])] == [Stale, Stale]
    assert all_calls() == []


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York", "Asia/Kathmandu"])
def test_the_local_day_is_the_accounts_own(zone: str) -> None:
    key = a_key()
    key.account.time_zone = zone
    key.account.save()
    commit_batch([an_open(key)])
    [row] = all_calls()
    assert row.local_day == row.opened_at.astimezone(ZoneInfo(zone)).date()


def test_the_number_of_statements_does_not_grow_with_the_batch() -> None:
    key = a_key()
    counts = []
    for size in (1, 50):
        operations = [an_open(key) for _ in range(size)]
        with CaptureQueriesContext(connection) as queries:
            commit_batch(operations)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 6


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("gpt-4o", "gpt-4o"),
        ("a\x00b\nc", "abc"),
        ("\ud800x", "x"),
        ("naïve ✓", "naïve ✓"),
        (None, ""),
        (7, ""),
        ("x" * 500, "x" * 200),
    ],
)
def test_texts_are_cleaned_before_they_reach_the_database(raw: object, clean: str) -> None:
    assert clean_text(raw, limit=200) == clean


# --- What goes wrong beside the database ------------------------------------------------------------------------------


def test_an_operation_of_which_no_row_can_be_made_fails_alone() -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 10, None)

    def broken() -> ReservationEstimate:
        raise AttributeError

    good = an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1))
    results = commit_batch([good, an_open(key, ask=broken)])
    assert [type(result) for result in results] == [Opened, Failed]
    assert [call.id for call in all_calls()] == [good.id]
    assert LimitWindow.objects.get().held == 1


def test_a_correction_that_fails_harms_no_other_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 10, None)
    reaped, fresh = (
        an_open(key),
        an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1)),
    )
    commit_batch([reaped])
    commit_batch([a_close(reaped.id, status=UsageStatus.ESTIMATED, outcome=CallOutcome.LOST, is_billable=False)])
    for error, answer in ((ValueError, Conflict), (OperationalError, Indeterminate)):

        def fail(*_: object, error: type[Exception] = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(comparing, "adjust", fail)
        closed, opened = commit_batch([a_close(reaped.id), replace(fresh, id=uuid7(), request_id=uuid7())])
        assert isinstance(closed, answer)
        assert isinstance(opened, Opened)
    assert LimitWindow.objects.get().held == 2
    assert UsageAdjustment.objects.count() == 0


def test_an_open_that_is_repeated_under_a_limit_is_not_sent_again() -> None:
    """Its row doesn't say to what its limits have lowered its output maximum."""
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.MONTH, 10, None)
    operation = an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1000))
    [opened] = commit_batch([operation])
    assert isinstance(opened, Opened)
    assert opened.max_output_tokens == 9
    assert not isinstance(commit_batch([operation])[0], Opened)
    assert LimitWindow.objects.get().held == 10


def test_two_late_settlements_with_other_parts_are_not_the_same() -> None:
    operation = an_open(a_key())
    commit_batch([operation])
    commit_batch([a_close(operation.id, status=UsageStatus.ESTIMATED, outcome=CallOutcome.LOST, is_billable=False)])
    first = a_close(operation.id, counts=TokenCounts(9, 4, cache_read_tokens=2))
    second = a_close(operation.id, counts=TokenCounts(9, 4, cache_read_tokens=3))
    assert commit_batch([first]) == [Closed()]
    assert commit_batch([first]) == [Closed(is_new=False)]
    assert commit_batch([second]) == [Conflict("this call was corrected with different figures")]
    assert UsageAdjustment.objects.count() == 1


@pytest.mark.postgres
@only_on_postgresql("SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_batches_that_make_the_same_windows_never_wait_in_a_circle() -> None:
    """Each round begins as a month does: no window is there yet, and everybody wants some of them."""
    keys = [a_key(name) for name in "abcdef"]

    def batch(seed: int) -> list[Result]:
        picked = random.Random(seed).sample(keys, 4)
        try:
            return commit_batch(
                [
                    an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1))
                    for key in picked
                ]
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        for number in range(6):
            for key in keys:
                for metric in (LimitMetric.REQUESTS, LimitMetric.TOKENS):
                    set_limit(key.account, None, metric, LimitPer.MONTH, 10_000, None)
            results = [
                result
                for batch_results in pool.map(batch, range(number * 8, number * 8 + 8))
                for result in batch_results
            ]
            assert {type(result) for result in results} == {Opened}
            Limit.objects.in_force().update(archived_at=timezone.now())
    assert sum(LimitWindow.objects.filter(limit__metric="requests").values_list("held", flat=True)) == 6 * 8 * 4


def test_a_window_that_was_cleared_away_is_made_again() -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 10, None)
    for used in (1, 1):
        operation = an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1))
        assert [type(result) for result in commit_batch([operation, a_close(operation.id)])] == [Opened, Closed]
        assert LimitWindow.objects.get().used == used
        LimitWindow.objects.all().delete()
