"""Brings the rollups up to date with the books, and rebuilds days. Never call it in a transaction: it has its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, datetime

from django.db import connection

from billing.rollup import postgresql, sqlite
from billing.rollup.refresh_plan import RefreshPlan, plan_to
from billing.rollup.summaries import mark_all_stale, summarise
from llm.books.clock import take_cutoff

OnProgress = Callable[[int, int], None]
"""Called with (done, total)."""


def refresh(*, account_ids: Collection[int] | None = None) -> datetime:
    """Bring the rollups of these accounts (None: all) up to a cutoff, which it returns.

    Any number of processes may do this concurrently, and die at any moment: each account's mark says how far it is. On
    return, each account has reached the cutoff or gone past it, or (SQLite) another process is bringing it further.
    Days are summed up over all accounts only if all were requested: for one it would take too long.
    Raises OperationalError if no cutoff could be taken.
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
    """Delete the days from `first` to `last` and rebuild them from the books, together with any that are due.

    Gives exactly the rows that `refresh` gives. Returns how many account-days were rebuilt; an account that had none is
    built whole and counts as one.
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
