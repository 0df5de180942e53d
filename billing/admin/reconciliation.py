"""Providers' imported reports, and the page that compares them with the books."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.pages import page_context
from billing.models import CostImport
from billing.reconcile import reconciliation, reporting_providers
from llm.admin.base import ReadOnlyAdmin
from llm.admin.format import moment
from llm.admin.usage.filters import DateInput

MAX_DAYS = 92
"""Each day's calls are read while a user waits; the command takes longer spans."""


class ReconciliationForm(forms.Form):
    provider = forms.ChoiceField(choices=lambda: [(name, name) for name in reporting_providers()])
    first = forms.DateField(label="From", widget=DateInput())
    last = forms.DateField(label="To", widget=DateInput())
    show = forms.ChoiceField(required=False, choices=[("", "all lines"), ("differences", "differences")])

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        first, last = data.get("first"), data.get("last")
        if first and last and last < first:
            self.add_error("last", "This is before the start date.")
        elif first and last and last - first >= timedelta(days=MAX_DAYS):
            self.add_error("last", f"At most {MAX_DAYS} days here; “manage.py reconcile” accepts more.")
        return data


@admin.register(CostImport)
class CostImportAdmin(ReadOnlyAdmin[CostImport]):
    change_list_template = "admin/billing/reconciliation/imports.html"
    list_display = ("created", "provider", "file_name", "rows", "created_by")
    list_filter = ("provider",)
    list_select_related = ("created_by",)
    sortable_by = ()
    fields = ("provider", "file_name", "rows", "created", "created_by", "sha256")
    readonly_fields = fields

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.reconciliation_view)
        return [path("reconciliation/", view, name="billing_reconciliation"), *super().get_urls()]

    def reconciliation_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = ReconciliationForm(request.GET or None)
        context = page_context(self, request, "Reconciliation", form=form)
        if form.is_valid():
            data = form.cleaned_data
            found = reconciliation(data["provider"], data["first"], data["last"])
            wants_all = data["show"] != "differences"
            context |= {"found": found, "lines": [line for line in found.lines if wants_all or not line.agrees]}
        return TemplateResponse(request, "admin/billing/reconciliation/report.html", context)

    @admin.display(description="Imported (UTC)")
    def created(self, imported: CostImport) -> str:
        return moment(imported.created_at)

    @admin.display(description="SHA-256")
    def sha256(self, imported: CostImport) -> SafeString:
        return format_html('<span class="gw-mono gw-wrap">{}</span>', imported.digest)
