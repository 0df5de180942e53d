"""Routes: a public model name, the provider's model behind it, and its fallbacks in order."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from llm.admin.base import GatewayAdmin, InlineFormSet, KnownRows, ModelForm, TabularInline
from llm.admin.format import NOTHING, badge, calendar_day
from llm.admin.prices.catalog import price_in_force
from llm.models import ModelRoute, RouteTarget
from llm.providers.registry import find_instance, instances

_ASIDE = 10_000
"""Added to positions while they are rewritten; longer than any list."""


def provider_choices() -> list[tuple[str, str]]:
    """All instances; those that can't be called yet say so."""
    return [
        (each.name, f"{each.name} (not configured)" if each.lacks else each.name)
        for each in sorted(instances().all, key=lambda instance: instance.name)
    ]


class TargetForm(ModelForm[RouteTarget]):
    provider = forms.ChoiceField(choices=provider_choices)
    weight = forms.IntegerField(min_value=0, max_value=1000, required=False, initial=0)

    class Meta:
        model = RouteTarget
        fields = ("position", "weight", "provider", "upstream_model")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance.provider
        if stored and stored not in dict(provider_choices()):
            # Kept to be seen and changed: an instance that is gone, or a provider by its own name.
            known = find_instance(stored)
            label = f"{stored} (unknown)" if known is None else f"{stored} (now {known.name})"
            self.fields["provider"].choices = [(stored, label), *provider_choices()]  # type: ignore[attr-defined]

    def _get_validation_exclusions(self) -> set[str]:
        """Positions are renumbered on save, so until then they needn't be unique."""
        excluded: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return {*excluded, "position"}

    def clean_provider(self) -> str:
        provider: str = self.cleaned_data["provider"]
        if find_instance(provider) is None:
            raise ValidationError(f"“{provider}” is no longer configured; choose another provider.")
        return provider

    def clean_weight(self) -> int:
        return int(self.cleaned_data["weight"] or 0)

    def clean_upstream_model(self) -> str:
        return str(self.cleaned_data["upstream_model"]).strip()


class TargetFormSet(KnownRows, InlineFormSet[RouteTarget, ModelRoute, TargetForm]):
    def clean(self) -> None:
        super().clean()
        kept = [form.cleaned_data for form in self.forms if form.cleaned_data and not form.cleaned_data.get("DELETE")]
        names = [(data.get("provider"), data.get("upstream_model")) for data in kept]
        if self.instance.is_active and not names and not any(form.errors for form in self.forms):
            raise ValidationError("An active route needs at least one target.")
        if len(set(names)) < len(names):
            raise ValidationError("The same model is listed twice; a fallback must be a different one.")
        if "*" not in self.instance.name and any("*" in str(model) for _, model in names):
            raise ValidationError("A target's model may contain * only if the route's name does.")

    def validate_unique(self) -> None:
        """Equal positions aren't an error: what was saved first comes first, and they are renumbered."""

    def save_in_order(self) -> None:
        """Number the targets 0, 1, 2 ... in two steps, since two that swap would meet in one position."""
        stored = RouteTarget.objects.filter(route=self.instance)
        stored.filter(pk__in=[form.instance.pk for form in self.deleted_forms if form.instance.pk]).delete()
        stored.update(position=F("position") + _ASIDE)
        kept = [form for form in self.forms if form not in self.deleted_forms and form.cleaned_data]
        for position, form in enumerate(sorted(kept, key=lambda form: int(form.cleaned_data["position"] or 0))):
            form.instance.route = self.instance
            form.instance.position = position
            form.instance.save()
        # Those that the form didn't show, added by another user or left out by a manipulated form, come last.
        shown = [form.instance.pk for form in kept]
        for position, target in enumerate(stored.exclude(pk__in=shown).order_by("position"), start=len(kept)):
            target.position = position
            target.save(update_fields=["position"])


class TargetInline(TabularInline[RouteTarget, ModelRoute]):
    model = RouteTarget
    form = TargetForm
    formset = TargetFormSet
    extra = 0
    min_num = 1
    fields = ("position", "weight", "provider", "upstream_model", "price")
    readonly_fields = ("price",)
    verbose_name_plural = "Targets: the first is called, or one drawn by weight; the others are fallbacks"

    @admin.display(description="Price in force")
    def price(self, target: RouteTarget) -> SafeString | str:
        if not target.pk or "*" in target.upstream_model:
            return NOTHING
        instance = find_instance(target.provider)
        return price_in_force(instance.booked_as if instance else target.provider, target.upstream_model)


class RouteForm(ModelForm[ModelRoute]):
    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if name.count("*") > 1:
            raise ValidationError("A name may contain one * at most.")
        return name


@admin.register(ModelRoute)
class ModelRouteAdmin(GatewayAdmin[ModelRoute]):
    form = RouteForm
    list_display = ("name", "state", "chain", "created")
    list_filter = ("is_active",)
    search_fields = ("name", "targets__upstream_model")
    inlines = (TargetInline,)
    fieldsets = (
        (
            None,
            {
                "fields": ("name", "is_active", "allows_provider_routing", "falls_back_on_server_error"),
                "description": "The model name that callers request. The first target is called, and the next "
                "one only if the previous one certainly did no work. Among targets with weights, each call draws the "
                "first by weight. A name without a route is passed on unchanged to the default provider.",
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelRoute]:
        return super().get_queryset(request).prefetch_related("targets")

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Django's `save(commit=False)` only collects the changes for the object's history."""
        formset.save(commit=False)
        formset.save_in_order()

    @admin.display(description="State", ordering="is_active")
    def state(self, route: ModelRoute) -> SafeString:
        return badge("active") if route.is_active else badge("closed", "inactive")

    @admin.display(description="Calls")
    def chain(self, route: ModelRoute) -> SafeString | str:
        names = (
            (
                target.provider,
                target.upstream_model,
                f" weight {target.weight}" if target.weight else "",
                _standing(target),
            )
            for target in route.targets.all()
        )
        arrow = SafeString(' <span class="gw-hint">then</span> ')
        one = '<span class="gw-target"><span class="gw-hint">{}</span> {}<span class="gw-hint">{}</span>{}</span>'
        return format_html_join(arrow, one, names) or badge("unpriced", "no target")

    @admin.display(description="Created", ordering="created_at")
    def created(self, route: ModelRoute) -> str:
        return calendar_day(route.created_at)


def _standing(target: RouteTarget) -> SafeString:
    """A badge for a target that can't be called."""
    instance = find_instance(target.provider)
    return badge("unpriced", "not configured") if instance is None or instance.lacks else SafeString("")
