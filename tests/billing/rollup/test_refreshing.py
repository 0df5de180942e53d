"""Days made from the books: what they hold, and that it is the same however they came to be."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from billing.models import DailyUsage, RollupMark
from billing.periods import BillingPeriod
from billing.rollup import load_usage_sums, lock_rollups, rebuild, refresh, usage_sums
from billing.rollup import sqlite as sqlite_rollup
from billing.types import UsageSum
from billing.verification.recount import count_calls
from llm.audit import Findings
from llm.books.adjusting import decide_call
from llm.books.clock import database_now
from llm.enums import AdjustmentSource, CallOutcome, UsageSource
from llm.models import Account, ApiKey, Usage
from llm.types import TokenCounts
from tests.billing.rollup_histories import (
    Historian,
    cutoffs,
    expected_rows,
    make_rate_set,
    make_rerating,
    rolled_up_rows,
)
from tests.databases import only_on_sqlite
from tests.llm.admin.factories import lost_row, make_account, make_key, open_row, save, usage_row
from tests.llm.books.making import adjust_now

pytestmark = pytest.mark.django_db

DAY = date(2026, 11, 20)
NOVEMBER = BillingPeriod(date(2026, 11, 1))
ZEROS = (0,) * 8


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


def call_now(key: ApiKey, **values: Any) -> Usage:
    return usage_row(key, **{"recorded_at": database_now(), "local_day": DAY, **values})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_refreshes_along_a_history_give_what_the_books_say(seed: int) -> None:
    historian = Historian(seed)
    for calls, corrections in ((60, 0), (10, 15), (0, 10), (25, 5), (0, 0)):
        historian.write(calls, corrections=corrections)
        cutoff = refresh()
        assert rolled_up_rows() == expected_rows(cutoff)
        assert cutoffs() == {cutoff}


@pytest.mark.slow
def test_a_rebuild_gives_the_rows_that_refreshes_gave() -> None:
    historian = Historian(7)
    historian.write(60)
    refresh()
    historian.write(20, corrections=20)
    refresh()
    before = rolled_up_rows()
    days = Usage.objects.order_by().values("account", "local_day").distinct().count()
    DailyUsage.objects.update(calls=99, cost=0)
    assert rebuild(first=date(2026, 10, 1), last=date(2026, 11, 30)) == days
    assert rolled_up_rows() == before


def test_a_rebuild_leaves_days_and_accounts_alone_that_were_not_asked_for(key: ApiKey) -> None:
    other = make_key(make_account("Other"))
    save(call_now(key), call_now(key, local_day=DAY + timedelta(days=1)), call_now(other))
    refresh()
    DailyUsage.objects.update(calls=7)
    assert rebuild(first=DAY, last=DAY, account_ids=[key.account_id]) == 1
    assert list(DailyUsage.objects.order_by("account", "local_day").values_list("account__name", "calls")) == [
        ("Acme", 1),
        ("Acme", 7),
        ("Other", 7),
    ]


def test_a_rebuild_takes_days_away_that_have_no_calls(key: ApiKey) -> None:
    refresh()
    DailyUsage.objects.create(account=key.account, api_key=key, local_day=DAY, provider="openai", model="m", calls=3)
    rebuild(first=DAY, last=DAY)
    assert DailyUsage.objects.count() == 0


def test_a_rebuild_brings_along_what_is_due_on_other_days(key: ApiKey) -> None:
    refresh()
    save(call_now(key))
    rebuild(first=date(2025, 1, 1), last=date(2025, 1, 31))
    assert DailyUsage.objects.get().calls == 1


def test_every_account_has_a_mark_at_the_cutoff_also_one_that_made_no_calls(key: ApiKey) -> None:
    idle = make_account("Idle")
    save(call_now(key))
    first = refresh()
    assert dict(RollupMark.objects.values_list("account", "cutoff_at")) == {key.account_id: first, idle.pk: first}
    second = refresh()
    assert second > first
    assert cutoffs() == {second}


def test_a_refresh_of_one_account_leaves_the_others_where_they_are(key: ApiKey) -> None:
    other = make_key(make_account("Other"))
    save(call_now(key), call_now(other))
    refresh(account_ids=[key.account_id])
    assert list(DailyUsage.objects.values_list("account", flat=True)) == [key.account_id]
    assert list(RollupMark.objects.values_list("account", flat=True)) == [key.account_id]
    refresh()
    assert DailyUsage.objects.count() == 2


def test_a_mark_is_never_moved_back(key: ApiKey) -> None:
    later = database_now() + timedelta(days=1)
    RollupMark.objects.create(account=key.account, cutoff_at=later)
    save(call_now(key))
    refresh()
    rebuild(first=DAY, last=DAY)
    assert RollupMark.objects.get().cutoff_at == later
    assert DailyUsage.objects.count() == 0


def test_a_call_counts_when_it_is_closed_and_void_ones_never(key: ApiKey) -> None:
    save(open_row(key, recorded_at=database_now()))
    save(call_now(key, status="void", outcome="not_sent", prompt_tokens=0, completion_tokens=0, cost=None))
    refresh()
    assert not DailyUsage.objects.with_calls().exists()
    void = DailyUsage.objects.get()
    assert (void.calls, void.is_billable, void.digest_sums) == (0, False, (0,) * 8)


def test_a_call_that_closes_days_later_touches_its_own_day(key: ApiKey) -> None:
    save(call_now(key))
    refresh()
    save(call_now(key, local_day=date(2025, 10, 1)))
    refresh()
    assert list(DailyUsage.objects.order_by("local_day").values_list("local_day", "calls")) == [
        (date(2025, 10, 1), 1),
        (DAY, 1),
    ]


def test_a_lost_call_is_estimated_until_it_is_known(key: ApiKey) -> None:
    row = call_now(key, usage_source=UsageSource.ESTIMATED, cost=Decimal("0.5"))
    save(row)
    refresh()
    day = DailyUsage.objects.get()
    assert (day.estimated_calls, day.estimated_cost) == (1, Decimal("0.5"))
    counts = TokenCounts(prompt_tokens=30, completion_tokens=1)
    adjust_now(row.pk, AdjustmentSource.PROVIDER, counts=counts, cost_pico=10**11, is_billable=True, reason="told")
    refresh()
    day = DailyUsage.objects.get()
    assert (day.calls, day.prompt_tokens, day.completion_tokens, day.cost) == (1, 30, 1, Decimal("0.1"))
    assert (day.estimated_calls, day.estimated_cost) == (0, Decimal(0))


def test_a_decided_call_is_not_estimated_though_the_estimate_was_kept(key: ApiKey) -> None:
    row = lost_row(key, recorded_at=database_now(), local_day=DAY, cost=Decimal("0.5"))
    save(row)
    refresh()
    assert DailyUsage.objects.get().estimated_calls == 1
    decide_call(row.pk, counts=None, is_billable=True, reason="keep it", user=None)
    refresh()
    day = DailyUsage.objects.get()
    assert (day.calls, day.cost, day.estimated_calls, day.estimated_cost) == (1, Decimal("0.5"), 0, Decimal(0))


def test_what_is_declared_unbillable_moves_to_a_row_of_its_own(key: ApiKey) -> None:
    kept, given = call_now(key), call_now(key)
    save(kept, given)
    refresh()
    counts = TokenCounts(prompt_tokens=given.prompt_tokens, completion_tokens=given.completion_tokens)
    adjust_now(given.pk, AdjustmentSource.DECISION, counts=counts, cost_pico=5, is_billable=False, reason="goodwill")
    refresh()
    assert dict(DailyUsage.objects.values_list("is_billable", "calls")) == {True: 1, False: 1}
    assert [sums.calls for sums in usage_sums(key.account_id, NOVEMBER)] == [1]


@pytest.mark.parametrize(
    ("values", "unpriced"),
    [
        ({"cost": None}, 1),
        ({"cost": Decimal(0)}, 0),
        ({"cost": None, "prompt_tokens": 0, "completion_tokens": 0}, 0),
        ({"cost": None, "prompt_tokens": 0, "completion_tokens": 0, "extra_meters": {"web_searches": 1}}, 1),
    ],
)
def test_a_call_is_unpriced_where_something_was_used_at_no_known_price(
    key: ApiKey, values: dict[str, Any], unpriced: int
) -> None:
    save(call_now(key, **values))
    refresh()
    assert DailyUsage.objects.get().unpriced_calls == unpriced


@pytest.mark.parametrize("cost", [Decimal("0.5"), Decimal(0)])
def test_a_call_whose_cost_was_taken_back_is_unpriced_and_of_no_rates(key: ApiKey, cost: Decimal) -> None:
    rate_set = make_rate_set("gpt-test")
    row = call_now(key, cost=cost, rate_set=rate_set, outcome=CallOutcome.LOST, is_billable=False)
    save(row, call_now(key, rate_set=rate_set))
    refresh()
    counts = TokenCounts(prompt_tokens=1)
    adjust_now(row.pk, AdjustmentSource.SPOOL, counts=counts, cost_pico=None, is_billable=True, reason="late")
    refresh()
    unpriced, priced = usage_sums(key.account_id, NOVEMBER)
    assert (unpriced.rate_set_id, unpriced.calls, unpriced.unpriced_calls, unpriced.cost_pico) == (None, 1, 1, 0)
    assert (priced.rate_set_id, priced.calls, priced.unpriced_calls) == (rate_set.pk, 1, 0)
    assert usage_sums_by_hand(key.account_id) == [(None, 1, 0), (rate_set.pk, 0, priced.cost_pico)]

    adjust_now(
        row.pk,
        AdjustmentSource.RERATING,
        counts=counts,
        cost_pico=7,
        is_billable=True,
        reason="priced",
        rate_set_id=rate_set.pk,
        rerating=make_rerating(),
    )
    refresh()
    [sums] = usage_sums(key.account_id, NOVEMBER)
    assert (sums.rate_set_id, sums.unpriced_calls, sums.cost_pico) == (rate_set.pk, 0, priced.cost_pico + 7)


def usage_sums_by_hand(account_id: int) -> list[tuple[int | None, int, int]]:
    """Rates, unpriced calls and cost, counted from the rows."""
    counted = count_calls(account_id, NOVEMBER, database_now(), Findings())
    return sorted(((key[2], sums.unpriced_calls, sums.cost_pico) for key, sums in counted.items()), key=str)[::-1]


def test_a_correction_of_units_alone_without_a_price_is_unpriced(key: ApiKey) -> None:
    row = call_now(key, cost=None, outcome=CallOutcome.LOST, is_billable=False)
    save(row)
    counts = TokenCounts(extra_meters={"web_searches": 1})
    adjust_now(row.pk, AdjustmentSource.SPOOL, counts=counts, cost_pico=None, is_billable=True, reason="late")
    refresh()
    assert DailyUsage.objects.get().unpriced_calls == 1
    assert usage_sums_by_hand(key.account_id) == [(None, 1, 0)]


def test_sums_beyond_64_bits_are_exact(key: ApiKey) -> None:
    most = Decimal("9223372.036854775807")
    save(*(call_now(key, cost=most) for _ in range(12)))
    refresh()
    assert DailyUsage.objects.get().cost == 12 * most
    assert usage_sums(key.account_id, NOVEMBER)[0].cost_pico == 12 * (2**63 - 1)


def test_the_mark_is_the_accounts_cutoff_and_none_before_it_was_rolled_up(key: ApiKey) -> None:
    assert lock_rollups([key.account_id]) == {key.account_id: None}
    cutoff = refresh()
    assert lock_rollups([key.account_id]) == {key.account_id: cutoff}


def test_usage_sums_name_the_rates_that_gave_the_cost(key: ApiKey) -> None:
    rate_set = make_rate_set("gpt-test")
    rows = [call_now(key, rate_set=rate_set), call_now(key, rate_set=rate_set), call_now(key, model="a", cost=None)]
    save(*rows)
    refresh()
    unpriced, priced = usage_sums(key.account_id, NOVEMBER)
    assert priced == UsageSum(
        provider="openai",
        model="gpt-test",
        rate_set_id=rate_set.pk,
        calls=2,
        counts=TokenCounts(prompt_tokens=200, completion_tokens=40),
        cost_pico=600_000_000,
        rates={"input": 2_500_000, "web_searches": 10_000_000_000},
        days=(rows[0].local_day, rows[0].local_day),
        digest=tuple(sum(words) for words in zip(rows[0].digest, rows[1].digest, strict=True)),  # type: ignore[arg-type]  # closed rows have digests
    )
    assert (unpriced.model, unpriced.rate_set_id, unpriced.rates, unpriced.unpriced_calls) == ("a", None, {}, 1)


def test_usage_sums_of_a_period_take_its_first_and_last_day_and_no_other(key: ApiKey) -> None:
    days = (date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 30), date(2026, 12, 1))
    save(*(call_now(key, local_day=day, prompt_tokens=10**number) for number, day in enumerate(days)))
    refresh()
    assert [sums.counts.prompt_tokens for sums in usage_sums(key.account_id, NOVEMBER)] == [110]


def test_usage_sums_of_many_accounts_are_read_together(key: ApiKey, django_assert_num_queries: Any) -> None:
    other, idle = make_key(make_account("Other")), make_account("Idle")
    save(call_now(key), call_now(other, cost=Decimal(2)), call_now(other, rate_set=make_rate_set("gpt-test")))
    refresh()
    # Sums and rates; before them PostgreSQL is given memory.
    with django_assert_num_queries(2 if connection.vendor == "sqlite" else 3):
        found = load_usage_sums([key.account_id, other.account_id, idle.pk], NOVEMBER)
    assert {account_id: len(sums) for account_id, sums in found.items()} == {
        key.account_id: 1,
        other.account_id: 2,
        idle.pk: 0,
    }
    assert found[other.account_id] == usage_sums(other.account_id, NOVEMBER)


@pytest.mark.slow
@pytest.mark.parametrize("rows_at_a_time", [1, 3])
@only_on_sqlite("only SQLite is written piecemeal")
def test_days_written_piecemeal_are_the_same(monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int) -> None:
    monkeypatch.setattr(sqlite_rollup, "ROWS_AT_A_TIME", rows_at_a_time)
    monkeypatch.setattr(sqlite_rollup, "DAYS_AT_A_TIME", 2)
    monkeypatch.setattr(sqlite_rollup, "PAUSE_S", 0)
    historian = Historian(3)
    for calls, corrections in ((40, 0), (10, 15)):
        historian.write(calls, corrections=corrections)
        cutoff = refresh()
        assert rolled_up_rows() == expected_rows(cutoff)
        assert set(RollupMark.objects.values_list("cutoff_at", "rolling_to")) == {(cutoff, None)}


class _KilledError(Exception):
    pass


@only_on_sqlite("only SQLite is written piecemeal")
@pytest.mark.parametrize("writes_before_death", range(5))
def test_an_account_that_was_left_half_written_says_nothing_until_it_is_made_whole(
    key: ApiKey, monkeypatch: pytest.MonkeyPatch, writes_before_death: int
) -> None:
    monkeypatch.setattr(sqlite_rollup, "ROWS_AT_A_TIME", 1)
    monkeypatch.setattr(sqlite_rollup, "PAUSE_S", 0)
    save(*(call_now(key, model=f"model {number}") for number in range(3)))
    before = refresh()
    save(call_now(key, model="late"), call_now(key, local_day=date(2026, 1, 1)))
    written = 0

    def die_in_time(*arguments: Any) -> None:
        nonlocal written
        written += 1
        if written > writes_before_death:
            raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr("billing.rollup.sqlite.time.sleep", die_in_time)
        with pytest.raises(_KilledError):
            refresh()
    assert lock_rollups([key.account_id]) == {key.account_id: None}
    cutoff = refresh()
    assert cutoff > before
    assert lock_rollups([key.account_id]) == {key.account_id: cutoff}
    assert rolled_up_rows() == expected_rows(cutoff)


@only_on_sqlite("only SQLite is written piecemeal")
def test_a_later_cutoff_takes_over_what_is_being_written(key: ApiKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rollup, "ROWS_AT_A_TIME", 1)
    save(*(call_now(key, model=f"model {number}") for number in range(3)))
    pauses: list[float] = []

    def refresh_meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            save(call_now(key, model="late"))
            refresh()

    monkeypatch.setattr("billing.rollup.sqlite.time.sleep", refresh_meanwhile)
    former = refresh()
    [cutoff] = cutoffs()
    assert cutoff is not None
    assert cutoff > former
    assert DailyUsage.objects.count() == 4
    assert rolled_up_rows() == expected_rows(cutoff)


def test_an_account_can_be_made_whole_from_nothing(account_with_rows_but_no_mark: Account) -> None:
    cutoff = refresh()
    assert rolled_up_rows() == expected_rows(cutoff)


@pytest.fixture
def account_with_rows_but_no_mark(key: ApiKey) -> Account:
    save(call_now(key))
    refresh()
    DailyUsage.objects.update(calls=5)
    RollupMark.objects.all().delete()
    return key.account
