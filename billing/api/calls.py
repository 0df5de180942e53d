"""Calls one by one: the rows behind every figure, with what was corrected later."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.base import ManagementView
from billing.api.fields import ExactField, ViewedSerializer
from billing.api.filters import CallFilters
from llm.books.figures import Figures, figures_of
from llm.enums import AdjustmentSource, Outcome, UsageSource, UsageStatus
from llm.models import Usage, UsageAdjustment
from llm.money import format_usd, pico_to_usd
from llm.types import TOKEN_FIELDS


class AdjustmentSerializer(ViewedSerializer[UsageAdjustment]):
    """Signed differences to the call's row."""

    costs = frozenset(("cost",))
    staff_only = frozenset(("reason",))

    source = serializers.ChoiceField(choices=AdjustmentSource.choices)  # type: ignore[assignment]  # a name of ours
    recorded_at = serializers.DateTimeField()
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    cache_read_tokens = serializers.IntegerField()
    cache_write_5m_tokens = serializers.IntegerField()
    cache_write_1h_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    audio_input_tokens = serializers.IntegerField()
    audio_output_tokens = serializers.IntegerField()
    cost = ExactField(required=False, allow_null=True, help_text="USD.")
    is_billable = serializers.BooleanField(help_text="Whether the call is billable from then on.")
    reason = serializers.CharField(required=False, help_text="For staff.")


class CallSerializer(ViewedSerializer[Usage]):
    """Tokens, cost and is_billable are the row's with its adjustments; all else is the row's."""

    costs = frozenset(("cost",))
    staff_only = frozenset(("upstream_model", "reported_model", "rate_set", "error_code"))

    id = serializers.UUIDField()
    request_id = serializers.UUIDField()
    attempt = serializers.IntegerField()
    account = serializers.IntegerField(source="account_id")
    key = serializers.IntegerField(source="api_key_id")
    key_name = serializers.CharField(source="api_key.name")
    dialect = serializers.CharField()
    provider = serializers.CharField()
    model = serializers.CharField(help_text="The name that the caller asked for.")
    upstream_model = serializers.CharField(required=False, help_text="For staff.")
    reported_model = serializers.CharField(required=False, help_text="For staff.")
    is_stream = serializers.BooleanField()
    status = serializers.ChoiceField(choices=UsageStatus.choices)
    usage_source = serializers.ChoiceField(choices=UsageSource.choices)
    outcome = serializers.ChoiceField(choices=Outcome.choices)
    error_code = serializers.CharField(required=False, help_text="For staff.")
    opened_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)
    local_day = serializers.DateField(help_text="Of opened_at, in the time zone of the account.")
    first_byte_ms = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField(allow_null=True)
    prompt_tokens = serializers.IntegerField(help_text="All input, cached included.")
    completion_tokens = serializers.IntegerField(help_text="All output, reasoning included.")
    cache_read_tokens = serializers.IntegerField()
    cache_write_5m_tokens = serializers.IntegerField()
    cache_write_1h_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    audio_input_tokens = serializers.IntegerField()
    audio_output_tokens = serializers.IntegerField()
    extra_meters = serializers.DictField(child=serializers.IntegerField())
    cost = ExactField(
        required=False, allow_null=True, help_text="USD that the provider charges us; null while open or unpriced."
    )
    rate_set = serializers.IntegerField(
        source="rate_set_id", required=False, allow_null=True, help_text="The rates that gave the cost. For staff."
    )
    is_billable = serializers.BooleanField()
    is_disputed = serializers.BooleanField(help_text="Whether the provider's report was absurd, and not counted.")
    is_undecided = serializers.SerializerMethodField(
        help_text="Whether it was lost or is disputed, and nobody has said yet what it used; it is not billable then."
    )

    def get_is_undecided(self, call: Usage) -> bool:
        return not figures_of(call, call.adjustments.all()).is_known

    def to_representation(self, instance: Usage) -> dict[str, Any]:
        shown = super().to_representation(instance)
        known = figures_of(instance, instance.adjustments.all())
        return {name: _figure(known, name, value) for name, value in shown.items()}


class CallDetailSerializer(CallSerializer):
    adjustments = AdjustmentSerializer(many=True)


def _figure(known: Figures, name: str, written: Any) -> Any:
    if name in TOKEN_FIELDS:
        return getattr(known.counts, name)
    if name == "cost":
        return None if known.cost_pico is None else format_usd(pico_to_usd(known.cost_pico))
    return known.is_billable if name == "is_billable" else written


class _CallsView(ManagementView):
    queryset = Usage.objects.select_related("api_key").prefetch_related("adjustments")
    permissions = {"GET": "llm.view_usage"}

    def get_queryset(self) -> Any:
        return self.of_viewer(super().get_queryset())


class CallsView(_CallsView, ListAPIView[Usage]):
    filterset_class = CallFilters
    serializer_class = CallSerializer

    @extend_schema(operation_id="calls_list", summary="Calls, the latest first", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)


class CallView(_CallsView, RetrieveAPIView[Usage]):
    serializer_class = CallDetailSerializer
    pagination_class = None

    @extend_schema(operation_id="calls_retrieve", summary="One call, with its adjustments", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.retrieve(request, *args, **kwargs)
