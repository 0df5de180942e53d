"""Paths of the management API, below /api/v1/."""

from django.urls import path, re_path

from billing.api.accounts import AccountsView, LimitsView
from billing.api.base import NothingHereView
from billing.api.calls import CallDecisionView, CallDetailView, CallsView
from billing.api.exports import ExportFileView, ExportsView, ExportView
from billing.api.invoices import (
    InvoiceCreditNotesView,
    InvoiceOneOffRemovalView,
    InvoiceOneOffsView,
    InvoicePaymentReversalView,
    InvoicePaymentsView,
    InvoicePdfView,
    InvoicesView,
    InvoiceView,
)
from billing.api.usage import UsageView

urlpatterns = [
    path("accounts/", AccountsView.as_view(), name="accounts"),
    path("limits/", LimitsView.as_view(), name="limits"),
    path("usage/", UsageView.as_view(), name="usage"),
    path("calls/", CallsView.as_view(), name="calls"),
    path("calls/<uuid:pk>/", CallDetailView.as_view(), name="call"),
    path("calls/<uuid:pk>/decision/", CallDecisionView.as_view(), name="call-decision"),
    path("invoices/", InvoicesView.as_view(), name="invoices"),
    path("invoices/<int:pk>/", InvoiceView.as_view(), name="invoice"),
    path("invoices/<int:pk>/pdf/", InvoicePdfView.as_view(), name="invoice-pdf"),
    path("invoices/<int:pk>/credit-notes/", InvoiceCreditNotesView.as_view(), name="invoice-credit-notes"),
    path("invoices/<int:pk>/one-off-lines/", InvoiceOneOffsView.as_view(), name="invoice-one-off-lines"),
    path(
        "invoices/<int:pk>/one-off-lines/<int:line_id>/removal/",
        InvoiceOneOffRemovalView.as_view(),
        name="invoice-one-off-removal",
    ),
    path("invoices/<int:pk>/payments/", InvoicePaymentsView.as_view(), name="invoice-payments"),
    path(
        "invoices/<int:pk>/payments/<int:payment_id>/reversal/",
        InvoicePaymentReversalView.as_view(),
        name="invoice-payment-reversal",
    ),
    path("exports/", ExportsView.as_view(), name="exports"),
    path("exports/<int:pk>/", ExportView.as_view(), name="export"),
    path("exports/<int:pk>/files/<str:name>/", ExportFileView.as_view(), name="export-file"),
    # Also without the trailing slash: Django would redirect, in HTML, wherever that leads.
    re_path(r"^", NothingHereView.as_view(), name="nothing"),
]
