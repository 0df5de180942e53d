"""`verify_books` finds each way in which the books can be wrong, names the row, and finds nothing in sound books.

What is wrong is made with raw SQL, past the triggers: as a bug, a restored backup or somebody's psql would.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from llm import audit
from llm.audit import calls as call_checks
from llm.audit import reading, verify
from llm.books.batches.commit import commit_batch
from llm.books.operations import OpenCall, void_close
from llm.db.triggers import drop_triggers, missing_triggers
from llm.enums import AdjustmentSource, CallOutcome, LimitMetric, LimitPer, Meter, UsageSource, UsageStatus
from llm.ids import uuid7
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import ApiKey, BooksCheck, CatalogVersion, LimitWindow, Price, Process, Usage, UsageAdjustment
from llm.prices.staff import set_price
from llm.types import TokenCounts
from tests.books import all_calls, get_call
from tests.llm.books.making import a_close, a_key, adjust_now, an_open

pytestmark = pytest.mark.django_db

COUNTS = TokenCounts(prompt_tokens=9, completion_tokens=4, cache_read_tokens=2)
# 9 tokens of input and 4 of output at 2 and 10 USD per million, the 2 cached at the price of input.
COST_PICO = 9 * 2_000_000 + 4 * 10_000_000
NOT_AS_WRITTEN = "its digest does not match its values: they were changed, or written outside the gateway"


@pytest.fixture(autouse=True)
def _no_triggers(db: None) -> None:
    """Before anything is written: PostgreSQL drops none of a table with rows that are not committed yet."""
    drop_triggers(connection)


@pytest.fixture
def key() -> ApiKey:
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.MONTH, 1_000_000, None)
    set_limit(key.account, key, LimitMetric.COST, LimitPer.TOTAL, 1_000_000, None)
    set_price(
        "openai",
        "upstream-name",
        effective_from=timezone.now(),
        rates={Meter.INPUT: Decimal(2), Meter.OUTPUT: Decimal(10)},
    )
    return key


def opened(key: ApiKey) -> OpenCall:
    ask = ReservationEstimate(requests=1, input_tokens=100, output_tokens=50, input_pico=10**9, output_token_pico=10**7)
    operation = an_open(key, price_id=Price.objects.get().pk, catalog_version=CatalogVersion.current(), ask=lambda: ask)
    commit_batch([operation])
    return operation


@pytest.fixture
def closed(key: ApiKey) -> Usage:
    operation = opened(key)
    price = get_call(operation.id).price
    assert price is not None
    rates = price.rate_sets.get()
    commit_batch([a_close(operation.id, counts=COUNTS, cost_pico=COST_PICO, rate_set_id=rates.pk)])
    return Usage.objects.get(pk=operation.id)


def execute(sql: str, *parameters: str | int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def set_usage(row: Usage, assignments: str) -> None:
    execute(f"UPDATE llm_usage SET {assignments} WHERE id = %s", row.pk.hex if is_sqlite() else str(row.pk))  # noqa: S608


def is_sqlite() -> bool:
    return connection.vendor == "sqlite"


def complaints() -> list[str]:
    """What is found, but for the triggers that these tests do without."""
    return [sentence for sentence in verify().sentences if "trigger" not in sentence]


@pytest.mark.slow
def test_sound_books_have_no_finding(key: ApiKey, closed: Usage) -> None:
    """With a call of each kind: settled, adjusted, void, estimated, and open ones that hold."""
    commit_batch([void_close(opened(key))])
    estimate = a_close(
        opened(key).id,
        status=UsageStatus.ESTIMATED,
        usage_source=UsageSource.ESTIMATED,
        outcome=CallOutcome.CLIENT_GONE,
        counts=COUNTS,
        cost_pico=COST_PICO,
        rate_set_id=closed.rate_set_id,
    )
    commit_batch([estimate])
    adjust_now(
        estimate.id,
        AdjustmentSource.PROVIDER,
        counts=TokenCounts(prompt_tokens=10),
        cost_pico=20_000_000,
        is_billable=True,
        reason="their invoice",
    )
    opened(key)
    assert complaints() == []
    assert verify().rows == 4
    assert {window.held for window in LimitWindow.objects.all()} == {150, 1500}


@pytest.mark.parametrize(
    ("assignments", "finding"),
    [
        ("cost = cost + 1", "its cost is 58000001 pico-USD, but its tokens at its price cost 58000000 pico-USD"),
        ("cost = NULL", "its cost is unknown, but its tokens at its price cost 58000000 pico-USD"),
        ("completion_tokens = 5", "but its tokens at its price cost 68000000 pico-USD"),
        ("rate_set_id = NULL", "its cost was computed with rates"),
        ("price_id = NULL, rate_set_id = NULL", "but its tokens at its price cost unknown"),
    ],
)
def test_a_wrong_row_is_named(closed: Usage, assignments: str, finding: str) -> None:
    set_usage(closed, assignments)
    assert any(sentence.startswith(f"Call {closed.pk}: ") and finding in sentence for sentence in complaints())


def test_a_call_of_another_accounts_key_is_found(closed: Usage) -> None:
    other = a_key("other").account
    set_usage(closed, f"account_id = {other.pk}")
    assert complaints() == [
        f"Call {closed.pk}: its key belongs to another account.",
        f"Call {closed.pk}: {NOT_AS_WRITTEN}.",
    ]


def test_a_change_that_nothing_else_shows_is_found_by_the_digest(closed: Usage) -> None:
    """The row's cost is still that of its tokens, its times and its limits are right."""
    for assignments in ("is_billable = FALSE", "model = 'a cheaper one'", "extra_meters = '{\"web_searches\": 0}'"):
        set_usage(closed, assignments)
        assert complaints() == [f"Call {closed.pk}: {NOT_AS_WRITTEN}."]


def test_a_digest_that_was_changed_itself_is_found(closed: Usage) -> None:
    set_usage(closed, "digest_7 = digest_7 / 2 + 1")
    assert complaints() == [f"Call {closed.pk}: {NOT_AS_WRITTEN}."]


def test_what_the_books_could_not_have_written_is_named_too(closed: Usage) -> None:
    set_usage(closed, f"extra_meters = '{{\"web_searches\": {2**70}}}'")
    assert f"Call {closed.pk}: {NOT_AS_WRITTEN}." in complaints()


def test_an_adjustment_that_was_changed_is_found(closed: Usage) -> None:
    adjustment = adjust_now(
        closed.pk, AdjustmentSource.PROVIDER, counts=COUNTS, cost_pico=COST_PICO, is_billable=True, reason="theirs"
    )
    assert complaints() == []
    execute("UPDATE llm_usageadjustment SET is_billable = FALSE")
    assert complaints() == [
        f"Call {closed.pk}: the digest of its adjustment {adjustment.pk} (provider) does not match its values."
    ]


def test_times_that_run_backwards_are_found(closed: Usage) -> None:
    yesterday = timezone.now() - timedelta(days=1)
    Usage.objects.filter(pk=closed.pk).update(closed_at=yesterday)
    assert complaints() == [f"Call {closed.pk}: it was closed before it was opened, or recorded before it was closed."]


def test_units_that_are_used_without_a_call_are_found(closed: Usage) -> None:
    window = LimitWindow.objects.get(limit__metric=LimitMetric.TOKENS)
    LimitWindow.objects.filter(pk=window.pk).update(used=14)
    assert complaints() == [f"Window {window.pk} ({window}): 14 are used, but its calls used 13."]


def test_a_hold_that_nothing_will_release_is_found(closed: Usage) -> None:
    window = LimitWindow.objects.get(limit__metric=LimitMetric.TOKENS)
    LimitWindow.objects.filter(pk=window.pk).update(held=150)
    assert complaints() == [f"Window {window.pk} ({window}): 150 are reserved, but its open calls reserve 0."]


def test_a_hold_that_was_released_too_early_is_found(key: ApiKey) -> None:
    opened(key)
    window = LimitWindow.objects.get(limit__metric=LimitMetric.COST)
    LimitWindow.objects.filter(pk=window.pk).update(held=0)
    assert complaints() == [f"Window {window.pk} ({window}): 0 are reserved, but its open calls reserve 1500."]


def test_a_window_that_open_calls_hold_and_that_is_gone_is_found(key: ApiKey) -> None:
    opened(key)
    window = LimitWindow.objects.get(limit__metric=LimitMetric.TOKENS)
    execute("DELETE FROM llm_limitwindow WHERE id = %s", window.pk)
    assert complaints() == [f"Window {window.pk} does not exist, but open calls reserve 150 of it."]


def test_windows_of_the_past_may_be_gone(closed: Usage) -> None:
    LimitWindow.objects.all().delete()
    assert complaints() == []


@pytest.mark.slow
def test_an_open_call_that_nobody_will_close_is_found(
    key: ApiKey, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = opened(key)
    settings.LLM_TOTAL_TIMEOUT_SECONDS = 600
    now = datetime.now(UTC)
    monkeypatch.setattr(call_checks, "database_now", lambda: now + timedelta(minutes=69))
    assert complaints() == []
    monkeypatch.setattr(call_checks, "database_now", lambda: now + timedelta(minutes=71))
    assert complaints() == [
        f"Call {operation.id}: it is open, its process has been dead for over an hour, and nothing has closed it."
    ]
    Process.objects.create(
        id=operation.process_id, host="here", pid=1, started_at=now, seen_at=now + timedelta(minutes=70)
    )
    assert complaints() == []


def test_an_attempt_that_is_on_the_books_twice_is_found(key: ApiKey) -> None:
    request = uuid7()
    commit_batch([an_open(key, request_id=request, catalog_version=CatalogVersion.current()) for _ in range(2)])
    assert complaints() == [f"Request {request}: attempt 1 is on the books 2 times."]


def test_adjustments_that_make_no_sense_are_found(key: ApiKey, closed: Usage) -> None:
    voided = opened(key)
    commit_batch([void_close(voided)])
    for usage_id, tokens in ((closed.pk, -10), (voided.id, 0)):
        UsageAdjustment(
            usage_id=usage_id,
            source=AdjustmentSource.PROVIDER,
            prompt_tokens=tokens,
            is_billable=False,
            reason="a bug",
            recorded_at=timezone.now(),
        ).stamp_digest().save()
    # The limit's window follows adjustments, and these went past the books.
    found = [sentence for sentence in complaints() if not sentence.startswith("Window")]
    assert sorted(found) == sorted(
        [
            f"Call {closed.pk}: with its adjustments it has negative tokens or a negative cost.",
            f"Call {voided.id}: it is void but has adjustments.",
        ]
    )


def test_a_trigger_that_is_missing_is_found() -> None:
    assert verify().sentences == [
        f"The database's trigger {name} is missing: run “manage.py migrate”." for name in missing_triggers()
    ]


def test_rows_are_read_in_pieces_and_each_once(key: ApiKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 2)
    for _ in range(5):
        opened(key)
    assert verify().rows == 5
    assert complaints() == []


def test_the_result_is_kept_for_staff_and_the_rest_only_counted(closed: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_FINDINGS", 4)
    monkeypatch.setattr(audit, "KEPT_FINDINGS", 2)
    missing = len(missing_triggers())
    findings = verify()
    check = BooksCheck.objects.get()
    assert (check.rows, check.windows, check.problems) == (1, 2, missing) == (findings.rows, 2, findings.problems)
    assert (len(findings.sentences), check.findings) == (4, findings.sentences[:2])
    assert check.started_at <= check.ended_at


# --- Beside others, and the command -----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_what_happens_meanwhile_is_not_taken_for_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are compared in one state of the database: a call between two reads would look like a broken limit."""
    key = a_key("busy")
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.TOTAL, 100, None)
    ask = ReservationEstimate(requests=1, input_tokens=1, output_tokens=1)
    commit_batch([an_open(key, ask=lambda: ask)])
    snapshot = reading.snapshot

    def open_another() -> None:
        commit_batch([an_open(key, ask=lambda: ask)])
        connection.close()

    @contextmanager
    def snapshot_with_company() -> Iterator[None]:
        with snapshot():
            assert LimitWindow.objects.count() == 1
            thread = threading.Thread(target=open_another)
            thread.start()
            thread.join()
            yield

    monkeypatch.setattr(reading, "snapshot", snapshot_with_company)
    assert complaints() == []
    assert len(all_calls()) == 2


def told() -> str:
    output = StringIO()
    call_command("verify_books", stdout=output)
    return output.getvalue()


def test_the_command_names_what_is_wrong_and_fails(closed: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "problems_of_triggers", list)
    assert told() == "1 call and 2 windows of limits: no problems found.\n"
    set_usage(closed, "cost = cost + 1")
    with pytest.raises(CommandError, match=r"^3 problems in 1 call and 2 windows of limits\.$"):
        told()


def test_what_an_earlier_release_gave_for_nothing_at_a_free_price_is_no_finding(key: ApiKey) -> None:
    """A free price took everything then: rows are never rewritten, so they stay right."""
    free = set_price("openai", "free-model", effective_from=timezone.now(), is_free=True)
    counts = TokenCounts(9, 4, extra_meters={"web_searches": 2})
    for fields in ({"counts": counts}, {"counts": TokenCounts(9, 4), "service_tier": "priority"}):
        operation = an_open(key, price_id=free.pk, catalog_version=CatalogVersion.current())
        commit_batch([operation])
        commit_batch([a_close(operation.id, cost_pico=0, rate_set_id=None, **fields)])
    assert complaints() == []
    row = Usage.objects.latest("id")
    set_usage(row, "cost = 500000000000")
    assert any("its tokens at its price cost unknown" in sentence for sentence in complaints())
