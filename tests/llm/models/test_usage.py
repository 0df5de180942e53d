"""What the database itself refuses to have on the books, whoever writes, and how it finds the few rows that matter."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet

from llm.db.json_rows import moment_text
from llm.db.triggers import drop_triggers
from llm.digests import DIGEST_FIELDS
from llm.enums import CallOutcome, UsageStatus
from llm.models import ApiKey, OpenCall, Usage
from llm.models.usage import find_call, merge_calls
from llm.types import TOKEN_FIELDS
from tests.llm.admin.factories import NOON, lost_row, make_account, make_key, open_row, save, usage_row

pytestmark = pytest.mark.django_db


# (what is changed of a settled call, which constraint refuses that)
PARTS = "usage_parts_within_totals"
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"status": "paid"}, "usage_status_known"),
    ({"status": ""}, "usage_status_known"),
    ({"usage_source": "guess"}, "usage_source_known"),
    *(({name: -1}, "usage_tokens_not_negative") for name in TOKEN_FIELDS),
    ({"cache_read_tokens": 101}, "usage_parts_within_totals"),
    ({"audio_input_tokens": 101}, "usage_parts_within_totals"),
    ({"reasoning_tokens": 21}, "usage_parts_within_totals"),
    ({"audio_output_tokens": 21}, "usage_parts_within_totals"),
    ({"cost": Decimal("-0.000000000001")}, "usage_cost_not_negative"),
    ({"is_disputed": True}, "usage_in_doubt_not_billable"),
    ({"outcome": "lost"}, "usage_in_doubt_not_billable"),
    ({"closed_at": None}, "usage_open_or_closed"),
    ({"outcome": "pending"}, "usage_open_or_closed"),
    ({"status": "open"}, "usage_open_or_closed"),
    ({"outcome": "fine"}, "usage_outcome_known"),
    ({"dialect": "klingon"}, "usage_dialect_known"),
    ({"cache_read_tokens": 60, "cache_write_5m_tokens": 30, "cache_write_1h_tokens": 20}, PARTS),
    ({"status": "void", "prompt_tokens": 0, "completion_tokens": 0}, "usage_void_is_empty"),
    ({"status": "void"}, "usage_void_is_empty"),
    ({"status": "void", "prompt_tokens": 0}, "usage_void_is_empty"),
    ({"status": "void", "completion_tokens": 0}, "usage_void_is_empty"),
    *(({name: None}, "usage_with_digest_once_closed") for name in DIGEST_FIELDS),
    (dict.fromkeys(DIGEST_FIELDS), "usage_with_digest_once_closed"),
]
EACH_IMPOSSIBLE = pytest.mark.parametrize(
    ("changes", "constraint"),
    IMPOSSIBLE,
    ids=["-".join(f"{name}={value}" for name, value in changes.items()) for changes, _ in IMPOSSIBLE],
)


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


def row_of(key: ApiKey, **changes: Any) -> Usage:
    row = usage_row(key)
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
def test_what_is_impossible_is_not_inserted(key: ApiKey, changes: dict[str, Any], constraint: str) -> None:
    drop_triggers(connection)
    with pytest.raises(IntegrityError) as refusal, transaction.atomic():
        row_of(key, **changes).save(force_insert=True)
    assert refused_by(refusal) in names_of(constraint, changes)
    assert Usage.objects.count() == 0


@pytest.mark.slow
@EACH_IMPOSSIBLE
def test_what_is_impossible_is_not_made_by_sql(key: ApiKey, changes: dict[str, Any], constraint: str) -> None:
    # They refuse most of it too, but here the constraints are asked.
    drop_triggers(connection)
    save(row_of(key))
    before = Usage.objects.values().get()
    assignments = ", ".join(f"{name} = %s" for name in changes)
    with pytest.raises(IntegrityError) as refusal, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE llm_usage SET {assignments}", [stored(value) for value in changes.values()])  # noqa: S608
    assert refused_by(refusal) in names_of(constraint, changes)
    assert Usage.objects.values().get() == before


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cost": None},
        {"cost": Decimal(0), "prompt_tokens": 0, "completion_tokens": 0},
        {"status": "estimated", "usage_source": "estimated", "outcome": "client_gone"},
        {"status": "void", "prompt_tokens": 0, "completion_tokens": 0, "cost": Decimal(0)},
        {"cache_read_tokens": 100, "audio_input_tokens": 100, "reasoning_tokens": 20},
        {**dict.fromkeys(TOKEN_FIELDS, 2**62), "cache_write_5m_tokens": 0, "cache_write_1h_tokens": 0},
        {"cache_read_tokens": 50, "cache_write_5m_tokens": 30, "cache_write_1h_tokens": 20},
        {"cost": Decimal("9223372.036854775807")},
    ],
)
def test_what_is_possible_is_kept_as_it_is(key: ApiKey, changes: dict[str, Any]) -> None:
    save(row_of(key, **changes))
    assert {name: value for name, value in Usage.objects.values().get().items() if name in changes} == changes


def test_an_unknown_dialect_is_refused_at_open_since_the_close_would_be(key: ApiKey) -> None:
    with pytest.raises(IntegrityError) as refusal, transaction.atomic():
        save(open_row(key, dialect="klingon"))
    assert refused_by(refusal) == "opencall_dialect_known"


def test_whatever_an_open_call_holds_fits_into_the_row_of_the_closed_one() -> None:
    """A close that the database rejects would lose the usage."""
    closed = {field.attname: field for field in Usage._meta.concrete_fields}
    for field in OpenCall._meta.concrete_fields:
        same = closed[field.attname]
        assert (type(same), same.max_length, same.null) == (type(field), field.max_length, field.null)


def test_an_open_call_is_shown_as_a_row_without_figures(key: ApiKey) -> None:
    [call] = save(open_row(key, tags={"team": "search"}, request_bytes=7))
    row = call.as_usage()
    assert (row.pk, row.status, row.outcome, row.total_tokens, row.cost) == (call.pk, "open", "pending", 0, None)
    assert (row.tags, row.request_bytes, row.account, list(row.adjustments.all())) == (
        {"team": "search"},
        7,
        key.account,
        [],
    )
    with pytest.raises(IntegrityError), transaction.atomic():
        row.save(force_insert=True)
    assert Usage.objects.count() == 0


def test_a_call_is_found_whether_it_is_open_or_closed(key: ApiKey) -> None:
    opened, closed = save(open_row(key), usage_row(key))
    found = [
        find_call(pk, closed=Usage.objects.all(), opened=OpenCall.objects.all())
        for pk in (opened.pk, closed.pk, uuid4())
    ]
    assert [None if call is None else (call.pk, call.status) for call in found] == [
        (opened.pk, "open"),
        (closed.pk, "settled"),
        None,
    ]


def test_calls_of_both_tables_are_one_list_even_if_one_is_closed_meanwhile(key: ApiKey) -> None:
    rows = save(*(usage_row(key, opened_at=NOON.replace(minute=minute)) for minute in (1, 5)))
    [opened] = save(open_row(key, opened_at=NOON.replace(minute=3)))
    twice = open_row(key, id=rows[1].id)
    merged = merge_calls([opened, twice], rows)
    assert [(call.pk, call.status) for call in merged] == [
        (rows[1].pk, "settled"),
        (opened.pk, "open"),
        (rows[0].pk, "settled"),
    ]


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
        "priced": usage_row(key),
        "free": usage_row(key, cost=Decimal(0)),
        "unpriced": usage_row(key, cost=None),
        "unpriced estimate": usage_row(key, cost=None, status=UsageStatus.ESTIMATED),
        "void": usage_row(key, cost=None, status=UsageStatus.VOID, outcome=CallOutcome.NOT_SENT, **nothing),
    }
    save(*rows.values())
    return rows


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
    save(*(usage_row(key, cost=None) for _ in range(3)))
    save(*(lost_row(key) for _ in range(2)), usage_row(key, is_disputed=True, is_billable=False))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE llm_usage")


@pytest.mark.slow
@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("rows", "index"),
    [
        (Usage.objects.never_priced(), "usage_unpriced"),
        (Usage.objects.undecided(), "usage_in_doubt"),
    ],
    ids=["unpriced", "undecided"],
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
