"""The nightly check: what was recorded since the last one and a tenth of the older days, in bounded pieces.

Calls are made on days of the past by an id of that day; the books' clock stays the host's.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from llm import tasks
from llm.audit import NIGHTS, Findings, calls, reading, verify, verify_recent
from llm.audit.history import day_of, days_on_books
from llm.books.batches.commit import commit_batch
from llm.db.triggers import drop_triggers
from llm.enums import AdjustmentSource, LimitMetric, LimitPer
from llm.ids import first_id_at
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import ApiKey, BooksCheck, CheckedDay, LimitWindow, OpenCall, Usage, UsageAdjustment
from llm.types import TokenCounts
from tests.llm.books.making import a_close, a_key, adjust_now, an_open

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

FIRST_DAY = date(2026, 1, 1)
COUNTS = TokenCounts(prompt_tokens=9, completion_tokens=4)


@pytest.fixture(autouse=True)
def _no_triggers(db: None) -> None:
    drop_triggers(connection)


@pytest.fixture
def key() -> ApiKey:
    key = a_key()
    for per in (LimitPer.MONTH, LimitPer.TOTAL):
        set_limit(key.account, None, LimitMetric.TOKENS, per, 1_000_000, None)
    return key


def id_of_day(number: int, call: int = 0) -> UUID:
    noon = datetime.combine(FIRST_DAY + timedelta(days=number), datetime.min.time(), UTC) + timedelta(hours=12)
    return UUID(int=first_id_at(noon).int + call)


def open_call(key: ApiKey, usage_id: UUID) -> UUID:
    ask = ReservationEstimate(requests=1, input_tokens=100, output_tokens=50)
    commit_batch([an_open(key, id=usage_id, ask=lambda: ask)])
    return usage_id


def close_call(usage_id: UUID) -> UUID:
    commit_batch([a_close(usage_id, counts=COUNTS, cost_pico=None)])
    return usage_id


def make_days(key: ApiKey, days: int, each: int = 1) -> None:
    for number in range(days):
        for call in range(each):
            close_call(open_call(key, id_of_day(number, call)))


def sentences(findings: Findings) -> list[str]:
    return [sentence for sentence in findings.sentences if "trigger" not in sentence]


def tell(usage_id: UUID) -> list[str]:
    """What the digest of a changed call leads to."""
    written = "its digest does not match its values: they were changed, or written outside the gateway"
    return [f"Call {usage_id}: {written}."]


def forge(usage_id: UUID) -> None:
    Usage.objects.filter(pk=usage_id).update(model="a cheaper one")


def change_with_digest(usage_id: UUID) -> None:
    """Somebody who knows the product redoes the digest of what was changed."""
    row = Usage.objects.get(pk=usage_id)
    row.model = "a cheaper one"
    row.stamp_digest().save()


# --- What is read -----------------------------------------------------------------------------------------------------


def test_the_first_check_reads_everything(key: ApiKey) -> None:
    make_days(key, 5)
    assert verify_recent().rows == 5
    assert BooksCheck.objects.get().scope == "all"
    assert CheckedDay.objects.count() == 5


def test_a_night_reads_what_is_new_and_a_tenth_of_the_older_days(key: ApiKey) -> None:
    make_days(key, 20)
    verify()
    new = close_call(open_call(key, an_open(key).id))

    findings = verify_recent()

    assert sentences(findings) == []
    assert findings.rows == 1 + 20 // NIGHTS
    read = sorted(BooksCheck.objects.first().days.values_list("day", flat=True))  # type: ignore[union-attr]
    assert read == [FIRST_DAY, FIRST_DAY + timedelta(days=1), day_of(new)]


def test_each_older_day_is_read_once_in_ten_nights(key: ApiKey) -> None:
    make_days(key, 20)
    verify()
    for _ in range(NIGHTS):
        verify_recent()
    nights = CheckedDay.objects.filter(books_check__scope="recent")
    assert sorted(nights.values_list("day", flat=True)) == list(days_on_books())


def test_what_was_changed_in_an_older_day_is_found_within_ten_nights(key: ApiKey) -> None:
    make_days(key, 20)
    verify()
    forge(id_of_day(19))
    nights = [sentences(verify_recent()) for _ in range(NIGHTS)]
    assert nights == [[]] * (NIGHTS - 1) + [tell(id_of_day(19))]


def test_what_was_found_once_is_named_every_night(key: ApiKey) -> None:
    make_days(key, 20)
    verify()
    change_with_digest(id_of_day(0))
    told = [f"Calls of {FIRST_DAY}: rows differ from an earlier check."]
    assert [sentences(verify_recent()) for _ in range(3)] == [told] * 3
    assert sentences(verify()) == told


def test_a_day_with_a_wrong_call_is_read_every_night(key: ApiKey) -> None:
    make_days(key, 20)
    forge(id_of_day(15))
    assert sentences(verify()) == tell(id_of_day(15))
    assert [sentences(verify_recent()) for _ in range(2)] == [tell(id_of_day(15))] * 2


def test_calls_that_are_gone_are_missed_the_next_night(key: ApiKey) -> None:
    make_days(key, 20, each=2)
    verify()
    LimitWindow.objects.all().delete()
    Usage.objects.filter(pk=id_of_day(18)).delete()
    Usage.objects.filter(pk__in=[id_of_day(19), id_of_day(19, 1)]).delete()
    told = {
        f"Calls of {FIRST_DAY + timedelta(days=18)}: there are 1, but there were 2 at an earlier check.",
        f"Calls of {FIRST_DAY + timedelta(days=19)}: there are 0, but there were 2 at an earlier check.",
    }
    assert told <= set(sentences(verify_recent()))
    assert told <= set(sentences(verify_recent()))


def test_an_open_call_that_is_gone_is_missed(key: ApiKey) -> None:
    make_days(key, 3)
    open_call(key, id_of_day(1, 7))
    verify()
    LimitWindow.objects.all().delete()
    OpenCall.objects.filter(pk=id_of_day(1, 7)).delete()
    told = f"Calls of {FIRST_DAY + timedelta(days=1)}: there are 1, but there were 2 at an earlier check."
    assert sentences(verify()) == sentences(verify_recent()) == [told]


def test_a_call_that_was_put_in_later_is_found(key: ApiKey) -> None:
    make_days(key, 2)
    verify()
    forged = Usage.objects.get(pk=id_of_day(0))
    forged.pk, forged.request_id, forged.holds = id_of_day(0, 5), id_of_day(0, 5), None
    forged.stamp_digest().save(force_insert=True)
    assert sentences(verify()) == [f"Calls of {FIRST_DAY}: rows differ from an earlier check."]


def test_what_closes_late_is_read_the_next_night(key: ApiKey) -> None:
    """Its day is among the older ones."""
    make_days(key, 20)
    open_call(key, id_of_day(18, 3))
    verify()
    close_call(id_of_day(18, 3))
    forge(id_of_day(18, 3))
    assert sentences(verify_recent()) == tell(id_of_day(18, 3))


def test_a_correction_is_read_the_next_night(key: ApiKey) -> None:
    make_days(key, 20)
    verify()
    correct(id_of_day(17), TokenCounts(prompt_tokens=50))
    UsageAdjustment.objects.update(reason="another")
    [sentence] = sentences(verify_recent())
    assert sentence.startswith(f"Call {id_of_day(17)}: the digest of its adjustment")


def correct(usage_id: UUID, counts: TokenCounts) -> None:
    adjust_now(
        usage_id, AdjustmentSource.PROVIDER, counts=counts, cost_pico=None, is_billable=True, reason="their invoice"
    )


# --- Limits -----------------------------------------------------------------------------------------------------------


def total() -> LimitWindow:
    return LimitWindow.objects.get(limit__per=LimitPer.TOTAL)


def test_limits_are_counted_on_from_the_last_check(key: ApiKey) -> None:
    """Through a late close, a correction of an older call, and calls that are open across a check."""
    make_days(key, 12)
    open_call(key, id_of_day(3, 1))
    verify()
    close_call(id_of_day(3, 1))
    correct(id_of_day(5), TokenCounts(prompt_tokens=50))
    open_call(key, an_open(key).id)
    assert sentences(verify_recent()) == []
    for _ in range(3):
        close_call(open_call(key, an_open(key).id))
        assert sentences(verify_recent()) == []
    assert (total().used, total().held) == (15 * 13 + 50, 150)
    assert BooksCheck.objects.first().used[str(total().pk)] == total().used  # type: ignore[union-attr]


def test_a_limit_that_was_changed_is_named_every_night(key: ApiKey) -> None:
    make_days(key, 12)
    verify()
    LimitWindow.objects.filter(pk=total().pk).update(used=3)
    told = [f"Window {total().pk} ({total()}): 3 are used, but its calls used 156."]
    assert [sentences(verify_recent()) for _ in range(2)] == [told] * 2


def test_a_limit_that_is_new_is_counted_from_nothing(key: ApiKey) -> None:
    make_days(key, 2)
    verify()
    set_limit(key.account, key, LimitMetric.REQUESTS, LimitPer.TOTAL, 1_000, None)
    close_call(open_call(key, an_open(key).id))
    assert sentences(verify_recent()) == []
    assert sentences(verify()) == []


# --- How it is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_pieces_of_any_size_find_the_same(key: ApiKey, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(reading, "CHUNK", chunk)
    make_days(key, 3, each=3)
    assert verify().rows == 9
    correct(id_of_day(0), TokenCounts(prompt_tokens=50))
    close_call(open_call(key, an_open(key).id))
    assert sentences(verify_recent()) == []
    forge(id_of_day(0, 1))
    assert tell(id_of_day(0, 1))[0] in sentences(verify())


def test_no_statement_reads_more_calls_than_a_piece(key: ApiKey, monkeypatch: pytest.MonkeyPatch) -> None:
    make_days(key, 2, each=5)
    monkeypatch.setattr(reading, "CHUNK", 3)
    sizes = []
    problems = calls.CallChecks.problems

    def count(self: calls.CallChecks, rows: list[Usage], *others: Any) -> Iterator[str]:
        sizes.append(len(rows))
        return problems(self, rows, *others)

    monkeypatch.setattr(calls.CallChecks, "problems", count)
    verify()
    assert sizes == [3, 2, 3, 2]


def test_days_are_bounded_where_an_id_is_no_time(key: ApiKey) -> None:
    far = [UUID(int=2**128 - 1), UUID(int=2**128 - 2**90), UUID(int=5)]
    for usage_id in far:
        close_call(open_call(key, usage_id))
    assert list(days_on_books()) == [date(1970, 1, 1), date(9998, 12, 31)]
    assert verify().rows == 3
    assert sentences(verify_recent()) == []


def test_what_claims_to_be_recorded_in_the_future_is_read(key: ApiKey) -> None:
    make_days(key, 2)
    Usage.objects.filter(pk=id_of_day(1)).update(recorded_at=datetime(2200, 1, 1, tzinfo=UTC), model="x")
    assert tell(id_of_day(1))[0] in sentences(verify())


# --- Who runs it ------------------------------------------------------------------------------------------------------


def test_the_nightly_task_reads_what_is_new(key: ApiKey) -> None:
    make_days(key, 20)
    verify()
    tasks.verify_books()
    assert BooksCheck.objects.first().rows == 20 // NIGHTS  # type: ignore[union-attr]


def test_the_command_reads_everything_unless_it_is_told(key: ApiKey) -> None:
    make_days(key, 20)
    for arguments, rows in (((), 20), (("--recent",), 2), ((), 20)):
        with pytest.raises(CommandError, match=rf" problems in {rows} calls and 2 windows"):
            call_command("verify_books", *arguments, stdout=StringIO())
    with pytest.raises(CommandError, match="omit --recent"):
        call_command("verify_books", "--recent", "--month", "2026-10")
