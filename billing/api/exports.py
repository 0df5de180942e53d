"""Exports of a month: staff request, watch and download them. Customers download those of their own account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from billing.api.base import ManagementView
from billing.api.fields import MonthSerializerField, RequestSerializer, ViewedSerializer
from billing.api.filters import ExportFilters
from billing.enums import JobState, TokenScope
from billing.exports.downloads import MANIFEST, Download, file_of, files_of
from billing.exports.registry import FORMATS
from billing.jobs.queue import queue_export
from billing.models import ExportJob
from billing.periods import BillingPeriod
from llm.models import Account


class ExportFileSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    rows = serializers.IntegerField(help_text="Not counting the header.")
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()
    url = serializers.SerializerMethodField()

    def get_url(self, file: dict[str, Any]) -> str:
        return _url_of(self.context["export_id"], file["name"], self.context)


class ExportSerializer(ViewedSerializer[ExportJob]):
    """An export of a month's invoices, their lines and the usage they bill."""

    staff_only = frozenset(("requested_by", "error"))

    id = serializers.IntegerField()
    account = serializers.IntegerField(
        source="account_id",
        allow_null=True,
        help_text="The account the export is limited to, without our costs; null: all accounts.",
    )
    account_name = serializers.CharField(source="account.name", allow_null=True)
    period = MonthSerializerField(source="period_start")
    formats = serializers.ListField(child=serializers.CharField())
    state = serializers.ChoiceField(choices=JobState.choices)
    requested_by = serializers.CharField(required=False, allow_null=True, help_text="For staff.")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    progress_rows = serializers.IntegerField(source="progress", help_text="Rows of usage written so far.")
    total_rows = serializers.IntegerField(source="total")
    error = serializers.CharField(required=False, help_text="Why it failed; empty otherwise. For staff.")
    files = serializers.SerializerMethodField(help_text="Once it is done.")
    manifest_url = serializers.SerializerMethodField(
        help_text=(
            "The file that lists the others. With all of them in one folder, verify_export.py checks the export."
        )
    )

    @extend_schema_field(ExportFileSerializer(many=True))
    def get_files(self, job: ExportJob) -> Any:
        context = {**self.context, "export_id": job.pk}
        return ExportFileSerializer(files_of(job), many=True, context=context).data

    def get_manifest_url(self, job: ExportJob) -> str | None:
        return _url_of(job.pk, MANIFEST, self.context) if files_of(job) else None


def _url_of(export_id: int, name: str, context: Mapping[str, Any]) -> str:
    return reverse("export-file", kwargs={"pk": export_id, "name": name}, request=context.get("request"))


class PeriodField(serializers.CharField):
    default_error_messages = {"month": "Must be a month such as 2026-10."}

    def to_internal_value(self, data: Any) -> Any:
        try:
            return BillingPeriod.parse(super().to_internal_value(data))
        except ValueError:
            self.fail("month")


class ExportRequestSerializer(RequestSerializer):
    period = PeriodField(help_text="A month such as 2026-10.")
    account = serializers.PrimaryKeyRelatedField(
        queryset=Account.objects.all(),
        pk_field=serializers.IntegerField(),
        allow_null=True,
        default=None,
        help_text="The id of the only account to export, for the customer. null: all accounts.",
        error_messages={"does_not_exist": "This id does not exist."},
    )
    formats = serializers.ListField(
        child=serializers.ChoiceField(choices=[(name, name) for name in FORMATS]),
        allow_empty=False,
        max_length=len(FORMATS),
        default=["csv"],
    )


class _ExportsView(ManagementView):
    queryset = ExportJob.objects.all()
    permissions = {"GET": "billing.view_exportjob", "POST": "billing.run_export"}
    scopes = {"POST": TokenScope.EXPORT}

    def get_queryset(self) -> QuerySet[ExportJob]:
        """Without exports of all accounts for customers, though theirs is among them."""
        jobs = ExportJob.objects.all()
        seen = jobs if self.viewer.is_staff else jobs.filter(state=JobState.DONE)
        return self.of_viewer(seen).select_related("account", "requested_by")


class ExportsView(_ExportsView, ListAPIView[ExportJob]):
    filterset_class = ExportFilters
    serializer_class = ExportSerializer

    @extend_schema(operation_id="exports_list", summary="Exports, newest first", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)

    @extend_schema(
        operation_id="exports_create",
        summary="Export a month",
        description="For staff. The export runs in the background: poll it until its state is done or failed.",
        request=ExportRequestSerializer,
        responses={201: ExportSerializer},
        tags=["management"],
    )
    @transaction.atomic
    def post(self, request: Request) -> Response:
        asked = ExportRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        job = ExportJob.objects.create(
            period_start=asked.validated_data["period"].start,
            account=asked.validated_data["account"],
            formats=list(dict.fromkeys(asked.validated_data["formats"])),
            requested_by_id=request.user.pk,
        )
        queue_export(job.pk)
        location = reverse("export", kwargs={"pk": job.pk}, request=request)
        return Response(self.get_serializer(job).data, status=status.HTTP_201_CREATED, headers={"Location": location})


class ExportView(_ExportsView, RetrieveAPIView[ExportJob]):
    serializer_class = ExportSerializer
    pagination_class = None

    @extend_schema(operation_id="exports_retrieve", summary="One export, with its files", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.retrieve(request, *args, **kwargs)


class ExportFileView(_ExportsView):
    serializer_class = None
    pagination_class = None

    @extend_schema(
        operation_id="exports_file",
        summary="One file of an export",
        responses={(200, "application/octet-stream"): OpenApiResponse(OpenApiTypes.BINARY)},
        tags=["management"],
    )
    def get(self, request: Request, pk: int, name: str) -> FileResponse:
        path = file_of(self.get_object(), name)
        if path is None:
            raise NotFound("This export has no such file.")
        return Download(path)
