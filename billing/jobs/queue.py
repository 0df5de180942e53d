"""Jobs that a request hands to Celery: named, not imported, for tasks stand above what queues them."""

from __future__ import annotations

from django.db import transaction

from llmproject.celery import app


def queue_export(job_id: int) -> None:
    _send("billing.tasks.run_export", job_id)


def queue_month_job(job_id: int) -> None:
    _send("billing.tasks.run_month_job", job_id)


def _send(task: str, job_id: int) -> None:
    """Once the job's row is committed. A message that can't be sent is no failure: waiting jobs are looked for too."""
    transaction.on_commit(lambda: app.send_task(task, args=[job_id]), robust=True)
