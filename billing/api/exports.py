"""Exports of a month: asked for, watched, fetched. For staff alone."""

from __future__ import annotations

from typing import Any

from django.db import transaction
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
from billing.api.fields import MonthField, ViewedSerializer
from billing.api.filters import ExportFilters
from billing.background import queue_export
from billing.downloads import Download, file_of, files_of
from billing.enums import JobState
from billing.exports import FORMATS
from billing.models import ExportJob
from billing.periods import Period


class ExportFileSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    rows = serializers.IntegerField(help_text="Without headings.")
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()
    url = serializers.SerializerMethodField()

    def get_url(self, file: dict[str, Any]) -> str:
        return reverse(
            "export-file",
            kwargs={"pk": self.context["export_id"], "name": file["name"]},
            request=self.context.get("request"),
        )


class ExportSerializer(ViewedSerializer[ExportJob]):
    id = serializers.IntegerField()
    period = MonthField(source="period_start")
    formats = serializers.ListField(child=serializers.CharField())
    state = serializers.ChoiceField(choices=JobState.choices)
    requested_by = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    progress_rows = serializers.IntegerField(source="progress", help_text="Rows of usage written so far.")
    total_rows = serializers.IntegerField(source="total")
    error = serializers.CharField(help_text="Why it failed; empty otherwise.")
    files = serializers.SerializerMethodField(help_text="Once it is done.")

    @extend_schema_field(ExportFileSerializer(many=True))
    def get_files(self, job: ExportJob) -> Any:
        context = {**self.context, "export_id": job.pk}
        return ExportFileSerializer(files_of(job), many=True, context=context).data


class PeriodField(serializers.CharField):
    default_error_messages = {"month": "A month such as 2026-10 is due here."}

    def to_internal_value(self, data: Any) -> Any:
        try:
            return Period.parse(super().to_internal_value(data))
        except ValueError:
            self.fail("month")


class ExportRequestSerializer(serializers.Serializer[Any]):
    period = PeriodField(help_text="A month such as 2026-10.")
    formats = serializers.ListField(
        child=serializers.ChoiceField(choices=[(name, name) for name in FORMATS]),
        allow_empty=False,
        max_length=len(FORMATS),
        default=["csv"],
    )


class _ExportsView(ManagementView):
    queryset = ExportJob.objects.select_related("requested_by")
    permissions = {"GET": "billing.view_exportjob", "POST": "billing.run_export"}
    serves_customers = False


class ExportsView(_ExportsView, ListAPIView[ExportJob]):
    filterset_class = ExportFilters
    serializer_class = ExportSerializer

    @extend_schema(operation_id="exports_list", summary="Exports, the latest first", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)

    @extend_schema(
        operation_id="exports_create",
        summary="Export a month",
        description="The export runs in the background: read it until its state is done or failed.",
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
