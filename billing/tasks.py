"""What Celery runs for billing: each task calls one function, which finds its work by query or loads it by id."""

from __future__ import annotations

import structlog
from celery import shared_task

from billing import closing, exporting, rollup

_log = structlog.get_logger("billing.tasks")


@shared_task(ignore_result=True)
def refresh_rollups() -> None:
    """Usage by day, up to now."""
    rollup.refresh()


@shared_task(ignore_result=True)
def close_due_months() -> None:
    """Drafts of the months that have ended where their accounts are."""
    report = closing.close_due_months()
    if report.drafted or report.failed:
        _log.info("months closed", drafted=len(report.drafted), failed=len(report.failed))


@shared_task(ignore_result=True)
def run_export(job_id: int) -> None:
    exporting.run_export(job_id)


@shared_task(ignore_result=True)
def run_waiting_exports() -> None:
    """Exports whose message was lost, or whose worker was killed."""
    exporting.run_waiting()
