"""Brings the rollups up to the books, and makes days anew. Never inside a transaction: each account's is its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, datetime

from django.db import connection

from billing.rollup import postgresql, sqlite
from billing.rollup.refresh_plan import RefreshPlan, plan_to
from billing.rollup.summaries import mark_all_stale, summarise
from llm.books.clock import take_cutoff

OnProgress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


def refresh(*, account_ids: Collection[int] | None = None) -> datetime:
    """Bring the rollups of these accounts (None: all) up to a cutoff, which it returns.

    Any number of processes may do this at once, and end at any moment: each account's mark tells how far it is. When
    this returns an account is as far, or further, or (SQLite) somebody else is bringing it further.
    Days are summed up over all accounts only where all were asked for: for one it would take too long.
    Raises OperationalError where no cutoff was to be had.
    """
    cutoff = take_cutoff()
    _carry_out(plan_to(cutoff, account_ids=account_ids))
    if account_ids is None:
        summarise()
    return cutoff


def rebuild(
    *,
    first: date,
    last: date,
    account_ids: Collection[int] | None = None,
    on_progress: OnProgress | None = None,
) -> int:
    """Throw the days from `first` to `last` away and make them anew from the books; what is due is made too.

    Gives the very rows that `refresh` gives. Returns how many days of accounts were made; an account that never had
    any is made whole and counts as one.
    """
    cutoff = take_cutoff()
    mark_all_stale(first, last)
    made = _carry_out(plan_to(cutoff, account_ids=account_ids, anew=(first, last)), on_progress)
    summarise()
    return made


def _carry_out(plan: RefreshPlan, on_progress: OnProgress | None = None) -> int:
    carrying_out = sqlite.carry_out(plan) if connection.vendor == "sqlite" else postgresql.carry_out(plan)
    done = 0
    for number in carrying_out:
        done += number
        if on_progress is not None:
            on_progress(done, plan.size)
    return done
