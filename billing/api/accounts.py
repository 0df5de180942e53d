"""Accounts, and the limits that apply to them and their keys. Read-only; staff change them in the admin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.base import ManagementView
from billing.api.fields import ViewedSerializer
from billing.api.filters import LimitFilters
from llm.enums import AccountStatus, LimitMetric, LimitPer
from llm.limits.amounts import COST_DECIMALS
from llm.limits.changes import fullest_end_users
from llm.limits.periods import LimitPeriod, period_of
from llm.models import Account, Limit, LimitWindow
from llm.money import format_usd, from_units


class AccountSerializer(ViewedSerializer[Account]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    status = serializers.ChoiceField(choices=AccountStatus.choices)
    time_zone = serializers.CharField()
    records_end_users = serializers.BooleanField(help_text="Calls record which end user they name.")
    allows_storage = serializers.BooleanField(help_text="Callers may have providers store requests and replies.")
    created_at = serializers.DateTimeField()


class LimitSerializer(serializers.Serializer[Any]):
    """Amounts are whole requests, whole tokens, or USD."""

    id = serializers.IntegerField()
    account = serializers.IntegerField()
    key = serializers.IntegerField(allow_null=True, help_text="null: the whole account.")
    metric = serializers.ChoiceField(choices=LimitMetric.choices)
    per = serializers.ChoiceField(choices=LimitPer.choices)
    per_end_user = serializers.BooleanField(help_text="Applies to each end user separately.")
    amount = serializers.CharField()
    used = serializers.CharField(
        help_text="Used in the current period by completed calls; with `per_end_user` the most of one end user."
    )
    held = serializers.CharField(help_text="Reserved for calls in flight.")
    resets_at = serializers.DateTimeField(allow_null=True, help_text="null: never.")


class AccountsView(ManagementView, ListAPIView[Account]):
    queryset = Account.objects.all()
    serializer_class = AccountSerializer
    permissions = {"GET": "llm.view_account"}
    account_path = "pk"

    def get_queryset(self) -> QuerySet[Account]:
        return self.of_viewer(Account.objects.all())

    @extend_schema(operation_id="accounts_list", summary="Accounts", tags=["management"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)


class LimitsView(ManagementView):
    queryset = Limit.objects.all()
    filterset_class = LimitFilters
    serializer_class = LimitSerializer
    permissions = {"GET": "llm.view_limit"}

    def get_queryset(self) -> QuerySet[Limit]:
        """Without limits in USD for customers who may not see costs: those count what providers charge us."""
        limits = self.of_viewer(Limit.objects.in_force().select_related("account"))
        return limits if self.viewer.sees_cost else limits.exclude(metric=LimitMetric.COST)

    @extend_schema(
        operation_id="limits_list",
        summary="Limits in force, and their usage",
        responses=LimitSerializer(many=True),
        tags=["management"],
    )
    def get(self, request: Request) -> Response:
        limits: list[Limit] = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(LimitSerializer(_standings(limits), many=True).data)


def _standings(limits: Sequence[Limit]) -> list[dict[str, Any]]:
    """One query for the current windows of all, and one more if some are for each end user."""
    now = timezone.now()
    periods = {limit.pk: period_of(limit.per, limit.account.time_zone, now) for limit in limits}
    starts = {period.starts_at for period in periods.values()}
    figures = fullest_end_users({limit.pk: periods[limit.pk].starts_at for limit in limits if limit.is_per_end_user})
    figures |= {
        window.governing_limit.pk: (window.used, window.held)
        for window in LimitWindow.objects.filter(limit__in=limits, starts_at__in=starts).select_related("limit")
        if window.starts_at == periods[window.governing_limit.pk].starts_at
    }
    return [_standing(limit, figures.get(limit.pk, (0, 0)), periods[limit.pk]) for limit in limits]


def _standing(limit: Limit, figures: tuple[int, int], period: LimitPeriod) -> dict[str, Any]:
    """figures: used and held."""
    return {
        "id": limit.pk,
        "account": limit.account_id,
        "key": limit.api_key_id,
        "metric": limit.metric,
        "per": limit.per,
        "per_end_user": limit.is_per_end_user,
        "amount": _digits(limit, limit.amount),
        "used": _digits(limit, figures[0]),
        "held": _digits(limit, figures[1]),
        "resets_at": period.ends_at,
    }


def _digits(limit: Limit, units: int) -> str:
    return format_usd(from_units(units, COST_DECIMALS)) if limit.metric == LimitMetric.COST else str(units)
