"""The base of every Celery task: it logs in a line why it couldn't run, and doesn't kill workers for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from celery import Task
from celery.exceptions import Ignore
from django.db import Error, transaction
from django.utils import timezone

_log = structlog.get_logger("llmproject.jobs")

FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(hours=24)
_MAX_DOUBLINGS = 13
"""From the first pause to the longest."""


class BackgroundTask(Task):
    """A job finds its work by query: what it can't do while the database is unavailable the next one does. Not an
    error.

    max_starts: how often workers start a task of the beat table in a row without finishing it before the pauses
    between its starts begin to grow, since it may be what kills them. None for tasks that count their own attempts.
    """

    abstract = True
    max_starts: int | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Imported late: this module is loaded before Django's settings.
        from llm.trail.actor import Actor, acting

        try:
            if self.request.called_directly:
                return self._run_counted(*args, **kwargs)
            with acting(Actor(via=f"task {self.name}")):
                return self._run_counted(*args, **kwargs)
        except Error as error:
            from llm.db.outages import Outage, outage_of

            outage = outage_of(error)
            if outage in (None, Outage.NOT_MIGRATED) or self.request.called_directly:
                raise
            _log.warning("database.unavailable", during="job", job=self.name, reason=outage)
            raise Ignore from error

    def _run_counted(self, *args: Any, **kwargs: Any) -> Any:
        if self.max_starts is None or self.request.called_directly:
            return super().__call__(*args, **kwargs)
        if not note_start(self.name, self.max_starts):
            _log.error("task.never_finishes", job=self.name, starts=self.max_starts)
            raise Ignore
        try:
            return super().__call__(*args, **kwargs)
        finally:
            note_end(self.name)


@transaction.atomic
def note_start(name: str, max_starts: int) -> bool:
    """Count a start before it happens, so that one that kills its worker counts too. False if the task is paused."""
    from llm.models import ScheduledTask

    now = timezone.now()
    task, is_new = ScheduledTask.objects.select_for_update().get_or_create(name=name, defaults={"started_at": now})
    if not is_new and now - task.started_at < _pause_after(task.attempts, max_starts):
        return False
    task.started_at, task.attempts = now, min(task.attempts + 1, max_starts + _MAX_DOUBLINGS)
    task.save()
    return True


def _pause_after(attempts: int, max_starts: int) -> timedelta:
    """15, 30, 60 ... seconds after `max_starts`, one more, two more starts without an end; at most a day."""
    if attempts < max_starts:
        return timedelta(0)
    return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(attempts - max_starts, _MAX_DOUBLINGS)))


def note_end(name: str) -> None:
    """Also for a failed task: its worker lives, and the log says why."""
    from llm.models import ScheduledTask

    ScheduledTask.objects.filter(name=name).update(attempts=0, ended_at=timezone.now())
