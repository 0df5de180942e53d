"""What a month would have cost an account under a plan's version, beside what was billed."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from billing.admin.jobs.month_admin import last_month
from billing.admin.pages import AccountNameField, MonthPickerField, page_context, require
from billing.errors import BillingError
from billing.invoices.estimates import estimate_month
from billing.models import PlanVersion
from llm.admin.base import GatewayAdmin


class EstimateForm(forms.Form):
    account = AccountNameField()
    month = MonthPickerField(initial=last_month)


def estimate_view(version_admin: GatewayAdmin[PlanVersion], request: HttpRequest, version_id: int) -> HttpResponse:
    """Its question is in the URL, so that the answer can be linked."""
    require(request, "billing.view_planversion", "billing.view_invoice")
    version = PlanVersion.objects.select_related("plan").filter(pk=version_id).first()
    if version is None:
        raise Http404
    form = EstimateForm(request.GET or None)
    found: dict[str, Any] = {}
    if form.is_bound and form.is_valid():
        try:
            found["estimate"] = estimate_month(version, form.cleaned_data["account"], form.cleaned_data["month"])
        except BillingError as error:
            form.add_error(None, str(error))
    title = f"What would a month cost under {version}?"
    context = page_context(version_admin, request, title, form=form, version=version, **found)
    return TemplateResponse(request, "admin/billing/plan/estimate.html", context)
