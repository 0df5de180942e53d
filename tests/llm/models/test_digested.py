"""What the books have written is, read back from the database, what its digest says, however it was closed."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Sum
from django.utils import timezone

from llm.books.adjusting import decide_call
from llm.books.batches.commit import commit_batch
from llm.books.operations import Closed, void_close
from llm.books.reaper import reap
from llm.digests import DIGEST_FIELDS, ClosedFacts, OpenedFacts, digest_hex
from llm.enums import AdjustmentSource, CallOutcome, Dialect, Meter, UsageSource, UsageStatus
from llm.models import ApiKey, CatalogVersion, Usage, UsageAdjustment
from llm.prices.staff import set_price
from llm.types import TokenCounts
from tests.llm.admin.factories import NOON, lost_row, open_row, save, usage_row
from tests.llm.books.making import a_close, a_key, adjust_now, an_open

pytestmark = pytest.mark.django_db

COUNTS = TokenCounts(100, 50, 10, 5, 3, 7, 2, 1, {"web_searches": 2, "images": 1})
CLOSES: list[dict[str, Any]] = [
    {},
    {"counts": COUNTS, "cost_pico": 2**63 - 1, "service_tier": "flex"},
    {"counts": TokenCounts(2**62, 2**62), "cost_pico": 0},
    {"cost_pico": None, "is_billable": False, "is_disputed": True, "disputed_usage": {"prompt_tokens": -1.5}},
    {"status": UsageStatus.ESTIMATED, "usage_source": UsageSource.DRAINED, "outcome": CallOutcome.CLIENT_GONE},
    {"status": UsageStatus.VOID, "outcome": CallOutcome.NOT_SENT, "counts": TokenCounts(), "cost_pico": 0},
    {
        "flags": ("tier_unpriced", "priced_as_reported", "tier_unpriced"),
        "upstream_cost_pico": 2**63 - 1,
        "speed": "fast",
        "inference_geo": "us",
    },
    {"counts": TokenCounts(extra_meters={"ünits “x” \\": 3, "A": 2**53 + 1, "a": 0})},
]
OPENS: list[dict[str, Any]] = [
    {},
    {"attempt": 3, "dialect": Dialect.ANTHROPIC_MESSAGES},
    {"model": 'naïve ✓ 🦙 "quoted" \\ /', "upstream_model": " x/y ", "provider": "ours"},
    {"provider_instance": "main", "end_user": "0f" * 16, "tags": {"z": "ünits", "a “x”": "1", "B": ""}},
]


@pytest.fixture
def key() -> ApiKey:
    return a_key()


@pytest.mark.parametrize("closing", CLOSES)
@pytest.mark.parametrize("opening", OPENS)
def test_a_row_closed_after_its_open_is_what_its_digest_says(
    key: ApiKey, opening: dict[str, Any], closing: dict[str, Any]
) -> None:
    operation = an_open(key, **opening)
    commit_batch([operation])
    assert commit_batch([a_close(operation.id, **closing)]) == [Closed()]
    row = Usage.objects.get()
    assert row.digest == row.computed_digest()
    assert row.is_as_written


@pytest.mark.slow
@pytest.mark.parametrize("closing", CLOSES)
@pytest.mark.parametrize("opening", OPENS)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
def test_a_row_closed_with_its_open_is_what_its_digest_says(
    key: ApiKey, opening: dict[str, Any], closing: dict[str, Any], zone: str
) -> None:
    key.account.time_zone = zone
    key.account.save()
    operation = an_open(key, **opening)
    commit_batch([operation, a_close(operation.id, **closing)])
    row = Usage.objects.get()
    assert row.digest == row.computed_digest()


def test_a_priced_row_is_what_its_digest_says(key: ApiKey) -> None:
    meters = {Meter.INPUT: Decimal(2), Meter.OUTPUT: Decimal(10)}
    price = set_price("openai", "upstream-name", effective_from=timezone.now(), rates=meters)
    rates = price.rate_sets.get()
    operation = an_open(key, price_id=price.pk, catalog_version=CatalogVersion.current())
    commit_batch([operation])
    commit_batch([a_close(operation.id, rate_set_id=rates.pk)])
    row = Usage.objects.get()
    assert (row.price_id, row.rate_set_id) == (price.pk, rates.pk)
    assert row.is_as_written


def test_the_books_hold_what_a_call_says_of_itself(key: ApiKey) -> None:
    operation = an_open(key, provider_instance="main", end_user="0f" * 16, tags={"team": "search"})
    flags = ("tier_unpriced", "priced_as_reported", "tier_unpriced")
    closing = {"flags": flags, "upstream_cost_pico": 17, "speed": "fast", "inference_geo": "us"}
    commit_batch([operation])
    assert commit_batch([a_close(operation.id, **closing)]) == [Closed()]
    assert commit_batch([a_close(operation.id, **closing)]) == [Closed(is_new=False)]
    row = Usage.objects.get()
    assert (row.provider_instance, row.end_user, row.tags) == ("main", "0f" * 16, {"team": "search"})
    assert (row.flags, row.upstream_cost) == ("priced_as_reported tier_unpriced", Decimal("0.000000000017"))
    assert (row.speed, row.inference_geo, row.digest_version) == ("fast", "us", 2)


def test_an_instance_without_a_name_has_its_providers(key: ApiKey) -> None:
    operation = an_open(key, provider="openai")
    commit_batch([operation, a_close(operation.id)])
    row = Usage.objects.get()
    assert (row.provider_instance, row.end_user, row.tags, row.flags) == ("openai", "", {}, "")
    assert row.upstream_cost is None


def version_1(row: Usage) -> Usage:
    """As a row that was written before there was a version 2."""
    row.digest_version = 1
    for name, word in zip(DIGEST_FIELDS, row.computed_digest(), strict=True):
        setattr(row, name, word)
    return row


def test_a_row_of_version_1_is_what_its_digest_says(key: ApiKey) -> None:
    [row] = save(version_1(usage_row(key, service_tier="flex", extra_meters={"images": 1})))
    stored = Usage.objects.get()
    assert (stored.digest_version, stored.is_as_written) == (1, True)
    assert stored.digest != usage_row(key, id=row.pk, request_id=row.request_id).digest
    stored.speed = "fast"
    assert not stored.is_as_written
    stored.speed, stored.digest_version = "", 2
    assert not stored.is_as_written


def test_rows_of_one_batch_have_each_its_own_digest(key: ApiKey) -> None:
    early, late, voided = an_open(key), an_open(key, attempt=2), an_open(key, is_stillborn=True)
    commit_batch([early])
    commit_batch([a_close(late.id), late, a_close(early.id, cost_pico=1), voided, void_close(voided)])
    rows = list(Usage.objects.all())
    assert len({row.digest for row in rows}) == 3
    assert all(row.is_as_written for row in rows)


@pytest.mark.django_db(transaction=True)
def test_so_is_a_row_that_the_gateway_writes_in_a_transaction_of_its_own() -> None:
    """There PostgreSQL gets the statements of a trip together, and answers them in another way."""
    key = a_key()
    early, late = an_open(key), an_open(key)
    commit_batch([early])
    commit_batch([late, a_close(late.id), a_close(early.id, counts=COUNTS)])
    rows = list(Usage.objects.all())
    assert [row.status for row in rows] == ["settled", "settled"]
    assert all(row.is_as_written for row in rows)


def test_a_replay_and_a_conflict_leave_the_digest(key: ApiKey) -> None:
    operation = an_open(key)
    commit_batch([operation, a_close(operation.id)])
    before = Usage.objects.get().digest
    commit_batch([operation, a_close(operation.id)])
    commit_batch([a_close(operation.id, cost_pico=1)])
    assert Usage.objects.get().digest == before


def test_what_the_reaper_closes_is_what_its_digest_says(key: ApiKey) -> None:
    save(open_row(key, opened_at=timezone.now() - timedelta(days=1), request_bytes=400))
    assert reap(at_once=True).reaped == 1
    row = Usage.objects.get()
    assert (row.outcome, row.prompt_tokens, row.is_as_written) == (CallOutcome.LOST, 100, True)


@pytest.mark.parametrize("moment", [NOON, NOON.replace(microsecond=1), NOON.replace(microsecond=120000)])
def test_a_fraction_of_a_second_comes_back_whatever_its_length(key: ApiKey, moment: datetime) -> None:
    save(usage_row(key, opened_at=moment))
    row = Usage.objects.get()
    assert row.opened_at == moment
    assert row.is_as_written


# --- Adjustments ------------------------------------------------------------------------------------------------------


def test_an_adjustment_is_what_its_digest_says(key: ApiKey, admin_user: User) -> None:
    [decided, late, corrected] = save(lost_row(key, cost=None), lost_row(key), usage_row(key))
    reason = "„Their“ invoice,\r\nline 2: \\ \t 🦙"
    decide_call(decided.pk, counts=COUNTS, is_billable=True, reason=reason, user=admin_user)
    commit_batch([a_close(late.pk)])
    adjust_now(
        corrected.pk,
        AdjustmentSource.PROVIDER,
        counts=TokenCounts(prompt_tokens=90, completion_tokens=21),
        cost_pico=1,
        is_billable=False,
        reason="their report",
    )
    adjustments = list(UsageAdjustment.objects.all())
    assert {each.source for each in adjustments} == {"decision", "spool", "provider"}
    assert [each.decided_by_id for each in adjustments if each.source == "decision"] == [admin_user.pk]
    assert len({each.digest for each in adjustments}) == 3
    assert [each.digest for each in adjustments] == [each.computed_digest() for each in adjustments]


@pytest.mark.parametrize("name", DIGEST_FIELDS)
def test_no_adjustment_is_without_a_digest(key: ApiKey, name: str) -> None:
    [row] = save(usage_row(key))
    adjustment = UsageAdjustment(usage=row, source="provider", is_billable=True, reason="x", recorded_at=NOON)
    setattr(adjustment.stamp_digest(), name, None)
    with pytest.raises(IntegrityError, match="usageadjustment_has_digest"), transaction.atomic():
        adjustment.save()
    assert not UsageAdjustment.objects.exists()


# --- By somebody else, and of sets ------------------------------------------------------------------------------------


def plain(name: str, value: Any) -> Any:
    """A value as the documentation wants it written, from what either database's driver returns."""
    if name in ("id", "request_id"):
        return str(UUID(value) if isinstance(value, str) else value)
    if name == "opened_at":
        return f"{value:%Y-%m-%dT%H:%M:%S.%f}+00:00"
    if isinstance(value, date):
        return value.isoformat()
    return json.loads(value) if name in ("extra_meters", "tags") else value


def test_anybody_can_recompute_a_digest_from_the_table(key: ApiKey) -> None:
    operation = an_open(key, model="naïve ✓")
    commit_batch([operation])
    commit_batch([a_close(operation.id, counts=COUNTS)])
    names = [*OpenedFacts._fields, *ClosedFacts._fields]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(names)} FROM llm_usage")  # noqa: S608
        [values] = cursor.fetchall()
    written = ["usage/2", *map(plain, names, values)]
    text = json.dumps(written, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    [words] = Usage.objects.values_list(*DIGEST_FIELDS)
    assert hashlib.sha256(text.encode()).hexdigest() == digest_hex(words)


def sums(**narrowing: Any) -> list[int]:
    closed = Usage.objects.exclude(status=UsageStatus.OPEN).filter(**narrowing)
    return list(closed.aggregate(**{name: Sum(name) for name in DIGEST_FIELDS}).values())


def test_the_database_sums_the_digests_of_any_set(key: ApiKey) -> None:
    rows = save(*(usage_row(key, model=f"m{number % 3}", prompt_tokens=number) for number in range(300)))
    save(open_row(key))
    expected = [sum(words) for words in zip(*(row.computed_digest() for row in rows), strict=True)]
    assert sums() == expected
    parts = [sums(model=f"m{number}") for number in range(3)]
    assert [sum(words) for words in zip(*parts, strict=True)] == expected
    assert len({digest_hex(each) for each in (*parts, expected)}) == 4


def test_sums_stay_exact_where_all_words_are_as_large_as_they_can_be(key: ApiKey) -> None:
    rows = [usage_row(key) for _ in range(4)]
    for row, word in zip(rows, (-(2**31), -(2**31), -(2**31), 2**31 - 1), strict=True):
        for name in DIGEST_FIELDS:
            setattr(row, name, word)
    save(*rows)
    assert sums() == [-(2**32) - 1] * 8
    found = Usage.objects.values("local_day").annotate(rows=Count("id"), first=Sum("digest_0"))
    assert list(found) == [{"local_day": datetime(2026, 11, 20, tzinfo=UTC).date(), "rows": 4, "first": -(2**32) - 1}]
