"""Invoices: the reviewers' queue, and a page for each. Nothing is edited here; invoices are moved by steps."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.invoices.bulk_steps import APPROVE, ISSUE, PAY, SUBMIT, run_batch
from billing.admin.invoices.due import DueFilter
from billing.admin.invoices.formatting import (
    age,
    change_text,
    estimated_share,
    flag_badges,
    margin_percent,
    margin_text,
    money_badge,
    overdue_badge,
    sentence_case,
    state_badge,
    usage_change_text,
)
from billing.admin.invoices.line_calls import line_calls_page
from billing.admin.invoices.page import invoice_page
from billing.admin.invoices.review_queue import (
    BY_ATTENTION,
    FlaggedFilter,
    MonthListFilter,
    with_state_since,
)
from billing.admin.invoices.steps import step_view
from billing.admin.jobs.month_admin import close_view, verify_view
from billing.admin.pages import user_of
from billing.currencies import format_money
from billing.documents import pdf_file_name, render_html
from billing.documents.mails import pdf_of
from billing.invoices.payments import NOTHING, Balance, balances
from billing.models import Invoice
from llm.admin.account_filter import AccountFilter
from llm.admin.base import ReadOnlyAdmin

_RELATED = ("account", "original", "plan_version__plan", "exchange_rate", "prepared_by", "approved_by")


@admin.register(Invoice)
class InvoiceAdmin(ReadOnlyAdmin[Invoice]):
    list_display = ("invoice", "amount", "state_since", "change", "margin", "estimated", "flagged")
    list_display_links = ("invoice",)
    list_filter = ("state", MonthListFilter, DueFilter, FlaggedFilter, "kind", AccountFilter)
    list_select_related = ("account",)
    ordering = BY_ATTENTION
    sortable_by = ("amount",)
    search_fields = ("account__name", "series__name", "number")
    search_help_text = "By account, or by number such as INV-2026-000017."
    actions = ("submit_selected", "approve_unflagged", "issue_selected", "mark_selected_paid")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Invoice]:
        return with_state_since(super().get_queryset(request))

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Reads what is outstanding on the listed invoices at once."""
        found = super().get_changelist_instance(request)
        found.result_list = list(found.result_list)
        left = balances(found.result_list)
        for invoice in found.result_list:
            invoice.balance = left[invoice.pk]
        return found

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Invoice | None:
        found = super().get_object(request, object_id, from_field)
        return found and Invoice.objects.select_related(*_RELATED).get(pk=found.pk)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Invoice], search_term: str
    ) -> tuple[QuerySet[Invoice], bool]:
        """Understands a whole label: Django would look for all of it in the series and in the number."""
        series, dash, number = search_term.strip().rpartition("-")
        if dash and number.isdecimal() and len(number) <= 9:
            return queryset.filter(series__name__iexact=series, number=int(number)), False
        return super().get_search_results(request, queryset, search_term)

    def get_urls(self) -> list[URLPattern]:
        return [
            path("close/", self._page(close_view), name="billing_invoice_close"),
            path("check/", self._page(verify_view), name="billing_invoice_verify"),
            path("<int:object_id>/step/<slug:name>/", self._page(step_view), name="billing_invoice_step"),
            path("<int:object_id>/document/", self._page(_document_view), name="billing_invoice_document"),
            path("<int:object_id>/lines/<int:position>/calls/", self._page(_calls_view), name="billing_invoice_calls"),
            path("<int:object_id>/pdf/", self._page(_pdf_view), name="billing_invoice_pdf"),
            *super().get_urls(),
        ]

    def _page(self, view: Any) -> Any:
        return self.admin_site.admin_view(partial(view, self))

    def get_fieldsets(self, request: HttpRequest, obj: Invoice | None = None) -> Any:
        """None: the page has its own template."""
        return ((None, {"fields": ("currency",)}),)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        invoice = self.get_object(request, object_id)
        context: dict[str, Any] = {}
        if invoice is not None and self.has_view_permission(request, invoice):
            context = {"title": sentence_case(str(invoice)), "subtitle": None}
            context |= {"invoice": invoice, "page": invoice_page(invoice, user_of(request))}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def has_prepare_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.prepare_invoice")

    def has_approve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.approve_invoice")

    def has_issue_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.issue_invoice")

    @admin.action(description=SUBMIT.label, permissions=["prepare"])
    def submit_selected(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> HttpResponse | None:
        return run_batch(self, request, SUBMIT, queryset)

    @admin.action(description=APPROVE.label, permissions=["approve"])
    def approve_unflagged(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> HttpResponse | None:
        return run_batch(self, request, APPROVE, queryset)

    @admin.action(description=ISSUE.label, permissions=["issue"])
    def issue_selected(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> HttpResponse | None:
        return run_batch(self, request, ISSUE, queryset)

    @admin.action(description=PAY.label, permissions=["issue"])
    def mark_selected_paid(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> HttpResponse | None:
        return run_batch(self, request, PAY, queryset)

    @admin.display(description="Account, month")
    def invoice(self, invoice: Invoice) -> SafeString:
        kind = "" if invoice.kind == "regular" else f", {invoice.get_kind_display()}"
        label = f" · {invoice.label}" if invoice.label else ""
        return format_html(
            '<span class="gw-model">{}</span><span class="gw-hint gw-below gw-num">{}{}{}</span>'
            '<span class="bl-narrow">{}</span><span class="bl-flagged">{}</span>',
            invoice.account.name,
            invoice.period,
            kind,
            label,
            state_badge(invoice),
            flag_badges(invoice.flags) if invoice.flags else "",
        )

    @admin.display(description="Total")
    def amount(self, invoice: Invoice) -> SafeString:
        balance: Balance = getattr(invoice, "balance", NOTHING)
        if balance.outstanding in (Decimal(0), invoice.total) or invoice.total < 0:
            return money_badge(invoice.total, invoice.currency)
        return format_html(
            '{}<span class="gw-hint gw-below gw-num">{} outstanding</span>',
            money_badge(invoice.total, invoice.currency),
            format_money(balance.outstanding, invoice.currency),
        )

    @admin.display(description="Change")
    def change(self, invoice: Invoice) -> SafeString:
        return format_html(
            '<span class="gw-num">{}</span><span class="gw-hint gw-below gw-num">{}</span>',
            change_text(invoice),
            usage_change_text(invoice),
        )

    @admin.display(description="Margin")
    def margin(self, invoice: Invoice) -> SafeString:
        return format_html(
            '<span class="gw-num">{}</span><span class="gw-hint gw-below gw-num">{}</span>',
            margin_text(invoice),
            margin_percent(invoice),
        )

    @admin.display(description="Estimated")
    def estimated(self, invoice: Invoice) -> SafeString:
        return format_html('<span class="gw-num">{}</span>', estimated_share(invoice))

    @admin.display(description="Flags")
    def flagged(self, invoice: Invoice) -> SafeString | str:
        return flag_badges(invoice.flags)

    @admin.display(description="State, since")
    def state_since(self, invoice: Invoice) -> SafeString:
        since = getattr(invoice, "state_since", None) or invoice.created_at
        balance: Balance = getattr(invoice, "balance", NOTHING)
        return format_html(
            '{}{}<span class="gw-hint gw-below">{}</span>',
            state_badge(invoice),
            overdue_badge(balance),
            age(since, timezone.now()),
        )


def _seen(invoice_admin: InvoiceAdmin, request: HttpRequest, object_id: int) -> Invoice:
    invoice = invoice_admin.get_object(request, str(object_id))
    if invoice is None:
        raise Http404
    if not invoice_admin.has_view_permission(request, invoice):
        raise PermissionDenied
    return invoice


def _calls_view(invoice_admin: InvoiceAdmin, request: HttpRequest, object_id: int, position: int) -> HttpResponse:
    return line_calls_page(invoice_admin, request, _seen(invoice_admin, request, object_id), position)


def _document_view(invoice_admin: InvoiceAdmin, request: HttpRequest, object_id: int) -> HttpResponse:
    return HttpResponse(render_html(_seen(invoice_admin, request, object_id)))


def _pdf_view(invoice_admin: InvoiceAdmin, request: HttpRequest, object_id: int) -> HttpResponse:
    invoice = _seen(invoice_admin, request, object_id)
    response = HttpResponse(pdf_of(invoice), content_type="application/pdf")
    response["Content-Disposition"] = f'attachment; filename="{pdf_file_name(invoice)}"'
    return response
