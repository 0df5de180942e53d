"""Invoice runs and verifications of a month, done by a worker: with much data they outlast a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from billing.enums import MonthJobKind
from billing.invoices.closing import close_month
from billing.jobs import runner
from billing.jobs.runner import Work, run_job
from billing.models import MonthJob
from billing.types import Progress
from billing.verification import verify_protected_month
from llm.audit import MAX_FINDINGS


def run_month_job(job_id: int) -> MonthJob:
    return run_job(MonthJob, job_id, _work)


def run_waiting() -> list[MonthJob]:
    return runner.run_waiting(MonthJob, _work)


def _work(job: MonthJob, on_progress: Progress) -> Mapping[str, object]:
    return _WORKS[MonthJobKind(job.kind)](job, on_progress)


def _close(job: MonthJob, on_progress: Progress) -> Mapping[str, object]:
    """Accounts that couldn't be billed don't fail the job: the others have their drafts."""
    report = close_month(job.period, account=job.account, user=job.requested_by, on_progress=on_progress)
    counts = {"drafted": len(report.drafted), "kept": len(report.kept), "empty": len(report.empty)}
    if report.credited:
        counts["credited"] = len(report.credited)
    return _outcome(counts, len(report.failed), [f"{name}: {why}" for name, why in report.failed])


def _verify(job: MonthJob, on_progress: Progress) -> Mapping[str, object]:
    found = verify_protected_month(job.period, account_id=job.account_id, on_progress=on_progress)
    return _outcome({"invoices": found.windows, "calls": found.rows}, found.problems, found.sentences)


def _outcome(counts: Mapping[str, int], problems: int, findings: Sequence[str]) -> Mapping[str, object]:
    """The result as columns of the job."""
    return {"counts": dict(counts), "problems": problems, "findings": list(findings[:MAX_FINDINGS])}


_WORKS: Mapping[MonthJobKind, Work[MonthJob]] = {MonthJobKind.CLOSE: _close, MonthJobKind.VERIFY: _verify}
