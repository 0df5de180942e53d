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

PAUSE = timedelta(hours=24)
"""After that many starts without an end, a task is started once per this time: memory or data may have changed."""


class BackgroundTask(Task):
    """A job finds its work by query: what it can't do while the database is unavailable the next one does. Not an
    error.

    max_starts: for tasks of the beat table, how often workers start it without it finishing, before it is paused for
    PAUSE: it kills them. None for tasks whose jobs count their own attempts.
    """

    abstract = True
    max_starts: int | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._run_counted(*args, **kwargs)
        except Error as error:
            # Imported late: this module is loaded before Django's settings.
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
    if not is_new and task.attempts >= max_starts and now - task.started_at < PAUSE:
        return False
    task.started_at, task.attempts = now, min(task.attempts + 1, max_starts)
    task.save()
    return True


def note_end(name: str) -> None:
    """Also for a failed task: its worker lives, and the log says why."""
    from llm.models import ScheduledTask

    ScheduledTask.objects.filter(name=name).update(attempts=0, ended_at=timezone.now())
