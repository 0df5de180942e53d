"""Jobs that a request hands to Celery: named, not imported, for tasks stand above what queues them."""

from __future__ import annotations

from django.db import transaction

from llmproject.celery import app


def queue_export(job_id: int) -> None:
    """Once the job's row is committed. A message that can't be sent is no failure: waiting jobs are looked for too."""

    def send() -> None:
        app.send_task("billing.tasks.run_export", args=[job_id])

    transaction.on_commit(send, robust=True)
