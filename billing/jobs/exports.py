"""A month as files: for finance, for a customer's own check, for accounting software.

Exported are the month's issued invoices with their lines and the usage that they bill, credit notes included. An issued
invoice never changes, and `billing.invoices.billed_calls` finds its usage as of its cutoff; so once every invoice of a
month is issued, it exports to the same bytes each time.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
from django.conf import settings

from billing.exports.base import ExportError, FormatWriter, Scope
from billing.exports.folder import remove_partials, whole_folder
from billing.exports.manifest import Manifest
from billing.exports.registry import FORMATS
from billing.exports.walk import count_in_work, invoice_ids, write_export
from billing.invoices.billed_calls import UsageMovedError
from billing.jobs import runner
from billing.jobs.runner import run_job
from billing.models import ExportJob
from billing.periods import BillingPeriod
from billing.types import Progress
from llm.models import Account

__all__ = ("ExportError", "export_month", "run_export", "run_waiting")

_log = structlog.get_logger("billing.exporting")

TRIES = 3


def export_month(
    period: BillingPeriod,
    folder: Path,
    formats: Sequence[str] = tuple(FORMATS),
    *,
    account: Account | None = None,
    includes_drafts: bool = False,
    on_progress: Progress | None = None,
) -> Manifest:
    """Write the month into a folder that is empty or doesn't exist; it appears complete or not at all.

    formats: of `FORMATS`, each once. account: the only one to export, without costs, since the export is for the
    customer. Raises ExportError if there is nothing to export, or it can't be written.
    """
    scope = Scope(period, account, includes_drafts)
    wanted = {name: FORMATS[name] for name in _checked(formats)}
    if not (ids := invoice_ids(scope)):
        raise ExportError(_why_there_is_nothing(scope))
    for _ in range(TRIES - 1):
        try:
            return _write(folder, scope, ids, wanted, on_progress)
        except UsageMovedError:
            _log.info("export.usage_moved", period=str(period))
    return _write(folder, scope, ids, wanted, on_progress)


def run_export(job_id: int) -> ExportJob:
    return run_job(ExportJob, job_id, _export)


def run_waiting() -> list[ExportJob]:
    return runner.run_waiting(ExportJob, _export)


def _write(
    folder: Path,
    scope: Scope,
    ids: Sequence[int],
    formats: Mapping[str, type[FormatWriter]],
    on_progress: Progress | None,
) -> Manifest:
    with whole_folder(folder) as partial:
        return write_export(partial, scope, ids, formats=formats, on_progress=on_progress or _tell_nobody)


def _export(job: ExportJob, on_progress: Progress) -> Mapping[str, object]:
    """Each attempt has its own folder: a worker that lost its lease can't disturb the one that has it now."""
    for attempt in range(1, job.attempts + 1):
        _remove(_folder_of(job, attempt))
    folder = _folder_of(job, job.attempts)
    manifest = export_month(job.period, folder, job.formats, account=job.account, on_progress=on_progress)
    rows = manifest.rows["usage"]
    return {"folder": folder.name, "manifest": manifest.document, "progress": rows, "total": rows}


def _folder_of(job: ExportJob, attempt: int) -> Path:
    name = f"{job.period}-{job.pk}"
    return settings.BILLING_EXPORT_DIR / (name if attempt == 1 else f"{name}-{attempt}")


def _remove(folder: Path) -> None:
    """Delete what an earlier attempt left whose worker died before it could record the result."""
    remove_partials(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _checked(formats: Sequence[str]) -> list[str]:
    """Sorted in the order of FORMATS. Raises ExportError."""
    known = ", ".join(FORMATS)
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ExportError(f"Unknown export format “{unknown[0]}”. Choose from {known}.")
    if not formats:
        raise ExportError(f"Name at least one format: {known}.")
    return [name for name in FORMATS if name in formats]


def _why_there_is_nothing(scope: Scope) -> str:
    whose = f" of {scope.account}" if scope.account else ""
    if scope.includes_drafts or not (number := count_in_work(scope)):
        return f"There are no invoices{whose} for {scope.period}."
    if number == 1:
        return f"The only invoice{whose} for {scope.period} is not issued yet. --include-drafts exports it too."
    return f"None of the {number} invoices{whose} for {scope.period} is issued yet. --include-drafts exports them too."


def _tell_nobody(rows: int, of: int) -> None:
    """Ignores progress."""
