"""The page of the calls behind one line of an invoice."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from billing.admin.pages import page_context, require
from billing.invoices.line_calls import calls_of_line, has_calls
from billing.models import Invoice, InvoiceLine
from llm.admin.base import ReadOnlyAdmin
from llm.admin.usage.corrections import call_figures
from llm.admin.usage.usage_admin import state_badges

ROWS = 100


def line_calls_page(
    invoice_admin: ReadOnlyAdmin[Invoice], request: HttpRequest, invoice: Invoice, position: int
) -> HttpResponse:
    """invoice: one that the user is allowed to see."""
    require(request, "llm.view_usage")
    lines = InvoiceLine.objects.select_related("invoice__account", "plan_version")
    line = lines.filter(invoice=invoice, position=position).first()
    if line is None or not has_calls(line):
        raise Http404
    found = calls_of_line(line)
    calls = found.calls
    if (before := _uuid(request.GET.get("before", ""))) is not None:
        calls = calls.filter(pk__lt=before)
    rows = list(calls[: ROWS + 1])
    known = [call_figures(call) for call in rows[:ROWS]]
    context = page_context(
        invoice_admin,
        request,
        f"Calls of line {line.position}",
        invoice=invoice,
        line=line,
        found=found,
        rows=[(each, state_badges(each.call, each)) for each in known],
        older=rows[ROWS - 1].pk if len(rows) > ROWS else None,
        is_first_page=before is None,
    )
    return TemplateResponse(request, "admin/billing/invoice/calls.html", context)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
