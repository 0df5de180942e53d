"""What every Celery task is: one that says in a line why it could not be done where the database is away."""

from __future__ import annotations

from typing import Any

import structlog
from celery import Task
from celery.exceptions import Ignore
from django.db import Error

_log = structlog.get_logger("llmproject.jobs")


class Job(Task):
    """A job finds its work by query: what it can't do while the database is away the next one does. No error."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except Error as error:
            # Not before: this module is loaded before Django's settings are.
            from llm.outages import Outage, outage_of

            outage = outage_of(error)
            if outage in (None, Outage.NOT_MIGRATED) or self.request.called_directly:
                raise
            _log.warning("database unavailable for a job", job=self.name, reason=outage)
            raise Ignore from error
