"""Invoices with their lines, and as PDF. Customers see their own once they are issued."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.base import ManagementView
from billing.api.filters import InvoiceFilters
from billing.api.invoice_serializers import InvoiceDetailSerializer, InvoiceSerializer
from billing.documents import pdf_file_name, render_pdf
from billing.models import Invoice


class _InvoicesView(ManagementView):
    queryset = Invoice.objects.all()
    permissions = {"GET": "billing.view_invoice"}

    def get_queryset(self) -> QuerySet[Invoice]:
        seen = Invoice.objects.all() if self.viewer.is_staff else Invoice.objects.final()
        return self.of_viewer(seen).select_related("account", "prepared_by", "approved_by")


class InvoicesView(_InvoicesView, ListAPIView[Invoice]):
    filterset_class = InvoiceFilters
    serializer_class = InvoiceSerializer

    @extend_schema(operation_id="invoices_list", summary="Invoices, the latest first", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)


class InvoiceView(_InvoicesView, RetrieveAPIView[Invoice]):
    serializer_class = InvoiceDetailSerializer
    pagination_class = None

    def get_queryset(self) -> QuerySet[Invoice]:
        return super().get_queryset().prefetch_related("lines", "events__user")

    @extend_schema(
        operation_id="invoices_retrieve",
        summary="One invoice, with its lines",
        description="Staff see its history too.",
        tags=["management"],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.retrieve(request, *args, **kwargs)


class InvoicePdfView(_InvoicesView):
    serializer_class = None
    pagination_class = None

    @extend_schema(
        operation_id="invoices_pdf",
        summary="One invoice as PDF",
        responses={(200, "application/pdf"): OpenApiTypes.BINARY},
        tags=["management"],
    )
    def get(self, request: Request, pk: int) -> HttpResponse:
        invoice = self.get_object()
        response = HttpResponse(render_pdf(invoice), content_type="application/pdf")
        response["Content-Disposition"] = f'attachment; filename="{pdf_file_name(invoice)}"'
        return response
