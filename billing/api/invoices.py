"""Invoices with their lines, and as PDF. Customers see their own invoices once they are issued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.generics import ListAPIView, RetrieveAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from billing.api.base import ManagementView
from billing.api.filters import InvoiceFilters
from billing.api.invoice_serializers import (
    CreditRequestSerializer,
    InvoiceDetailSerializer,
    InvoiceSerializer,
    OneOffRequestSerializer,
    OneOffSerializer,
    PaymentRequestSerializer,
    PaymentSerializer,
    ReasonSerializer,
)
from billing.documents import pdf_file_name
from billing.documents.mails import pdf_of
from billing.enums import CreditKind, TokenScope
from billing.errors import BillingError
from billing.invoices.crediting import credit, credit_and_bill_again
from billing.invoices.one_off_changes import add_one_off, removable_lines, remove_one_off
from billing.invoices.payments import balances
from billing.invoices.review import mark_paid, undo_payment
from billing.models import Invoice

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class _InvoicesView(ManagementView):
    queryset = Invoice.objects.all()
    permissions = {"GET": "billing.view_invoice"}

    def get_queryset(self) -> QuerySet[Invoice]:
        seen = Invoice.objects.all() if self.viewer.is_staff else Invoice.objects.final()
        return self.of_viewer(seen).select_related("account", "prepared_by", "approved_by")

    def paginate_queryset(self, queryset: Any) -> Any:
        page = super().paginate_queryset(queryset)
        self._balances = {} if page is None else balances(page)
        return page

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "balances": getattr(self, "_balances", {})}


class InvoicesView(_InvoicesView, ListAPIView[Invoice]):
    filterset_class = InvoiceFilters
    serializer_class = InvoiceSerializer

    @extend_schema(operation_id="invoices_list", summary="Invoices, newest first", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)


class InvoiceView(_InvoicesView, RetrieveAPIView[Invoice]):
    serializer_class = InvoiceDetailSerializer
    pagination_class = None

    def get_queryset(self) -> QuerySet[Invoice]:
        return super().get_queryset().prefetch_related("lines", "payments__recorded_by", "events__user")

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
        response = HttpResponse(pdf_of(invoice), content_type="application/pdf")
        response["Content-Disposition"] = f'attachment; filename="{pdf_file_name(invoice)}"'
        return response


class InvoiceCreditNotesView(_InvoicesView, ListAPIView[Invoice]):
    permissions: ClassVar[dict[str, str]] = {"GET": "billing.view_invoice", "POST": "billing.credit_invoice"}
    scopes: ClassVar[dict[str, TokenScope]] = {"POST": TokenScope.CREDIT}
    serializer_class = InvoiceSerializer

    def get_queryset(self) -> QuerySet[Invoice]:
        """Lines of the invoice in the path."""
        return super().get_queryset().filter(original=self.kwargs.get("pk"))

    @extend_schema(operation_id="invoices_credit_notes", summary="An invoice's credit notes", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        get_object_or_404(super().get_queryset(), pk=self.kwargs["pk"])
        return self.list(request, *args, **kwargs)

    @extend_schema(
        operation_id="invoices_credit",
        summary="Credit an issued invoice",
        description="For staff. Creates a draft credit note, which is reviewed like an invoice.",
        request=CreditRequestSerializer,
        responses={201: InvoiceDetailSerializer},
        tags=["management"],
    )
    def post(self, request: Request, pk: int) -> Response:
        invoice = get_object_or_404(super().get_queryset(), pk=pk)
        asked = CreditRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        amounts = asked.amounts(dict(invoice.lines.values_list("position", "pk")))
        user, reason = cast("User", request.user), asked.validated_data["reason"]
        try:
            if asked.validated_data["kind"] == CreditKind.GOODWILL:
                note = credit(invoice.pk, user=user, reason=reason, amounts=amounts)
            else:
                line_ids = None if amounts is None else list(amounts)
                note = credit_and_bill_again(invoice.pk, user=user, reason=reason, line_ids=line_ids)
        except BillingError as error:
            raise ValidationError(str(error)) from error
        location = reverse("invoice", kwargs={"pk": note.pk}, request=request)
        answer = InvoiceDetailSerializer(note, context=self.get_serializer_context()).data
        return Response(answer, status=status.HTTP_201_CREATED, headers={"Location": location})


class InvoiceOneOffsView(_InvoicesView):
    permissions: ClassVar[dict[str, str]] = {"GET": "billing.view_invoice", "POST": "billing.prepare_invoice"}
    scopes: ClassVar[dict[str, TokenScope]] = {"POST": TokenScope.PREPARE}
    serializer_class = OneOffSerializer
    pagination_class = None

    @extend_schema(
        operation_id="invoices_one_off_lines",
        summary="The one-off lines of a draft",
        description="For staff. Those that can be removed, including allowances that have nothing to cover.",
        responses=OneOffSerializer(many=True),
        tags=["management"],
    )
    def get(self, request: Request, pk: int) -> Response:
        if not self.viewer.is_staff:
            raise NotFound("Only drafts have one-off lines that can be changed.")
        return Response([OneOffSerializer(each).data for each in removable_lines(self.get_object())])

    @extend_schema(
        operation_id="invoices_add_one_off_line",
        summary="Add a one-off line to a draft",
        description="For staff. A setup fee and the like, or an allowance. The draft is recalculated.",
        request=OneOffRequestSerializer,
        responses={201: InvoiceDetailSerializer},
        tags=["management"],
    )
    def post(self, request: Request, pk: int) -> Response:
        invoice = self.get_object()
        asked = OneOffRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            add_one_off(invoice.pk, user=cast("User", request.user), **asked.validated_data)
        except BillingError as error:
            raise ValidationError(str(error)) from error
        answer = InvoiceDetailSerializer(self.get_object(), context=self.get_serializer_context()).data
        return Response(answer, status=status.HTTP_201_CREATED)


class InvoiceOneOffRemovalView(_InvoicesView):
    permissions: ClassVar[dict[str, str]] = {"GET": "billing.prepare_invoice", "POST": "billing.prepare_invoice"}
    scopes: ClassVar[dict[str, TokenScope]] = {"POST": TokenScope.PREPARE}
    http_method_names = ["post"]
    serializer_class = InvoiceDetailSerializer
    pagination_class = None

    @extend_schema(
        operation_id="invoices_remove_one_off_line",
        summary="Remove a one-off line from a draft",
        description="For staff. The draft is recalculated.",
        request=ReasonSerializer,
        responses={200: InvoiceDetailSerializer},
        tags=["management"],
    )
    def post(self, request: Request, pk: int, line_id: int) -> Response:
        invoice = self.get_object()
        asked = ReasonSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        user, reason = cast("User", request.user), asked.validated_data["reason"]
        try:
            remove_one_off(invoice.pk, user=user, reason=reason, line_id=line_id)
        except BillingError as error:
            raise ValidationError(str(error)) from error
        return Response(InvoiceDetailSerializer(self.get_object(), context=self.get_serializer_context()).data)


class InvoicePaymentsView(_InvoicesView):
    permissions: ClassVar[dict[str, str]] = {"GET": "billing.view_invoice", "POST": "billing.issue_invoice"}
    scopes: ClassVar[dict[str, TokenScope]] = {"POST": TokenScope.PAY}
    serializer_class = PaymentSerializer
    pagination_class = None

    @extend_schema(
        operation_id="invoices_payments",
        summary="An invoice's payments",
        description="In the order in which they were recorded. What was undone is a payment of its own.",
        responses=PaymentSerializer(many=True),
        tags=["management"],
    )
    def get(self, request: Request, pk: int) -> Response:
        payments = self.get_object().payments.select_related("recorded_by", "invoice").order_by("id")
        context = self.get_serializer_context()
        return Response([PaymentSerializer(each, context=context).data for each in payments])

    @extend_schema(
        operation_id="invoices_pay",
        summary="Record a payment",
        description="For staff. Once nothing is outstanding, the invoice is paid. On a credit note: a refund.",
        request=PaymentRequestSerializer,
        responses={201: InvoiceDetailSerializer},
        tags=["management"],
    )
    def post(self, request: Request, pk: int) -> Response:
        invoice = self.get_object()
        asked = PaymentRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            mark_paid(invoice.pk, user=cast("User", request.user), **asked.validated_data)
        except BillingError as error:
            raise ValidationError(str(error)) from error
        answer = InvoiceDetailSerializer(self.get_object(), context=self.get_serializer_context()).data
        return Response(answer, status=status.HTTP_201_CREATED)


class InvoicePaymentReversalView(_InvoicesView):
    permissions: ClassVar[dict[str, str]] = {"GET": "billing.issue_invoice", "POST": "billing.issue_invoice"}
    scopes: ClassVar[dict[str, TokenScope]] = {"POST": TokenScope.PAY}
    http_method_names = ["post"]
    serializer_class = InvoiceDetailSerializer
    pagination_class = None

    @extend_schema(
        operation_id="invoices_undo_payment",
        summary="Undo a payment",
        description="For staff. Records its reversal; the invoice is outstanding again.",
        request=ReasonSerializer,
        responses={200: InvoiceDetailSerializer},
        tags=["management"],
    )
    def post(self, request: Request, pk: int, payment_id: int) -> Response:
        invoice = self.get_object()
        asked = ReasonSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        user, reason = cast("User", request.user), asked.validated_data["reason"]
        try:
            undo_payment(invoice.pk, user=user, reason=reason, payment_id=payment_id)
        except BillingError as error:
            raise ValidationError(str(error)) from error
        return Response(InvoiceDetailSerializer(self.get_object(), context=self.get_serializer_context()).data)
