"""Plans and their versions. A version can be edited until an invoice uses it; after that, a copy is edited instead."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.pages import user_of
from billing.admin.plans.estimate import estimate_view
from billing.admin.plans.forms import RATE_FIELDS, PlanRateForm, PlanRateFormSet, PlanVersionForm, copied_terms
from billing.models import Plan, PlanRate, PlanVersion
from billing.plans import is_used, lock_plan, problems_of_version, why_unchangeable
from llm.admin.autocomplete import is_id
from llm.admin.base import GatewayAdmin, ReadOnlyInline, TabularInline
from llm.admin.concurrent_edits import was_refused
from llm.admin.confirmation import ConfirmedAction, ConfirmedActionsAdmin, ObjectButton
from llm.admin.format import NOTHING, badge, calendar_day

_COPIED = "copy"
"""Query parameter of the form for a new version: the version to copy."""


def _archive(plan: Plan) -> str | None:
    changed = Plan.objects.filter(pk=plan.pk, archived_at=None).update(archived_at=timezone.now())
    return "Archived." if changed else None


def _restore(plan: Plan) -> str | None:
    changed = Plan.objects.filter(pk=plan.pk).exclude(archived_at=None).update(archived_at=None)
    return "Restored." if changed else None


class _TermsColumns:
    @admin.display(description="Markup", ordering="markup_percent")
    def markup(self, version: PlanVersion) -> SafeString:
        return _number(version.markup_percent, "%")

    @admin.display(description="Flat fee", ordering="flat_fee")
    def fee(self, version: PlanVersion) -> SafeString:
        return _number(version.flat_fee, version.currency)

    @admin.display(description="Commitment", ordering="minimum_commitment")
    def commitment(self, version: PlanVersion) -> SafeString:
        return _number(version.minimum_commitment, version.currency)


class VersionInline(_TermsColumns, ReadOnlyInline[PlanVersion, Plan]):
    model = PlanVersion
    show_change_link = False
    fields = ("since", "markup", "fee", "commitment", "fixed_prices", "state")
    readonly_fields = fields
    verbose_name_plural = "Versions: each applies from its month until the next version starts"

    def get_queryset(self, request: HttpRequest) -> QuerySet[PlanVersion]:
        versions = super().get_queryset(request).select_related("plan")
        return versions.order_by("-effective_from").annotate(prices=Count("rates"))

    @admin.display(description="From")
    def since(self, version: PlanVersion) -> SafeString:
        url = reverse("admin:billing_planversion_change", args=(version.pk,))
        return format_html('<a href="{}">{}</a>', url, f"{version.effective_from:%Y-%m}")

    @admin.display(description="Fixed prices")
    def fixed_prices(self, version: PlanVersion) -> str:
        return f"{version.prices:,}" if version.prices else NOTHING  # type: ignore[attr-defined]

    @admin.display(description="State")
    def state(self, version: PlanVersion) -> SafeString:
        return badge("closed", "billed") if is_used(version) else badge("open", "can be edited")


@admin.register(Plan)
class PlanAdmin(ConfirmedActionsAdmin[Plan]):
    change_form_template = "admin/llm/change_form.html"
    list_display = ("name", "state", "latest", "profiles_number", "created")
    search_fields = ("name",)
    fields = ("name",)
    confirmed_actions = (
        ConfirmedAction(
            name="archive",
            label="Archive",
            consequence="It can no longer be selected in billing profiles; profiles that use it keep it.",
            done="archived",
            applies_to=lambda plan: plan.archived_at is None,
            perform=_archive,
        ),
        ConfirmedAction(
            name="restore",
            label="Restore",
            consequence="It can be selected in billing profiles again.",
            done="restored",
            applies_to=lambda plan: plan.archived_at is not None,
            perform=_restore,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        plans = super().get_queryset(request).prefetch_related("versions")
        return plans.annotate(profiles_in_all=Count("profiles"))

    def get_inlines(self, request: HttpRequest, obj: Plan | None = None) -> Any:
        return (VersionInline,) if obj and request.user.has_perm("billing.view_planversion") else ()

    def object_buttons(self, obj: Plan) -> list[ObjectButton]:
        latest = obj.versions.order_by("-effective_from").first()
        return [ObjectButton("New version", _new_version_url(obj, latest)), *super().object_buttons(obj)]

    @admin.display(description="State")
    def state(self, plan: Plan) -> SafeString:
        return badge("active") if plan.archived_at is None else badge("closed", "archived")

    @admin.display(description="Latest version")
    def latest(self, plan: Plan) -> SafeString:
        version = max(plan.versions.all(), key=lambda each: each.effective_from, default=None)
        if version is None:
            return badge("unpriced", "no version")
        return format_html("from {} <span class=gw-hint>{}</span>", f"{version.effective_from:%Y-%m}", version.currency)

    @admin.display(description="Profiles", ordering="profiles_in_all")
    def profiles_number(self, plan: Plan) -> SafeString:
        url = f"{reverse('admin:billing_billingprofile_changelist')}?plan__id__exact={plan.pk}"
        return format_html('<a class="gw-num" href="{}">{}</a>', url, f"{plan.profiles_in_all:,}")  # type: ignore[attr-defined]

    @admin.display(description="Created", ordering="created_at")
    def created(self, plan: Plan) -> str:
        return calendar_day(plan.created_at)


class RateInline(TabularInline[PlanRate, PlanVersion]):
    """Part of the version: its permissions are the version's."""

    model = PlanRate
    form = PlanRateForm
    formset = PlanRateFormSet
    fields = RATE_FIELDS
    extra = 0
    verbose_name_plural = (
        "Fixed prices: the first matching pattern applies; all other models are billed at cost plus markup"
    )

    def get_extra(self, request: HttpRequest, obj: PlanVersion | None = None, **kwargs: Any) -> int:
        source = _copied_version(request) if obj is None else None
        return 0 if source is None else source.rates.count()

    def has_add_permission(self, request: HttpRequest, obj: PlanVersion | None = None) -> bool:
        return _may_edit(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: PlanVersion | None = None) -> bool:
        return _may_edit(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: PlanVersion | None = None) -> bool:
        return _may_edit(request, obj)

    def has_view_permission(self, request: HttpRequest, obj: PlanVersion | None = None) -> bool:
        return request.user.has_perm("billing.view_planversion") or _may_edit(request, obj)


@admin.register(PlanVersion)
class PlanVersionAdmin(_TermsColumns, GatewayAdmin[PlanVersion]):
    form = PlanVersionForm
    change_form_template = "admin/billing/plan/version.html"
    list_display = ("plan", "since", "markup", "fee", "commitment")
    list_display_links = ("plan", "since")
    list_filter = ("plan", "currency")
    list_select_related = ("plan",)
    ordering = ("plan__name", "-effective_from")
    inlines = (RateInline,)
    fieldsets = (
        (None, {"fields": ("plan", "effective_from", "currency")}),
        (
            "Monthly terms",
            {
                "fields": (
                    *("markup_percent", "flat_fee", "minimum_commitment"),
                    *("allowance_tokens", "allowance_amount", "discount_percent"),
                )
            },
        ),
        ("For the record", {"fields": ("note",)}),
    )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(partial(estimate_view, self))
        return [path("<int:version_id>/estimate/", view, name="billing_planversion_estimate"), *super().get_urls()]

    def why_unchangeable(self, obj: PlanVersion) -> str:
        return why_unchangeable(obj)

    def get_readonly_fields(self, request: HttpRequest, obj: PlanVersion | None = None) -> Any:
        return ("plan",) if obj else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        source = _copied_version(request)
        return super().get_changeform_initial_data(request) if source is None else copied_terms(source)

    def get_formset_kwargs(self, request: HttpRequest, obj: Any, inline: Any, prefix: str) -> dict[str, Any]:
        """Copied prices are set as the form's initial values only, so that posting them back counts as a change and
        saves them.
        """
        kwargs: dict[str, Any] = super().get_formset_kwargs(request, obj, inline, prefix)
        source = _copied_version(request) if obj.pk is None and request.method == "GET" else None
        if source is not None:
            kwargs["initial"] = list(source.rates.values(*RATE_FIELDS))
        return kwargs

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        version = self.get_object(request, object_id)
        context: dict[str, Any] = {}
        if version is not None:
            may_add = self.has_add_permission(request)
            context["is_used"] = is_used(version)
            buttons = [ObjectButton("New version", _new_version_url(version.plan, version))] if may_add else []
            if request.user.has_perm("billing.view_invoice"):
                url = reverse("admin:billing_planversion_estimate", args=(version.pk,))
                buttons = [ObjectButton("Try on a month", url), *buttons]
            context["object_buttons"] = buttons
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: PlanVersion, form: Any, change: bool) -> None:
        """Raises ValidationError if an invoice was submitted since the form was validated."""
        lock_plan(obj.plan_id)
        if not change:
            obj.created_by = user_of(request)
        elif why := why_unchangeable(obj):
            raise ValidationError(why)
        # Also for an existing version: its month or currency may have changed.
        if problems := problems_of_version(obj):
            raise ValidationError(problems)
        obj.save()

    @admin.display(description="From", ordering="effective_from")
    def since(self, version: PlanVersion) -> str:
        return f"{version.effective_from:%Y-%m}"


def _number(value: Decimal, unit: str) -> SafeString:
    """Without trailing zeros."""
    text = f"{value:,f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return format_html('<span class="gw-num">{} <span class="gw-hint">{}</span></span>', text, unit)


def _may_edit(request: HttpRequest, version: PlanVersion | None) -> bool:
    if version is None or version.pk is None:
        return request.user.has_perm("billing.add_planversion")
    may_change = request.user.has_perm("billing.change_planversion")
    return may_change and (was_refused(request) or not is_used(version))


def _copied_version(request: HttpRequest) -> PlanVersion | None:
    text = request.GET.get(_COPIED, "")
    return PlanVersion.objects.select_related("plan").filter(pk=int(text)).first() if is_id(text) else None


def _new_version_url(plan: Plan, source: PlanVersion | None) -> str:
    query = f"plan={plan.pk}" if source is None else f"{_COPIED}={source.pk}"
    return f"{reverse('admin:billing_planversion_add')}?{query}"
