"""Hands jobs from requests to Celery, by task name: the tasks are in a layer above the code that queues them."""

from __future__ import annotations

from django.db import transaction

from llmproject.celery import app


def queue_export(job_id: int) -> None:
    _send("billing.tasks.run_export", job_id)


def queue_month_job(job_id: int) -> None:
    _send("billing.tasks.run_month_job", job_id)


def queue_books_job(job_id: int) -> None:
    _send("billing.tasks.run_books_job", job_id)


def _send(task: str, job_id: int) -> None:
    """Called once the job's row is committed. A lost message is harmless: waiting jobs are also found by query."""
    transaction.on_commit(lambda: app.send_task(task, args=[job_id]), robust=True)
