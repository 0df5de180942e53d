"""A month as files: for finance, for a customer's own check, for the ledger.

What is exported: the month's issued invoices with their lines and the usage that they bill, credit notes included. An
issued invoice never changes, and `billing.exports.detail` finds its usage as of its cutoff; so a month of which every
invoice is issued exports to the same bytes each time.

Whoever writes a job's folder holds a lock on a file beside it, which the system takes back when a process dies. So a
job runs once at a time, and one whose worker was killed can be taken up again. The folder for exports must be the same
for all workers and web processes.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
from django.conf import settings
from django.utils import timezone

from billing.enums import ExportState
from billing.errors import BillingError
from billing.exports import FORMATS
from billing.exports.base import ExportError, FormatWriter, Scope
from billing.exports.detail import UsageMovedError
from billing.exports.folder import remove_partials, whole_folder
from billing.exports.manifest import Manifest
from billing.exports.walk import Progress, count_in_work, invoice_ids, write_export
from billing.models import ExportJob
from billing.periods import Period
from llm.models import Account

__all__ = ("ExportError", "export_month", "run_export", "run_waiting")

_log = structlog.get_logger("billing.exporting")

TRIES = 3
_UNFINISHED = (ExportState.WAITING, ExportState.RUNNING)
_MOST_ERROR = 500
_SECONDS_A_REPORT = 1.0


def export_month(
    period: Period,
    folder: Path,
    formats: Sequence[str] = tuple(FORMATS),
    *,
    account: Account | None = None,
    includes_drafts: bool = False,
    on_progress: Progress | None = None,
) -> Manifest:
    """Write the month into a folder that is empty or not there yet; it is there whole or not at all.

    formats: of `FORMATS`, each once. account: the only one that is exported; its costs are left out, it is for the
    customer. Raises ExportError where there is nothing to export, or it can't be written.
    """
    scope = Scope(period, account, includes_drafts)
    wanted = {name: FORMATS[name] for name in _checked(formats)}
    if not (ids := invoice_ids(scope)):
        raise ExportError(_why_there_is_nothing(scope))
    for _ in range(TRIES - 1):
        try:
            return _write(folder, scope, ids, wanted, on_progress)
        except UsageMovedError:
            _log.info("usage moved while a month was exported", period=str(period))
    return _write(folder, scope, ids, wanted, on_progress)


def run_export(job_id: int) -> ExportJob:
    """Write a job's export, unless that was done or somebody is at it; returns the job as it then is."""
    with _lock_of(job_id) as is_ours:
        job = ExportJob.objects.get(pk=job_id)
        if is_ours and job.state in _UNFINISHED:
            _run(job)
    return job


def run_waiting() -> list[ExportJob]:
    """Run each job that nobody has begun, or whose worker has died."""
    ids = ExportJob.objects.filter(state__in=_UNFINISHED).order_by("pk").values_list("pk", flat=True)
    return [run_export(job_id) for job_id in list(ids)]


def _write(
    folder: Path,
    scope: Scope,
    ids: Sequence[int],
    formats: Mapping[str, type[FormatWriter]],
    on_progress: Progress | None,
) -> Manifest:
    with whole_folder(folder) as partial:
        return write_export(partial, scope, ids, formats=formats, on_progress=on_progress or _tell_nobody)


def _run(job: ExportJob) -> None:
    """Under the job's lock: what lies in its place was left by a worker that died before it could say so."""
    folder = _folder_of(job)
    remove_partials(folder)
    shutil.rmtree(folder, ignore_errors=True)
    _set(job, state=ExportState.RUNNING, started_at=timezone.now(), progress_rows=0, total_rows=0)
    try:
        manifest = export_month(Period(job.period_start), folder, job.formats, on_progress=_Reporter(job))
    except BillingError as error:
        _log.warning("an export failed", job=job.pk, reason=str(error))
        _fail(job, str(error))
        return
    except Exception:
        # Or it would be taken up again for ever, before all others.
        _fail(job, "It failed for a reason that stands in the log.")
        raise
    rows = manifest.rows["usage"]
    _set(
        job,
        state=ExportState.DONE,
        ended_at=timezone.now(),
        error="",
        folder=folder.name,
        manifest=manifest.document,
        progress_rows=rows,
        total_rows=rows,
    )


def _fail(job: ExportJob, why: str) -> None:
    _set(job, state=ExportState.FAILED, ended_at=timezone.now(), error=why[:_MOST_ERROR])


class _Reporter:
    """Writes a job's progress, about once a second."""

    def __init__(self, job: ExportJob) -> None:
        self._job = job
        self._next = 0.0

    def __call__(self, rows: int, of: int) -> None:
        if time.monotonic() >= self._next:
            _set(self._job, progress_rows=rows, total_rows=of)
            self._next = time.monotonic() + _SECONDS_A_REPORT


def _set(job: ExportJob, **values: object) -> None:
    for name, value in values.items():
        setattr(job, name, value)
    job.save(update_fields=list(values))


def _folder_of(job: ExportJob) -> Path:
    return settings.BILLING_EXPORT_DIR / f"{job.period_start:%Y-%m}-{job.pk}"


@contextmanager
def _lock_of(job_id: int) -> Iterator[bool]:
    """Whether the job is ours until the end of the block. The file stays: who removes it would let two in."""
    settings.BILLING_EXPORT_DIR.mkdir(parents=True, exist_ok=True)
    with (settings.BILLING_EXPORT_DIR / f".job-{job_id}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _checked(formats: Sequence[str]) -> list[str]:
    """In the order of FORMATS."""
    known = ", ".join(FORMATS)
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ExportError(f"“{unknown[0]}” is no format of an export; there are {known}.")
    if not formats:
        raise ExportError(f"Name at least one format: {known}.")
    return [name for name in FORMATS if name in formats]


def _why_there_is_nothing(scope: Scope) -> str:
    whose = f" of {scope.account}" if scope.account else ""
    if scope.includes_drafts or not (number := count_in_work(scope)):
        return f"There are no invoices{whose} for {scope.period}."
    which = "is one that is not" if number == 1 else f"are {number} that are not"
    return f"No invoice{whose} for {scope.period} is issued yet; there {which}. --include-drafts exports them too."


def _tell_nobody(rows: int, of: int) -> None:
    """Where no progress is asked for."""
