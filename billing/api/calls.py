"""Single calls: the rows behind every figure, with their later corrections."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from django.contrib.auth.models import User
from django.db.models import OuterRef, QuerySet, Subquery
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from billing.api.base import ManagementView
from billing.api.fields import ExactField, RequestSerializer, ViewedSerializer
from billing.api.filters import CallFilters
from billing.api.pagination import AllCalls
from billing.enums import TokenScope
from llm.books.adjusting import decide_call
from llm.books.figures import EffectiveUsage, compute_figures
from llm.dialects.usage_figures import EXTRA_METERS, MAX_TOKENS, AbsurdFigureError, refuse_parts_above_totals
from llm.enums import AdjustmentSource, CallOutcome, UsageSource, UsageStatus
from llm.models import EndUser, OpenCall, Usage, UsageAdjustment
from llm.models.usage import find_call
from llm.money import format_usd, pico_to_usd
from llm.types import TOKEN_FIELDS, Service, TokenCounts

_LONGEST_WORDS = {"service_tier": 50, "speed": 20, "inference_geo": 20}


class AdjustmentSerializer(ViewedSerializer[UsageAdjustment]):
    """Signed differences to the call's row."""

    costs = frozenset(("cost",))
    staff_only = frozenset(("reason",))

    source = serializers.ChoiceField(choices=AdjustmentSource.choices)  # type: ignore[assignment]  # our own field named `source`
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
    is_billable = serializers.BooleanField(help_text="Whether the call is billable after this adjustment.")
    reason = serializers.CharField(required=False, help_text="For staff.")


class CallSerializer(ViewedSerializer[Usage]):
    """A call. Tokens, units, cost, how it was served and whether it is billable include its adjustments."""

    costs = frozenset(("cost",))
    staff_only = frozenset(("provider_instance", "upstream_model", "reported_model", "rate_set", "error_code", "flags"))

    id = serializers.UUIDField()
    request_id = serializers.UUIDField()
    attempt = serializers.IntegerField()
    account = serializers.IntegerField(source="account_id")
    key = serializers.IntegerField(source="api_key_id")
    key_name = serializers.CharField(source="api_key.name")
    dialect = serializers.CharField()
    provider = serializers.CharField()
    provider_instance = serializers.CharField(
        required=False, help_text="The configured instance of the provider; empty in old calls. For staff."
    )
    model = serializers.CharField(help_text="The name the caller requested.")
    upstream_model = serializers.CharField(required=False, help_text="For staff.")
    reported_model = serializers.CharField(required=False, help_text="For staff.")
    end_user = serializers.CharField(
        help_text="A keyed hash of the end user that the call names; empty if it names none."
    )
    end_user_name = serializers.CharField(
        allow_null=True, help_text="As the caller gave it; null if there is none, or it was deleted."
    )
    tags = serializers.DictField(child=serializers.CharField())
    is_stream = serializers.BooleanField()
    status = serializers.ChoiceField(choices=UsageStatus.choices)
    usage_source = serializers.ChoiceField(choices=UsageSource.choices)
    outcome = serializers.ChoiceField(choices=CallOutcome.choices)
    error_code = serializers.CharField(required=False, help_text="For staff.")
    opened_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)
    local_day = serializers.DateField(help_text="Of opened_at, in the time zone of the account.")
    first_byte_ms = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField(allow_null=True)
    prompt_tokens = serializers.IntegerField(help_text="All input, including cached.")
    completion_tokens = serializers.IntegerField(help_text="All output, including reasoning.")
    cache_read_tokens = serializers.IntegerField()
    cache_write_5m_tokens = serializers.IntegerField()
    cache_write_1h_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    audio_input_tokens = serializers.IntegerField()
    audio_output_tokens = serializers.IntegerField()
    extra_meters = serializers.DictField(child=serializers.IntegerField())
    service_tier = serializers.CharField(help_text="As reported by the provider; empty if not reported.")
    speed = serializers.CharField()
    inference_geo = serializers.CharField()
    flags = serializers.CharField(
        required=False, help_text="How the figures were obtained, such as tools_unreported. For staff."
    )
    cost = ExactField(
        required=False, allow_null=True, help_text="USD that the provider charges us; null while open or unpriced."
    )
    rate_set = serializers.IntegerField(
        source="rate_set_id", required=False, allow_null=True, help_text="The rates used for the cost. For staff."
    )
    is_billable = serializers.BooleanField()
    is_disputed = serializers.BooleanField(
        help_text="True if the provider reported usage that can't be right; it was not counted."
    )
    is_undecided = serializers.SerializerMethodField(
        help_text=("True while a lost or disputed call awaits a decision; until then it is not billable.")
    )

    def get_is_undecided(self, call: Usage) -> bool:
        return not compute_figures(call, call.adjustments.all()).is_known

    def to_representation(self, instance: Usage) -> dict[str, Any]:
        shown = super().to_representation(instance)
        known = compute_figures(instance, instance.adjustments.all())
        return {name: _figure(known, name, value) for name, value in shown.items()}


class CallDetailSerializer(CallSerializer):
    adjustments = AdjustmentSerializer(many=True)


def _figure(known: EffectiveUsage, name: str, written: Any) -> Any:
    if name in TOKEN_FIELDS:
        return getattr(known.counts, name)
    if name in Service._fields:
        return getattr(known.service, name)
    if name == "extra_meters":
        return {meter: units for meter, units in known.counts.extra_meters.items() if units}
    if name == "flags":
        return known.flags
    if name == "cost":
        return None if known.cost_pico is None else format_usd(pico_to_usd(known.cost_pico))
    return known.is_billable if name == "is_billable" else written


class UsedSerializer(RequestSerializer):
    """What a call used, according to the provider. Omitted parts are 0."""

    prompt_tokens = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, help_text="All, including cached.")
    completion_tokens = serializers.IntegerField(
        min_value=0, max_value=MAX_TOKENS, help_text="All, including reasoning."
    )
    cache_read_tokens = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    cache_write_5m_tokens = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    cache_write_1h_tokens = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    reasoning_tokens = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    audio_input_tokens = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    audio_output_tokens = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    web_searches = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    search_sources = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    service_tier = serializers.CharField(
        max_length=_LONGEST_WORDS["service_tier"],
        default="",
        allow_blank=True,
        help_text="Such as priority, or standard; empty: unchanged.",
    )
    speed = serializers.CharField(
        max_length=_LONGEST_WORDS["speed"],
        default="",
        allow_blank=True,
        help_text="Such as fast, or standard; empty: unchanged.",
    )
    inference_geo = serializers.CharField(
        max_length=_LONGEST_WORDS["inference_geo"],
        default="",
        allow_blank=True,
        help_text="Such as us, or global; empty: unchanged.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            refuse_parts_above_totals(_counts_of(attrs))
        except AbsurdFigureError:
            sentence = "The parts exceed their total: see what each total includes."
            raise serializers.ValidationError(sentence) from None
        return attrs


class DecisionSerializer(RequestSerializer):
    is_billable = serializers.BooleanField(help_text="Whether the call is charged to the account.")
    reason = serializers.CharField(max_length=500, help_text="The reason, for the record.")
    used = UsedSerializer(allow_null=True, default=None, help_text="null: our estimate.")


def _counts_of(used: dict[str, Any]) -> TokenCounts:
    extra_meters = {name: used[name] for name in EXTRA_METERS if used[name]}
    return TokenCounts(**{name: used[name] for name in TOKEN_FIELDS}, extra_meters=extra_meters)


_NAME_OF_END_USER = EndUser.objects.filter(account=OuterRef("account"), end_user=OuterRef("end_user")).order_by()


class _CallsView(ManagementView):
    queryset = (
        Usage.objects.select_related("api_key")
        .prefetch_related("adjustments")
        .annotate(end_user_name=Subquery(_NAME_OF_END_USER.values("name")))
    )
    permissions = {"GET": "llm.view_usage"}

    def get_queryset(self) -> Any:
        return self.of_viewer(super().get_queryset())

    def get_open_calls(self) -> QuerySet[OpenCall]:
        opened = OpenCall.objects.select_related("api_key")
        return self.of_viewer(opened.annotate(end_user_name=Subquery(_NAME_OF_END_USER.values("name"))))

    def get_object(self) -> Usage:
        call = find_call(self.kwargs["pk"], closed=self.get_queryset(), opened=self.get_open_calls())
        if call is None:
            raise NotFound
        return call


class CallsView(_CallsView, ListAPIView[Usage]):
    filterset_class = CallFilters
    serializer_class = CallSerializer

    def filter_queryset(self, queryset: QuerySet[Usage]) -> AllCalls:  # type: ignore[override]  # for IdPagination
        closed = super().filter_queryset(queryset)
        return AllCalls(super().filter_queryset(self.get_open_calls()), closed)

    @extend_schema(operation_id="calls_list", summary="Calls, newest first", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)


class CallDetailView(_CallsView, RetrieveAPIView[Usage]):
    serializer_class = CallDetailSerializer
    pagination_class = None

    @extend_schema(operation_id="calls_retrieve", summary="One call, with its adjustments", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.retrieve(request, *args, **kwargs)


class CallDecisionView(_CallsView):
    permissions: ClassVar[dict[str, str]] = {"GET": "llm.view_usage", "POST": "llm.change_usage"}
    scopes: ClassVar[dict[str, TokenScope]] = {"POST": TokenScope.DECIDE}
    serializer_class = CallDetailSerializer
    pagination_class = None
    http_method_names = ["post"]

    @extend_schema(
        operation_id="calls_decide",
        summary="Decide on a lost or disputed call",
        description="For staff. Records what the call used and whether it is billed, once per call.",
        request=DecisionSerializer,
        responses={201: CallDetailSerializer},
        tags=["management"],
    )
    def post(self, request: Request, pk: Any) -> Response:
        call = self.get_object()
        asked = DecisionSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        decision = asked.validated_data
        used = decision["used"]
        try:
            decide_call(
                call.pk,
                counts=None if used is None else _counts_of(used),
                service=None if used is None else Service(*(used[name] for name in Service._fields)),
                is_billable=decision["is_billable"],
                reason=decision["reason"],
                user=cast("User", request.user),
            )
        except ValueError as error:
            raise ValidationError(str(error)) from error
        answer = self.get_serializer(self.get_object()).data
        location = reverse("call", kwargs={"pk": pk}, request=request)
        return Response(answer, status=status.HTTP_201_CREATED, headers={"Location": location})
