"""What billing adds to the search box and to the menu."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Q
from django.urls import reverse

from billing.models import BillingProfile, Invoice, Plan
from llm.admin.menu import place
from llm.admin.search import MAX_SHOWN, Hit, search_too

_MAX_DIGITS = 9


def _invoices(text: str) -> Iterator[Hit]:
    """By their whole number, such as INV-2026-000017, or by the figure alone."""
    series, _, number = text.rpartition("-")
    if not (number.isdecimal() and number.isascii() and len(number) <= _MAX_DIGITS):
        return
    found = Invoice.objects.filter(number=int(number))
    if series:
        found = found.filter(series__name__iexact=series)
    for invoice in found.select_related("account", "series").order_by("-id")[:MAX_SHOWN]:
        url = reverse("admin:billing_invoice_change", args=(invoice.pk,))
        detail = f"{invoice.account}, {invoice.period}, {invoice.get_state_display()}"
        yield Hit("Invoices", invoice.label, url, detail, is_exact=bool(series))


def _profiles(text: str) -> Iterator[Hit]:
    """By what the account is not called: its legal name, or its numbers."""
    by_text = Q(legal_name__icontains=text) | Q(tax_id__iexact=text) | Q(po_number__iexact=text)
    for profile in BillingProfile.objects.filter(by_text).select_related("account")[:MAX_SHOWN]:
        url = reverse("admin:billing_billingprofile_change", args=(profile.pk,))
        yield Hit("Billing profiles", profile.legal_name, url, profile.account.name)


def _plans(text: str) -> Iterator[Hit]:
    for plan in Plan.objects.filter(name__icontains=text).order_by("name")[:MAX_SHOWN]:
        yield Hit("Plans", plan.name, reverse("admin:billing_plan_change", args=(plan.pk,)))


search_too(_invoices, "billing.view_invoice")
search_too(_profiles, "billing.view_billingprofile")
search_too(_plans, "billing.view_plan")

place("Usage", "billing.dailyusage")
place("Accounts & keys", "billing.billingprofile")
place("Models & prices", "billing.booksjob", "billing.costimport", "billing.providercost")
place("Invoices", "billing.invoice", "billing.monthjob", "billing.exportjob", "billing.exchangerate")
place("Plans", "billing.plan", "billing.planversion")
place("System", "billing.stafftoken")
