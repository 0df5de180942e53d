"""Limits: set, changed, ended, never deleted. Each change applies from the next call."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llm.admin.account_filter import AccountFilter
from llm.admin.concurrent_edits import was_refused
from llm.admin.confirmation import ConfirmedAction, ConfirmedActionsAdmin
from llm.admin.format import NOTHING, moment
from llm.admin.limits.forms import LimitForm, why_not_first
from llm.admin.limits.standing import (
    NEARLY_FULL_PERCENT,
    LimitStanding,
    attach_standings,
    limit_state,
    load_standings,
    nearly_full,
)
from llm.admin.lookups import ForgivingChangeList
from llm.admin.refusal_summaries import refusals_of_limit
from llm.enums import LimitMetric, LimitPer
from llm.limits.amounts import describe_limit
from llm.limits.changes import archive_limit, lock_limits, set_limit
from llm.models import Account, ApiKey, Limit

MAX_SHOWN = 20
"""Limits of an account or key shown on its page."""


class LimitStateFilter(admin.SimpleListFilter):
    """Shows limits in force by default."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("full", f"{NEARLY_FULL_PERCENT} % used or more"), ("ended", "Ended"), ("all", "All")]

    def choices(self, changelist: ChangeList) -> Any:
        default, *others = super().choices(changelist)
        return [{**default, "display": "In force"}, *others]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Limit]) -> QuerySet[Limit]:
        chosen = self.value()
        if chosen == "full":
            return queryset.filter(pk__in=nearly_full(timezone.now()).values("pk"))
        conditions = {"ended": Q(archived_at__isnull=False), "all": Q()}
        return queryset.filter(conditions.get(chosen or "", Q(archived_at=None)))


class PeriodFilter(admin.ChoicesFieldListFilter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "period"


class LimitChangeList(ForgivingChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        attach_standings(self.result_list, timezone.now())


def _end(limit: Limit) -> str | None:
    return f"Ended: {describe_limit(limit)}." if archive_limit(limit) else None


@admin.register(Limit)
class LimitAdmin(ConfirmedActionsAdmin[Limit]):
    form = LimitForm
    list_display = ("owner", "limit_and_threshold", "fill", "state_and_reset")
    list_filter = (LimitStateFilter, "metric", ("per", PeriodFilter), "is_per_end_user", AccountFilter)
    list_select_related = ("account", "api_key")
    ordering = ("account__name", "api_key", "metric", "per", "-pk")
    search_fields = ("account__name", "api_key__name", "api_key__prefix", "api_key__last_four")
    search_help_text = "Search by account, or by the key's name, prefix or last four characters."
    sortable_by = ()
    autocomplete_fields = ("account", "api_key")
    confirmed_actions = (
        ConfirmedAction(
            name="end",
            label="End",
            consequence="It stops applying with the next call. Its usage stays on the books. To set "
            "a limit again, add a new one.",
            done="ended",
            applies_to=lambda limit: limit.archived_at is None,
            perform=_end,
            is_dangerous=True,
        ),
    )

    def why_unchangeable(self, obj: Limit) -> str:
        return "" if obj.archived_at is None else "This limit has ended. To set a limit again, add a new one."

    def lock_for_change(self, obj: Limit) -> Limit | None:
        """As in every change of a limit, the account is locked first."""
        lock_limits(obj.account)
        return super().lock_for_change(obj)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LimitChangeList

    def get_readonly_fields(self, request: HttpRequest, obj: Limit | None = None) -> Any:
        return ("account", "binds", "limit", "fill", "resets", "state", "created", "ended") if obj else ()

    def get_fieldsets(self, request: HttpRequest, obj: Limit | None = None) -> Any:
        about = (
            "Takes effect with the next call, in every process. A request that could exceed it is refused "
            "before it is sent."
        )
        if obj is None:
            what = (("account", "api_key"), ("metric", "per"), "is_per_end_user", "amount", "soft_percent")
            counted = "Earlier usage in the period is not counted."
            return ((None, {"fields": what, "description": f"{about} {counted}"}),)
        shown = ("account", "binds", "limit", "fill", "resets", "state", "created")
        if obj.archived_at is not None and not was_refused(request):
            return ((None, {"fields": (*shown, "ended")}),)
        return (
            (None, {"fields": shown}),
            ("Settings", {"fields": ("amount", "soft_percent"), "description": about}),
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        limit = self.get_object(request, object_id)
        refusals = {} if limit is None else refusals_of_limit(request, limit)
        return super().change_view(
            request, object_id, form_url, {"subtitle": None, **refusals, **(extra_context or {})}
        )

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: bool) -> None:
        """Raises ValidationError if another user was faster, between the form's validation and the write."""
        if change:
            _change(obj)
            return
        lock_limits(obj.account)
        problem = why_not_first(obj.account, obj.api_key, obj.metric, obj.per, is_per_end_user=obj.is_per_end_user)
        if problem:
            raise ValidationError(f"{problem} Someone else added it in the meantime.")
        made, _ = set_limit(
            obj.account,
            obj.api_key,
            LimitMetric(obj.metric),
            LimitPer(obj.per),
            obj.amount,
            obj.soft_percent,
            is_per_end_user=obj.is_per_end_user,
        )
        obj.pk = made.pk

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        told = f"alert at {form.instance.soft_percent} %" if form.instance.soft_percent else "no alert"
        return f"{'Set' if add else 'Changed'} to {describe_limit(form.instance)}, {told}."

    @admin.display(description="Account, key")
    def owner(self, limit: Limit) -> SafeString:
        return format_html('{}<span class="gw-hint gw-below">{}</span>', limit.account.name, _key_name(limit))

    @admin.display(description="Limit")
    def limit_and_threshold(self, limit: Limit) -> SafeString:
        told = f"alert at {limit.soft_percent} %" if limit.soft_percent else "no alert"
        return format_html(
            '<span class="gw-num">{}</span><span class="gw-hint gw-below">{}</span>', describe_limit(limit), told
        )

    @admin.display(description="State, resets")
    def state_and_reset(self, limit: Limit) -> SafeString:
        if limit.archived_at is not None:
            return format_html('{}<span class="gw-hint gw-below">{}</span>', self.state(limit), self.ended(limit))
        return format_html('{}<span class="gw-hint gw-below">{}</span>', self.state(limit), _standing(limit).resets)

    @admin.display(description="Applies to")
    def binds(self, limit: Limit) -> SafeString | str:
        return _key_name(limit)

    @admin.display(description="Limit")
    def limit(self, limit: Limit) -> str:
        return describe_limit(limit)

    @admin.display(description="Used this period")
    def fill(self, limit: Limit) -> SafeString | str:
        return NOTHING if limit.archived_at else _standing(limit).fill

    @admin.display(description="Resets (UTC)")
    def resets(self, limit: Limit) -> SafeString | str:
        return NOTHING if limit.archived_at else _standing(limit).resets

    @admin.display(description="State")
    def state(self, limit: Limit) -> SafeString:
        return limit_state(limit)

    @admin.display(description="Set")
    def created(self, limit: Limit) -> str:
        return moment(limit.created_at)

    @admin.display(description="Ended")
    def ended(self, limit: Limit) -> str:
        return moment(limit.archived_at)


def limits_of_account(account: Account) -> dict[str, Any]:
    """For the account's page: its limits in force, and those of each of its keys."""
    return _shown(account.limits.all(), f"?account={account.pk}")


def limits_of_key(key: ApiKey) -> dict[str, Any]:
    """For the key's page: the limits in force that apply to it, including those of its account."""
    binding = Limit.objects.filter(Q(api_key=None) | Q(api_key=key), account=key.account)
    return _shown(binding, f"?account={key.account_id}&api_key={key.pk}")


def _shown(limits: QuerySet[Limit], query: str) -> dict[str, Any]:
    in_force = limits.filter(archived_at=None).select_related("account", "api_key")
    ordered = list(in_force.order_by("api_key", "metric", "per")[: MAX_SHOWN + 1])
    return {
        "limit_standings": load_standings(ordered[:MAX_SHOWN], timezone.now()),
        "has_more_limits": len(ordered) > MAX_SHOWN,
        "add_limit_query": query,
    }


def _key_name(limit: Limit) -> SafeString | str:
    if limit.api_key is None:
        return "all keys"
    return format_html('{} <code class="gw-key">{}</code>', limit.api_key.name, limit.api_key.masked)


def _change(limit: Limit) -> None:
    """Saves only the form's fields, and never a limit that was ended meanwhile."""
    changed = Limit.objects.in_force().filter(pk=limit.pk)
    if not changed.update(amount=limit.amount, soft_percent=limit.soft_percent):
        raise ValidationError("This limit was ended in the meantime. To set a limit again, add a new one.")


def _standing(limit: Limit) -> LimitStanding:
    """Attached by the list, or read for this limit."""
    attached: LimitStanding | None = getattr(limit, "standing", None)
    return attached or load_standings([limit], timezone.now())[0]
