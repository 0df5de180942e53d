"""Price imports, price corrections, imports of providers' reports and ledger audits, done by a worker.

Each is safe to start again: prices that exist stay, calls that were corrected aren't changed again, and a report that
was imported is recognised by its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from billing.enums import BooksJobKind
from billing.errors import BillingError
from billing.jobs import runner
from billing.jobs.runner import Work, run_job
from billing.models import BooksJob
from billing.reconcile import ReportError, import_report
from billing.types import Progress
from llm.audit import MAX_FINDINGS, verify
from llm.books.rerating import ReratingReport, count_calls, rerate
from llm.money import format_usd, pico_to_usd, plural
from llm.prices.builtin import ensure_builtin_prices
from llm.prices.importing import import_prices


def run_books_job(job_id: int) -> BooksJob:
    return run_job(BooksJob, job_id, _work)


def run_waiting() -> list[BooksJob]:
    return runner.run_waiting(BooksJob, _work)


def _work(job: BooksJob, on_progress: Progress) -> Mapping[str, object]:
    return _WORKS[BooksJobKind(job.kind)](job, on_progress)


def _rerate(job: BooksJob, on_progress: Progress) -> Mapping[str, object]:
    given: dict[str, Any] = job.parameters
    first, last = (date.fromisoformat(given[name]) for name in ("first_day", "last_day"))
    total = count_calls(given["provider"], given["model"], first, last)
    on_progress(0, total)
    try:
        report = rerate(
            given["provider"],
            given["model"],
            first_day=first,
            last_day=last,
            reason=given["reason"],
            user=job.requested_by,
            is_dry=given["is_dry"],
            on_progress=lambda done: on_progress(min(done, total), total),
        )
    except ValueError as error:
        raise BillingError(str(error)) from error
    return {"summary": _said_of_rerating(report, is_dry=given["is_dry"]), "progress": total, "total": total}


def _said_of_rerating(report: ReratingReport, *, is_dry: bool) -> str:
    """Such as: 38 calls, 216,000 tokens, would cost 0.14 USD instead of 0.00 USD."""
    before, after = (format_usd(pico_to_usd(pico)) for pico in (report.before_pico, report.after_pico))
    verb = "would cost" if is_dry else "cost" if report.changed == 1 else "now cost"
    said = f"{plural(report.changed, 'call')}, {report.tokens:,} tokens, {verb} {after} USD instead of {before} USD."
    if not report.changed:
        said = f"Nothing changes: {plural(report.calls, 'call')} examined."
    if report.unpriced:
        said += f" {plural(report.unpriced, 'call')} still without a price."
    if report.incomplete:
        said += f" {plural(report.incomplete, 'call')} left as is: an earlier release recorded too little of them."
    return said


def _import_prices(job: BooksJob, on_progress: Progress) -> Mapping[str, object]:
    moment = job.parameters["effective_from"]
    providers = job.parameters["providers"]
    on_progress(0, 1)
    summary = import_prices(tuple(providers), effective_from=None if moment is None else datetime.fromisoformat(moment))
    ensure_builtin_prices()
    said = (
        f"{plural(summary.models, 'model')}: {plural(summary.new_prices, 'new price')}, "
        f"{summary.unchanged:,} unchanged, {summary.partly_unpriced:,} partly unpriced, "
        f"{len(summary.without_price):,} without a token price."
    )
    return {"summary": said, "progress": 1, "total": 1}


def _import_costs(job: BooksJob, on_progress: Progress) -> Mapping[str, object]:
    given = job.parameters
    on_progress(0, 1)
    try:
        summary = import_report(
            given["provider"], bytes(job.content), file_name=given["file_name"], user=job.requested_by
        )
    except ReportError as error:
        BooksJob.objects.filter(pk=job.pk).update(content=b"")
        raise BillingError(f"{given['file_name']} was not imported. {error}") from error
    done = {"progress": 1, "total": 1, "content": b""}
    if not summary.is_new:
        return {"summary": "This file was already imported: nothing was done.", **done}
    days = f"{summary.first}" if summary.first == summary.last else f"{summary.first} to {summary.last}"
    cost = "no costs" if summary.cost is None else f"{format_usd(summary.cost)} USD"
    replaced = f"{plural(summary.replaced, 'row')} of earlier reports replaced"
    said = f"{plural(summary.rows, 'row')} of {days}, {cost}; {replaced}."
    if summary.is_cut:
        said += " The last page says that more follow: the report is incomplete."
    return {"summary": said, **done}


def _verify(job: BooksJob, on_progress: Progress) -> Mapping[str, object]:
    found = verify(on_progress=on_progress)
    what = f"{plural(found.rows, 'call')} and {plural(found.windows, 'window')} of limits"
    said = f"{plural(found.problems, 'problem')} in {what}." if found.problems else f"{what}: no problems found."
    return {"summary": said, "problems": found.problems, "findings": found.sentences[:MAX_FINDINGS]}


_WORKS: Mapping[BooksJobKind, Work[BooksJob]] = {
    BooksJobKind.RERATE: _rerate,
    BooksJobKind.IMPORT_PRICES: _import_prices,
    BooksJobKind.IMPORT_COSTS: _import_costs,
    BooksJobKind.VERIFY: _verify,
}
