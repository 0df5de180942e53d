"""What Celery runs for billing: each task calls one function, which finds its work by query or loads it by id."""

from __future__ import annotations

import structlog
from celery import shared_task

from billing import closing, exporting, monthjobs, rollup

_log = structlog.get_logger("billing.tasks")


@shared_task(ignore_result=True)
def refresh_rollups() -> None:
    """Usage by day, up to now."""
    rollup.refresh()


@shared_task(ignore_result=True)
def close_due_months() -> None:
    """Drafts of the months that have ended where their accounts are."""
    report = closing.close_due_months()
    if report.drafted or report.credited or report.failed:
        counts = {"drafted": len(report.drafted), "credited": len(report.credited), "failed": len(report.failed)}
        _log.info("months closed", **counts)


@shared_task(ignore_result=True)
def run_export(job_id: int) -> None:
    exporting.run_export(job_id)


@shared_task(ignore_result=True)
def run_month_job(job_id: int) -> None:
    monthjobs.run_month_job(job_id)


@shared_task(ignore_result=True)
def run_waiting_exports() -> None:
    """Exports whose message was lost, or whose worker was killed."""
    exporting.run_waiting()


@shared_task(ignore_result=True)
def run_waiting_month_jobs() -> None:
    """The same of closings and checks: of their own, for an export may take hours."""
    monthjobs.run_waiting()
