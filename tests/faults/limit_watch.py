"""Whether limits hold while calls are under way: looked up again and again, in one snapshot of the database each time.

What is used and held is taken from the windows, and once more from the calls themselves.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from django.db import connection

from llm.audit.reading import snapshot
from llm.models import Limit, LimitWindow, OpenCall, Usage
from tests.faults.budgets import units_used

_PAUSE_S = 0.1


class LimitWatch:
    """A context manager with a thread of its own. problems: a sentence for each overspent limit, each time."""

    def __init__(self) -> None:
        self.samples = 0
        self.fullest = 0.0
        self.problems: list[str] = []
        self._is_stopping = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="limit-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopping.set()
        self._thread.join()
        self.look()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._is_stopping.is_set():
                started = time.monotonic()
                self.look()
                # A large run is looked at more seldom: looking may not become the load.
                self._is_stopping.wait(max(_PAUSE_S, 3 * (time.monotonic() - started)))
        except Exception as error:  # noqa: BLE001  # told by whoever waits for the thread
            self._failure = error
        finally:
            connection.close()

    def look(self) -> None:
        with snapshot():
            limits = Limit.objects.in_bulk()
            windows = LimitWindow.objects.in_bulk()
            opened = list(OpenCall.objects.values_list("holds", flat=True))
            rows = list(
                Usage.objects.only("holds", "status", "prompt_tokens", "completion_tokens", "cost", "is_billable")
            )
        taken: Counter[int] = Counter()
        for holds in opened:
            for window_id, held in holds or ():
                taken[window_id] += held
        for row in rows:
            for window_id, held in row.holds or ():
                metric = limits[windows[window_id].limit_id].metric
                taken[window_id] += units_used(row, metric, held)
        for window in windows.values():
            amount = limits[window.limit_id].amount
            if window.taken > amount or taken[window.pk] != window.taken:
                self.problems.append(
                    f"limit {window.limit_id}: {window.used} used and {window.held} held by its window, "
                    f"{taken[window.pk]} by its calls, of {amount}"
                )
            self.fullest = max(self.fullest, window.taken / amount)
        self.samples += 1
