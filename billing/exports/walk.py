"""One walk over a month's invoices, feeding every format at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from django.db.models import Max, Prefetch

from billing.enums import InvoiceState
from billing.exports import script
from billing.exports.base import LAYOUT, FormatWriter, Scope
from billing.exports.files import ExportFiles
from billing.exports.manifest import NAME, Manifest, ManifestTotals
from billing.invoices.billed_calls import read_usage
from billing.models import DailyUsage, Invoice, InvoiceLine
from billing.models.invoices import FINAL_STATES, InvoiceQuerySet
from billing.types import Progress

INVOICES_AT_A_TIME = 100


def invoice_ids(scope: Scope) -> list[int]:
    """In export order: by number, then those without one, by id."""
    found = _of_month(scope)
    found = found.exclude(state=InvoiceState.VOID) if scope.includes_drafts else found.final()
    keys = found.values_list("series_id", "number", "pk").order_by()
    return [pk for *_, pk in sorted((number is None, series or "", number or 0, pk) for series, number, pk in keys)]


def count_in_work(scope: Scope) -> int:
    """How many of the month's invoices are neither issued nor void."""
    return _of_month(scope).exclude(state__in=(*FINAL_STATES, InvoiceState.VOID)).count()


def write_export(
    folder: Path,
    scope: Scope,
    ids: Sequence[int],
    *,
    formats: Mapping[str, type[FormatWriter]],
    on_progress: Progress,
) -> Manifest:
    """All files of an export, on disk when this returns.

    ids: from `invoice_ids`. on_progress: called with the rows of usage written so far.
    """
    totals, about = ManifestTotals(), _rows_to_come(scope)
    scope = replace(scope, layout=_find_layout(ids))
    with ExitStack() as stack:
        files = stack.enter_context(ExportFiles(folder))
        writers = [stack.enter_context(writer(files, scope)) for writer in formats.values()]
        for _ in _walk(ids, writers, totals):
            on_progress(totals.rows["usage"], max(about, totals.rows["usage"]))
        for writer in writers:
            writer.close()
        files.add(script.NAME, script.script())
        manifest = totals.manifest(scope, tuple(formats), files.close())
        files.add(NAME, manifest.text)
        files.close()
    return manifest


def _walk(ids: Sequence[int], writers: Sequence[FormatWriter], totals: ManifestTotals) -> Iterator[None]:
    """Yields after each invoice, while no query is open."""
    for invoice in _invoices(ids):
        lines = list(invoice.lines.all())
        totals.add_invoice(invoice, lines=len(lines))
        for writer in writers:
            writer.add_invoice(invoice, lines)
        for row in read_usage(invoice):
            totals.add_usage()
            for writer in writers:
                writer.add_usage(row)
        yield


def _invoices(ids: Sequence[int]) -> Iterator[Invoice]:
    """In batches, with lines and everything else that is exported."""
    lines = InvoiceLine.objects.select_related("credited_line").order_by("position")
    wanted = Invoice.objects.select_related("original", "account__billing_profile")
    for start in range(0, len(ids), INVOICES_AT_A_TIME):
        part = ids[start : start + INVOICES_AT_A_TIME]
        found = wanted.prefetch_related(Prefetch("lines", queryset=lines)).in_bulk(part)
        yield from (found[pk] for pk in part if pk in found)


def _find_layout(ids: Sequence[int]) -> int:
    """The newest layout that any of the documents needs."""
    newest = Invoice.objects.filter(pk__in=ids).aggregate(newest=Max("content_version"))["newest"]
    return min(newest or LAYOUT, LAYOUT)


def _of_month(scope: Scope) -> InvoiceQuerySet:
    found = Invoice.objects.filter(period_start=scope.period.start)
    return found if scope.account is None else found.filter(account=scope.account)


def _rows_to_come(scope: Scope) -> int:
    rows = DailyUsage.objects.filter(
        is_billable=True, local_day__gte=scope.period.start, local_day__lt=scope.period.end
    )
    return (rows if scope.account is None else rows.filter(account=scope.account)).count()
