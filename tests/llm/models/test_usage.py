"""What the database itself refuses to have on the books, whoever writes, and how it finds the few rows that matter."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet

from llm.db.json_rows import moment_text
from llm.db.triggers import drop_triggers
from llm.digests import DIGEST_FIELDS
from llm.enums import CallOutcome, UsageStatus
from llm.models import ApiKey, Usage
from llm.types import TOKEN_FIELDS
from tests.llm.admin.factories import NOON, lost_row, make_account, make_key, open_row, save, usage_row

pytestmark = pytest.mark.django_db

SETTLED, OPEN = "settled", "open"
CENT = Decimal("0.01")

# (which row, what is changed of it, which constraint refuses that)
PARTS = "usage_parts_within_totals"
IMPOSSIBLE: list[tuple[str, dict[str, Any], str]] = [
    (SETTLED, {"status": "paid"}, "usage_status_known"),
    (SETTLED, {"status": ""}, "usage_status_known"),
    (SETTLED, {"usage_source": "guess"}, "usage_source_known"),
    *((SETTLED, {name: -1}, "usage_tokens_not_negative") for name in TOKEN_FIELDS),
    (SETTLED, {"cache_read_tokens": 101}, "usage_parts_within_totals"),
    (SETTLED, {"audio_input_tokens": 101}, "usage_parts_within_totals"),
    (SETTLED, {"reasoning_tokens": 21}, "usage_parts_within_totals"),
    (SETTLED, {"audio_output_tokens": 21}, "usage_parts_within_totals"),
    (SETTLED, {"cost": Decimal("-0.000000000001")}, "usage_cost_not_negative"),
    (SETTLED, {"is_disputed": True}, "usage_in_doubt_not_billable"),
    (SETTLED, {"outcome": "lost"}, "usage_in_doubt_not_billable"),
    (SETTLED, {"closed_at": None}, "usage_open_or_closed"),
    (SETTLED, {"outcome": "pending"}, "usage_open_or_closed"),
    (SETTLED, {"status": "open"}, "usage_open_or_closed"),
    (OPEN, {"closed_at": NOON}, "usage_open_or_closed"),
    (OPEN, {"cost": CENT}, "usage_open_or_closed"),
    (OPEN, {"cost": Decimal(0)}, "usage_open_or_closed"),
    (OPEN, {"outcome": "ok"}, "usage_open_or_closed"),
    (OPEN, {"prompt_tokens": 1}, "usage_open_or_closed"),
    (SETTLED, {"outcome": "fine"}, "usage_outcome_known"),
    (SETTLED, {"dialect": "klingon"}, "usage_dialect_known"),
    (SETTLED, {"cache_read_tokens": 60, "cache_write_5m_tokens": 30, "cache_write_1h_tokens": 20}, PARTS),
    (SETTLED, {"status": "void", "prompt_tokens": 0, "completion_tokens": 0}, "usage_void_is_empty"),
    (OPEN, {"status": "settled"}, "usage_open_or_closed"),
    (SETTLED, {"status": "void"}, "usage_void_is_empty"),
    (SETTLED, {"status": "void", "prompt_tokens": 0}, "usage_void_is_empty"),
    (SETTLED, {"status": "void", "completion_tokens": 0}, "usage_void_is_empty"),
    *((SETTLED, {name: None}, "usage_with_digest_once_closed") for name in DIGEST_FIELDS),
    *((OPEN, {name: 7}, "usage_with_digest_once_closed") for name in DIGEST_FIELDS),
    (SETTLED, dict.fromkeys(DIGEST_FIELDS), "usage_with_digest_once_closed"),
    (OPEN, dict.fromkeys(DIGEST_FIELDS, 7), "usage_with_digest_once_closed"),
    (OPEN, {"status": "settled", "outcome": "ok", "closed_at": NOON}, "usage_with_digest_once_closed"),
]
EACH_IMPOSSIBLE = pytest.mark.parametrize(
    ("kind", "changes", "constraint"),
    IMPOSSIBLE,
    ids=[f"{kind}-{'-'.join(f'{name}={value}' for name, value in changes.items())}" for kind, changes, _ in IMPOSSIBLE],
)


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


def row_of(kind: str, key: ApiKey, **changes: Any) -> Usage:
    row = (open_row if kind == OPEN else usage_row)(key)
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def names_of(constraint: str, changes: dict[str, Any]) -> set[str]:
    """A total below zero is below its parts too: whichever is checked first says no."""
    totals = {"prompt_tokens": -1, "completion_tokens": -1}
    return {constraint, "usage_parts_within_totals"} if changes.items() <= totals.items() else {constraint}


def refused_by(error: pytest.ExceptionInfo[IntegrityError]) -> str:
    """The constraint's name, out of either database's message."""
    first_line = str(error.value).splitlines()[0]
    return first_line.rsplit('constraint "', 1)[-1].rstrip('"').rsplit("failed: ", 1)[-1]


def stored(value: Any) -> Any:
    """As the column holds it."""
    if isinstance(value, Decimal):
        return int(value.scaleb(12))
    return moment_text(value, connection.vendor) if isinstance(value, datetime) else value


@EACH_IMPOSSIBLE
def test_what_is_impossible_is_not_inserted(key: ApiKey, kind: str, changes: dict[str, Any], constraint: str) -> None:
    with pytest.raises(IntegrityError) as refusal, transaction.atomic():
        row_of(kind, key, **changes).save(force_insert=True)
    assert refused_by(refusal) in names_of(constraint, changes)
    assert Usage.objects.count() == 0


@pytest.mark.slow
@EACH_IMPOSSIBLE
def test_what_is_impossible_is_not_made_by_sql(
    key: ApiKey, kind: str, changes: dict[str, Any], constraint: str
) -> None:
    # They refuse most of it too, but here the constraints are asked.
    drop_triggers(connection)
    save(row_of(kind, key))
    before = Usage.objects.values().get()
    assignments = ", ".join(f"{name} = %s" for name in changes)
    with pytest.raises(IntegrityError) as refusal, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE llm_usage SET {assignments}", [stored(value) for value in changes.values()])  # noqa: S608
    assert refused_by(refusal) in names_of(constraint, changes)
    assert Usage.objects.values().get() == before


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (OPEN, {}),
        (SETTLED, {}),
        (SETTLED, {"cost": None}),
        (SETTLED, {"cost": Decimal(0), "prompt_tokens": 0, "completion_tokens": 0}),
        (SETTLED, {"status": "estimated", "usage_source": "estimated", "outcome": "client_gone"}),
        (SETTLED, {"status": "void", "prompt_tokens": 0, "completion_tokens": 0, "cost": Decimal(0)}),
        (SETTLED, {"cache_read_tokens": 100, "audio_input_tokens": 100, "reasoning_tokens": 20}),
        (SETTLED, {**dict.fromkeys(TOKEN_FIELDS, 2**62), "cache_write_5m_tokens": 0, "cache_write_1h_tokens": 0}),
        (SETTLED, {"cache_read_tokens": 50, "cache_write_5m_tokens": 30, "cache_write_1h_tokens": 20}),
        (SETTLED, {"cost": Decimal("9223372.036854775807")}),
    ],
)
def test_what_is_possible_is_kept_as_it_is(key: ApiKey, kind: str, changes: dict[str, Any]) -> None:
    save(row_of(kind, key, **changes))
    assert {name: value for name, value in Usage.objects.values().get().items() if name in changes} == changes


def test_a_call_is_on_the_books_once(key: ApiKey) -> None:
    [row] = save(usage_row(key))
    with pytest.raises(IntegrityError), transaction.atomic():
        usage_row(key, id=row.id, prompt_tokens=7).save(force_insert=True)
    assert Usage.objects.get().prompt_tokens == 100


# --- Finding rows -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(key: ApiKey) -> dict[str, Usage]:
    nothing = {"prompt_tokens": 0, "completion_tokens": 0}
    rows = {
        "open": open_row(key),
        "priced": usage_row(key),
        "free": usage_row(key, cost=Decimal(0)),
        "unpriced": usage_row(key, cost=None),
        "unpriced estimate": usage_row(key, cost=None, status=UsageStatus.ESTIMATED),
        "void": usage_row(key, cost=None, status=UsageStatus.VOID, outcome=CallOutcome.NOT_SENT, **nothing),
    }
    save(*rows.values())
    return rows


def test_open_rows_are_those_without_an_end(ledger: dict[str, Usage]) -> None:
    assert list(Usage.objects.open()) == [ledger["open"]]


def test_unpriced_rows_are_closed_ones_that_used_something_of_unknown_price(ledger: dict[str, Usage]) -> None:
    assert set(Usage.objects.unpriced()) == {ledger["unpriced"], ledger["unpriced estimate"]}
    assert {name for name, row in ledger.items() if row.is_unpriced} == {"unpriced", "unpriced estimate"}


def test_all_tokens_are_input_and_output(key: ApiKey) -> None:
    assert usage_row(key, cache_read_tokens=60, reasoning_tokens=5).total_tokens == 120


def test_the_newest_call_comes_first(key: ApiKey) -> None:
    rows = save(*(usage_row(key, opened_at=NOON.replace(minute=minute)) for minute in (5, 1, 9)))
    assert list(Usage.objects.all()) == [rows[2], rows[0], rows[1]]


@pytest.fixture
def many(key: ApiKey) -> None:
    """Many closed and priced calls, and three of each kind that is searched for."""
    save(*(usage_row(key) for _ in range(3000)))
    save(*(open_row(key) for _ in range(3)), *(usage_row(key, cost=None) for _ in range(3)))
    save(*(lost_row(key) for _ in range(2)), usage_row(key, is_disputed=True, is_billable=False))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE llm_usage")


@pytest.mark.slow
@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("rows", "index"),
    [
        (Usage.objects.open(), "usage_open"),
        (Usage.objects.open().order_by("id"), "usage_open"),
        (Usage.objects.never_priced(), "usage_unpriced"),
        (Usage.objects.undecided(), "usage_in_doubt"),
    ],
    ids=["open", "oldest open", "unpriced", "undecided"],
)
def test_the_few_rows_that_need_somebody_are_found_without_reading_the_others(
    rows: QuerySet[Usage], index: str
) -> None:
    assert rows.count() == 3
    assert_reads_few(rows, index)


@pytest.mark.usefixtures("many")
def test_calls_whose_cost_was_taken_back_are_looked_for_among_those_in_doubt() -> None:
    assert not Usage.objects.cost_taken_back().exists()
    assert_reads_few(Usage.objects.cost_taken_back(), "usage_in_doubt")


def assert_reads_few(rows: QuerySet[Usage], index: str) -> None:
    plan = rows.explain()
    assert index in plan
    assert "Seq Scan on llm_usage " not in plan
    assert "SCAN llm_usage\n" not in plan + "\n"
