"""What calls have used and hold of limits, summed independently of the windows in the books."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce

from llm.audit.reading import CHUNK
from llm.books.figures import compute_figures
from llm.enums import LimitPer
from llm.limits.changes import LONGEST_PERIODS
from llm.models import LimitWindow, OpenCall, Usage, UsageAdjustment

LATER = datetime(9999, 1, 1, tzinfo=UTC)
"""After everything recorded."""


class WindowSums:
    """since: where a former audit has counted up to, and `base` what it had counted by then. None: count everything.

    Windows that were over by `since` are then left out; what they hold is counted anyway.
    """

    def __init__(self, since: datetime | None, base: Mapping[str, int]) -> None:
        self._since = since
        self._used: defaultdict[int, int] = defaultdict(int, {int(pk): used for pk, used in base.items()})
        self._held: defaultdict[int, int] = defaultdict(int)
        self._metrics: dict[int, str | None] = {}

    def add_closed(
        self,
        rows: Sequence[Usage],
        adjustments: Mapping[UUID, Sequence[UsageAdjustment]],
        since: datetime | None,
        until: datetime,
    ) -> None:
        """What was recorded of these calls after `since` and up to `until`."""
        self._load_metrics(rows)
        for row in rows:
            if row.holds:
                self._add(row, adjustments.get(row.pk, ()), since, until)

    def add_open(self, rows: Sequence[OpenCall]) -> None:
        for row in rows:
            for window_id, held in row.holds or ():
                self._held[window_id] += held

    def used_by_window(self) -> dict[str, int]:
        """Counted so far, as `base` of a later audit."""
        return {str(pk): used for pk, used in self._used.items()}

    def problems(self) -> Iterator[tuple[int, list[str]]]:
        """How many windows were compared, and problems, in batches."""
        found: set[int] = set()
        for windows in _chunks(self._compared()):
            found.update(window.pk for window in windows)
            yield len(windows), [sentence for window in windows for sentence in self._find_problems(window)]
        gone = [(pk, held) for pk, held in self._held.items() if held and pk not in found]
        yield 0, [f"Window {pk} does not exist, but open calls reserve {held} of it." for pk, held in gone]

    def _compared(self) -> QuerySet[LimitWindow]:
        windows = LimitWindow.objects.select_related("limit", "end_user_limit")
        if self._since is None:
            return windows
        return windows.filter(going_on_at(self._since) | ~Q(held=0) | Q(pk__in=list(self._held)))

    def _find_problems(self, window: LimitWindow) -> Iterator[str]:
        held, used = self._held.get(window.pk, 0), self._used.get(window.pk, 0)
        if window.held != held:
            yield f"Window {window.pk} ({window}): {window.held} are reserved, but its open calls reserve {held}."
        if window.used != used and (self._since is None or _may_go_on_at(window, self._since)):
            yield f"Window {window.pk} ({window}): {window.used} are used, but its calls used {used}."

    def _add(self, row: Usage, adjustments: Sequence[UsageAdjustment], since: datetime | None, until: datetime) -> None:
        is_new = since is None or row.recorded_at > since
        if not is_new and not any(each.recorded_at > since for each in adjustments if since is not None):
            return
        after = compute_figures(row, [each for each in adjustments if each.recorded_at <= until])
        before = None
        if since is not None and not is_new:
            before = compute_figures(row, [each for each in adjustments if each.recorded_at <= since])
        for window_id, held in row.holds or ():
            if (metric := self._metrics[window_id]) is not None:
                self._used[window_id] += after.units_used(metric, held)
                self._used[window_id] -= 0 if before is None else before.units_used(metric, held)

    def _load_metrics(self, rows: Sequence[Usage]) -> None:
        unknown = {window_id for row in rows for window_id, _ in row.holds or ()} - self._metrics.keys()
        if not unknown:
            return
        self._metrics |= dict.fromkeys(unknown)
        counted = Q() if self._since is None else going_on_at(self._since)
        windows = LimitWindow.objects.filter(counted, pk__in=unknown).order_by()
        self._metrics |= dict(windows.values_list("pk", Coalesce("limit__metric", "end_user_limit__metric")))


def going_on_at(moment: datetime) -> Q:
    """Windows that had not ended by then, or not long before."""
    condition = _is_per(LimitPer.TOTAL)
    for per, longest in LONGEST_PERIODS.items():
        condition |= _is_per(per) & Q(starts_at__gt=moment - longest)
    return condition


def _is_per(per: LimitPer) -> Q:
    return Q(limit__per=per) | Q(end_user_limit__per=per)


def _may_go_on_at(window: LimitWindow, moment: datetime) -> bool:
    longest = LONGEST_PERIODS.get(LimitPer(window.governing_limit.per))
    return longest is None or window.starts_at > moment - longest


def _chunks(windows: QuerySet[LimitWindow]) -> Iterator[list[LimitWindow]]:
    windows = windows.order_by("pk")
    last = 0
    while rows := list(windows.filter(pk__gt=last)[:CHUNK]):
        last = rows[-1].pk
        yield rows
