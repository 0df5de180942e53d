"""Usage summed by day, kept up to date with the books.

A row of `DailyUsage` is a function only of the books and the account's cutoff: of all calls closed, and all adjustments
recorded, up to it. So a day is never added to; it is deleted and rebuilt whole, in the transaction that moves the
account's mark. Doing that twice, concurrently or only half changes nothing.

Usage of all accounts is summed up a second time, by day and model, account or key: see `summaries`.
"""

from billing.rollup.calls import CallKey, ChosenCalls, GroupOfCalls, count_calls, sum_calls
from billing.rollup.labelled import CallsOfDays, LabelledSums, sum_by_label
from billing.rollup.reading import (
    load_rate_sets,
    load_rates,
    load_usage_sums,
    lock_rollups,
    room_for_sums,
    usage_sums,
)
from billing.rollup.refresh_plan import FIRST_DAY
from billing.rollup.refreshing import rebuild, refresh
from billing.rollup.summaries import days_summed_wrongly, rows_with

__all__ = (
    "FIRST_DAY",
    "CallKey",
    "CallsOfDays",
    "ChosenCalls",
    "GroupOfCalls",
    "LabelledSums",
    "count_calls",
    "days_summed_wrongly",
    "load_rate_sets",
    "load_rates",
    "load_usage_sums",
    "lock_rollups",
    "rebuild",
    "refresh",
    "room_for_sums",
    "rows_with",
    "sum_by_label",
    "sum_calls",
    "usage_sums",
)
