"""Days summed up over all accounts: whatever happens, reports say what the rows of days add up to."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from types import ModuleType
from typing import Any

import pytest

from billing.models import AccountDay, DailyUsage, KeyDay, KeyThird, ModelDay, StaleDay
from billing.models.rollups import COST_FIELDS, COUNT_FIELDS, TIME_FIELDS
from billing.periods import Third
from billing.rollup import days_summed_wrongly, rebuild, refresh, summaries
from billing.rollup import sqlite as sqlite_rollup
from billing.rollup.summaries import Summary, summarise
from llm.books.clock import database_now
from llm.models import ApiKey
from tests.billing.factories import make_account
from tests.billing.reported import UsageQuestion, added_by_hand, reported, usage_report
from tests.billing.rollup_histories import DAYS, FIRST_DAY, Historian
from tests.databases import only_on_sqlite
from tests.llm.admin.factories import make_key, save, usage_row

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)
OTHER_DAY = FIRST_DAY + timedelta(days=4)
"""In another third of a month: it is summed up in a transaction of its own."""
ALL = UsageQuestion(FIRST_DAY, LAST_DAY)
PIECES = ((sqlite_rollup, "_insert"), (sqlite_rollup, "_delete"))


class _KilledError(Exception):
    pass


class Chronicle:
    """What may happen to the rollups, one after the other at random: also that somebody is killed in the middle."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.historian = Historian(seed)
        self.random = self.historian.random
        self.monkeypatch = monkeypatch

    def go_on(self) -> None:
        self.historian.write(self.random.randrange(12), corrections=self.random.randrange(4))
        self.random.choice((refresh, self.refresh_one, self.rebuild, summarise, self.die_refreshing))()

    def refresh_one(self) -> None:
        refresh(account_ids=[self.random.choice(self.historian.keys).account_id])

    def rebuild(self) -> None:
        first = FIRST_DAY + timedelta(days=self.random.randrange(DAYS))
        account_ids = self.random.choice((None, [self.random.choice(self.historian.keys).account_id]))
        rebuild(first=first, last=LAST_DAY, account_ids=account_ids)

    def die_refreshing(self) -> None:
        with self.monkeypatch.context() as patch, suppress(_KilledError):
            die_after(self.random.randrange(6), patch, *PIECES, (summaries, "_insert_sql"))
            refresh()


def some_questions(chance: random.Random) -> list[UsageQuestion]:
    first = FIRST_DAY + timedelta(days=chance.randrange(DAYS))
    key = chance.choice(ApiKey.objects.order_by("id"))
    return [
        ALL,
        replace(ALL, first=first),
        replace(ALL, last=first, provider="openai"),
        replace(ALL, model="small", provider=chance.choice((None, "anthropic"))),
        replace(ALL, account_id=key.account_id, model=chance.choice((None, "large"))),
        replace(ALL, api_key_id=key.pk),
        UsageQuestion(date(2026, 10, chance.choice((1, 11, 21, 25))), date(2026, 11, chance.choice((5, 10, 20)))),
    ]


def die_after(times: int, patch: pytest.MonkeyPatch, *functions: tuple[ModuleType, str]) -> None:
    """Where one of these functions is called, once they were called so often."""
    left = times

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise _KilledError
            left -= 1
            return function(*arguments, **named)

        return call

    for module, name in functions:
        patch.setattr(module, name, dying(getattr(module, name)))


@pytest.mark.parametrize("seed", range(3))
def test_reports_are_what_rows_of_days_add_up_to_whatever_happens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_piecemeal(monkeypatch, rows=5)
    monkeypatch.setattr(sqlite_rollup, "DAYS_AT_A_TIME", 3)
    chronicle = Chronicle(seed, monkeypatch)
    for _ in range(8):
        chronicle.go_on()
        for question in some_questions(chronicle.random):
            assert reported(question) == added_by_hand(question)
        assert days_summed_wrongly(FIRST_DAY, LAST_DAY) == []
    refresh()
    assert StaleDay.objects.count() == 0
    assert reported(ALL) == added_by_hand(ALL)
    groups: Mapping[Summary, Sequence[str]] = {
        ModelDay: ("local_day", "provider", "model", "provider_instance", "outcome_group"),
        AccountDay: ("local_day", "account_id", "is_billable"),
        KeyDay: ("local_day", "account_id", "api_key_id"),
    }
    for summary, group in groups.items():
        assert sums_of(summary, *group) == sums_of_rows(*group)
    assert sums_of(KeyThird, *groups[KeyDay]) == sums_of_rows(*groups[KeyDay], of_day=lambda day: Third.of(day).first)


def sums_of(model: Summary, *group: str) -> dict[Any, list[Any]]:
    rows = model.objects.all()
    found = {tuple(getattr(row, name) for name in group): figures_of(row) for row in rows}
    assert len(found) == len(rows)
    return found


def sums_of_rows(*group: str, of_day: Callable[[date], date] = lambda day: day) -> dict[Any, list[Any]]:
    """of_day: the day that a day's rows are added to."""
    rows: dict[Any, list[list[Any]]] = defaultdict(list)
    for row in DailyUsage.objects.all():
        row.local_day = of_day(row.local_day)
        rows[tuple(getattr(row, name) for name in group)].append(figures_of(row))
    return {name: [sum(column) for column in zip(*figures, strict=True)] for name, figures in rows.items()}


def figures_of(row: Any) -> list[Any]:
    """All columns that are summed, also those that no report shows."""
    return [getattr(row, name) for name in (*COUNT_FIELDS, *COST_FIELDS, *TIME_FIELDS)]


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


def call_on(key: ApiKey, day: date, *models: str) -> None:
    save(*(usage_row(key, local_day=day, recorded_at=database_now(), model=model) for model in models))


@pytest.mark.parametrize("sums_before_death", range(8))
def test_who_is_killed_summing_up_leaves_right_reports_and_the_next_refresh_ends_the_work(
    key: ApiKey, monkeypatch: pytest.MonkeyPatch, sums_before_death: int
) -> None:
    call_on(key, FIRST_DAY, "a")
    refresh()
    for day in (FIRST_DAY, OTHER_DAY):
        call_on(key, day, "b")
    with monkeypatch.context() as patch:
        die_after(sums_before_death, patch, (summaries, "_insert_sql"))  # Each day four times.
        with pytest.raises(_KilledError):
            refresh()
    assert stale_days() == ({FIRST_DAY, OTHER_DAY} if sums_before_death < 4 else {OTHER_DAY})
    assert reported(ALL) == added_by_hand(ALL)
    assert usage_report(ALL).total.calls == 3
    refresh()
    assert stale_days() == set()
    assert reported(ALL) == added_by_hand(ALL)
    assert days_summed_wrongly(FIRST_DAY, LAST_DAY) == []


def stale_days() -> set[date]:
    return {*StaleDay.objects.values_list("local_day", flat=True)}


@only_on_sqlite("only SQLite is written piecemeal")
@pytest.mark.parametrize("writes_before_death", range(8))
def test_each_piece_that_is_written_says_that_its_days_are_stale(
    key: ApiKey, monkeypatch: pytest.MonkeyPatch, writes_before_death: int
) -> None:
    write_piecemeal(monkeypatch)
    call_on(key, FIRST_DAY, "a", "b", "c")
    refresh()
    call_on(key, FIRST_DAY, "d")
    with monkeypatch.context() as patch:
        die_after(writes_before_death, patch, *PIECES)
        with pytest.raises(_KilledError):
            refresh()
    assert reported(ALL) == added_by_hand(ALL)
    assert days_summed_wrongly(FIRST_DAY, LAST_DAY) == []


def write_piecemeal(monkeypatch: pytest.MonkeyPatch, *, rows: int = 1) -> None:
    monkeypatch.setattr(sqlite_rollup, "ROWS_AT_A_TIME", rows)
    for module in (sqlite_rollup, summaries):
        monkeypatch.setattr(module, "PAUSE_S", 0)


@only_on_sqlite("only SQLite is written piecemeal")
def test_days_that_are_summed_up_between_two_pieces_are_stale_again(
    key: ApiKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_piecemeal(monkeypatch)
    call_on(key, FIRST_DAY, "a", "b", "c")
    original, sums = sqlite_rollup._claimed, []

    def claimed(task: Any) -> Any:
        summarise()
        assert days_summed_wrongly(FIRST_DAY, LAST_DAY) == []
        sums.append(ModelDay.objects.count())
        return original(task)

    monkeypatch.setattr(sqlite_rollup, "_claimed", claimed)
    refresh(account_ids=[key.account_id])
    assert sums == [0, 0, 1, 2, 3, 3]  # The last piece is that of end users.
