"""What Celery runs for billing: each task calls one function, which finds its work by query or loads it by id."""

from __future__ import annotations

import structlog
from celery import shared_task

from billing import rollup
from billing.invoices import closing, review
from billing.jobs import books, exports, months
from llm.models.processes import MAX_STARTS

_log = structlog.get_logger("billing.tasks")


@shared_task(name="billing.tasks.refresh_rollups", ignore_result=True, max_starts=MAX_STARTS)
def refresh_rollups() -> None:
    """Usage by day, up to now."""
    rollup.refresh()


@shared_task(name="billing.tasks.close_due_months", ignore_result=True, max_starts=MAX_STARTS)
def close_due_months() -> None:
    """Drafts of the months that have ended where their accounts are."""
    report = closing.close_due_months()
    if report.drafted or report.credited or report.failed:
        counts = {"drafted": len(report.drafted), "credited": len(report.credited), "failed": len(report.failed)}
        _log.info("invoices.months_closed", **counts)


@shared_task(name="billing.tasks.run_export", ignore_result=True)
def run_export(job_id: int) -> None:
    exports.run_export(job_id)


@shared_task(name="billing.tasks.run_month_job", ignore_result=True)
def run_month_job(job_id: int) -> None:
    months.run_month_job(job_id)


@shared_task(name="billing.tasks.run_books_job", ignore_result=True)
def run_books_job(job_id: int) -> None:
    books.run_books_job(job_id)


@shared_task(name="billing.tasks.run_waiting_exports", ignore_result=True)
def run_waiting_exports() -> None:
    """Exports whose message was lost, or whose worker was killed."""
    exports.run_waiting()


@shared_task(name="billing.tasks.run_waiting_month_jobs", ignore_result=True)
def run_waiting_month_jobs() -> None:
    """The same for invoice runs and verifications: separate, since an export may take hours."""
    months.run_waiting()


@shared_task(name="billing.tasks.run_waiting_books_jobs", ignore_result=True)
def run_waiting_books_jobs() -> None:
    """The same for price imports and corrections, providers' reports and ledger audits."""
    books.run_waiting()


@shared_task(name="billing.tasks.remind_of_overdue", ignore_result=True, max_starts=MAX_STARTS)
def remind_of_overdue() -> None:
    """Mails to accounts whose invoices are overdue."""
    if number := review.remind_of_overdue():
        _log.info("invoices.reminders_queued", number=number)
