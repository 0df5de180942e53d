"""API keys: created, rotated, revoked. A secret is shown in one response and stored nowhere."""

from __future__ import annotations

from typing import Any, TypedDict, cast

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin import AdminSite
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.forms import ModelChoiceField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from llm.admin.account_filter import AccountFilter
from llm.admin.autocomplete import ForgivingAutocomplete
from llm.admin.concurrent_edits import digest_row
from llm.admin.confirmation import SEEN_FIELD, ConfirmedAction, ConfirmedActionsAdmin, ObjectButton
from llm.admin.format import NOTHING, calendar_day, moment, moment_of_id
from llm.admin.keys.forms import KeyForm, NewKeyForm, RotateForm
from llm.admin.keys.known_models import warnings_about
from llm.admin.keys.state import KeyStateFilter, day_and_minute, key_state_badge
from llm.admin.limits.limit_admin import limits_of_key
from llm.admin.one_time_forms import claim_form, made_by_form, remember_made
from llm.admin.refusal_summaries import refusals_of_key
from llm.admin.secrets import reduce_secrets
from llm.admin.usage_summaries import latest_call, latest_calls
from llm.keys import create_key, revoke_key, rotate_key
from llm.models import Account, ApiKey


def _revoke(key: ApiKey) -> str:
    revoke_key(key)
    return "Revoked."


def _is_not_revoked_yet(key: ApiKey) -> bool:
    return key.revoked_at is None or key.revoked_at > timezone.now()


@admin.register(ApiKey)
class ApiKeyAdmin(ConfirmedActionsAdmin[ApiKey]):
    form = KeyForm
    list_display = ("name", "key", "account", "state", "last_used", "created")
    list_filter = (KeyStateFilter, AccountFilter)
    list_select_related = ("account",)
    search_fields = ("name", "prefix", "last_four", "account__name", "owner")
    search_help_text = "Search by name, owner, account, or the key's prefix or last four characters."
    readonly_fields = ("key", "account", "state", "created", "last_used", "origin")
    fieldsets = (
        (None, {"fields": ("key", "account", "state", "created", "last_used", "origin")}),
        ("Settings", {"fields": ("name", "owner", "note", "expires_at", "allowed_models")}),
    )
    confirmed_actions = (
        ConfirmedAction(
            name="revoke",
            label="Revoke",
            consequence="The key is refused everywhere from the next call. This can't be undone; to replace a "
            "key without "
            "downtime, rotate it.",
            done="revoked",
            applies_to=_is_not_revoked_yet,
            perform=_revoke,
            is_dangerous=True,
        ),
    )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.rotate_view)
        return [path("<int:object_id>/rotate/", view, name="llm_apikey_rotate"), *super().get_urls()]

    def object_buttons(self, obj: ApiKey) -> list[ObjectButton]:
        if not obj.is_usable:
            return super().object_buttons(obj)
        rotate = ObjectButton("Rotate", reverse("admin:llm_apikey_rotate", args=(obj.pk,)))
        return [rotate, *super().object_buttons(obj)]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        latest = latest_calls("api_key")
        return super().get_queryset(request).annotate(**latest)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ApiKey], search_term: str
    ) -> tuple[QuerySet[ApiKey], bool]:
        prefix, dots, last_four = reduce_secrets(search_term.strip()).partition("…")
        if dots:
            return queryset.filter(prefix=prefix, last_four=last_four), False
        return super().get_search_results(request, queryset, search_term)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Not Django's own, which redirects after the POST and would have to store the secret meanwhile."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        if (repeated := self._answer_repeated(request)) is not None:
            return repeated
        form = NewKeyForm(request.POST or None, initial={"account": request.GET.get("account")})
        account = cast("ModelChoiceField[Account]", form.fields["account"])
        account.widget = ForgivingAutocomplete(ApiKey._meta.get_field("account"), self.admin_site)
        account.widget.choices = account.choices
        if request.method == "POST" and form.is_valid() and claim_form(request):
            return self._create(request, form)
        return self._form_page(request, form)

    def rotate_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        key = self.get_object(request, str(object_id))
        if key is None:
            raise Http404
        if not (self.has_change_permission(request, key) and self.has_add_permission(request)):
            raise PermissionDenied
        if (repeated := self._answer_repeated(request)) is not None:
            return repeated
        form = RotateForm(request.POST or None)
        if request.method == "POST" and form.is_valid() and claim_form(request):
            return self._rotate(request, key, form)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Rotate API key",
            "original": key,
            "form": form,
            "seen_field": SEEN_FIELD,
            "seen": digest_row(key),
        }
        return TemplateResponse(request, "admin/llm/apikey/rotate.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        key = self.get_object(request, object_id)
        may_see = key is not None and request.user.has_perm("llm.view_limit")
        context = limits_of_key(key) if key is not None and may_see else {}
        if key is not None:
            context |= refusals_of_key(request, key)
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Saves only the edited fields: a revocation by another user meanwhile must stay."""
        obj.save(update_fields=form.changed_data)
        if "allowed_models" in form.changed_data:
            self._warn_of_models(request, obj)

    def _warn_of_models(self, request: HttpRequest, key: ApiKey) -> None:
        for sentence in warnings_about(key.allowed_models):
            self.message_user(request, sentence, messages.WARNING)

    def _create(self, request: HttpRequest, form: NewKeyForm) -> HttpResponse:
        try:
            with transaction.atomic():
                key, secret = create_key(form.cleaned_data["account"], **_rights(form))
                key.owner, key.note = form.cleaned_data["owner"], form.cleaned_data["note"]
                key.save(update_fields=["owner", "note"])
                self.log_addition(request, key, f"Created {key.masked} for {key.account}.")
                remember_made(request, key.pk)
        except ValidationError as error:
            return self._refuse(request, error, reverse("admin:llm_apikey_add"))
        self._warn_of_models(request, key)
        return secret_page(self.admin_site, request, key, secret)

    def _rotate(self, request: HttpRequest, key: ApiKey, form: RotateForm) -> HttpResponse:
        try:
            with transaction.atomic():
                self._require_seen(request, key)
                successor, secret = rotate_key(key, grace=form.grace_period)
                key.refresh_from_db()
                ends = (
                    (f"the old key works until {day_and_minute(key.revoked_at)}")
                    if form.grace_period
                    else ("the old key is refused now")
                )
                self.log_change(request, key, f"Rotated to {successor.masked}; {ends}.")
                self.log_addition(request, successor, f"Created {successor.masked} by rotation of {key.masked}.")
                remember_made(request, successor.pk)
        except ValidationError as error:
            return self._refuse(request, error, reverse("admin:llm_apikey_change", args=(key.pk,)))
        return secret_page(self.admin_site, request, successor, secret, replaced=key)

    def _require_seen(self, request: HttpRequest, key: ApiKey) -> None:
        """Locks the key. Raises ValidationError if it was rotated or changed since the page was opened."""
        stored = self.lock_for_change(key)
        if stored is None or digest_row(stored) != request.POST.get(SEEN_FIELD):
            raise ValidationError(
                "The key was changed since the page was opened. It was not rotated: look at it and try again."
            )

    def _answer_repeated(self, request: HttpRequest) -> HttpResponse | None:
        if request.method != "POST" or (key_id := made_by_form(request)) is None:
            return None
        self.message_user(
            request,
            "This form was already submitted and created this key. Its secret can't be shown again; if you "
            "have lost it, rotate the key.",
            messages.WARNING,
        )
        return HttpResponseRedirect(reverse("admin:llm_apikey_change", args=(key_id,)))

    def _refuse(self, request: HttpRequest, error: ValidationError, back: str) -> HttpResponse:
        self.message_user(request, " ".join(error.messages), messages.ERROR)
        return HttpResponseRedirect(back)

    def _form_page(self, request: HttpRequest, form: NewKeyForm) -> HttpResponse:
        fieldsets = [
            (
                None,
                {
                    "fields": ("account", "name", "owner", "note"),
                    "description": "The secret is shown once, on the next page.",
                },
            ),
            ("Restrictions", {"fields": ("expires_at", "allowed_models")}),
        ]
        adminform = AdminForm(form, fieldsets, {}, (), model_admin=self)  # type: ignore[arg-type]
        context = {
            **self.admin_site.each_context(request),
            "title": "Add API key",
            "adminform": adminform,
            "errors": form.errors,
            "media": self.media + adminform.media,
            "inline_admin_formsets": [],
            "show_save_and_continue": False,
            "show_save_and_add_another": False,
            "preserved_filters": "",
        }
        return self.render_change_form(request, context, add=True)

    @admin.display(description="Key", ordering="prefix")
    def key(self, key: ApiKey) -> SafeString:
        return format_html('<code class="gw-key">{}</code>', key.masked)

    @admin.display(description="State")
    def state(self, key: ApiKey) -> SafeString:
        return key_state_badge(key, timezone.now())

    @admin.display(description="Last used")
    def last_used(self, key: ApiKey) -> str:
        return moment(moment_of_id(latest_call(key)))

    @admin.display(description="Created", ordering="created_at")
    def created(self, key: ApiKey) -> str:
        return calendar_day(key.created_at)

    @admin.display(description="Rotation")
    def origin(self, key: ApiKey) -> SafeString | str:
        links = [("replaced", key.rotated_from)] if key.rotated_from else []
        links += [("replaced by", successor) for successor in key.rotations.all()]
        rows = (
            (word, reverse("admin:llm_apikey_change", args=(other.pk,)), f"{other.prefix}…{other.last_four}")
            for word, other in links
        )
        return format_html_join(", ", '{} <a href="{}">{}</a>', rows) or NOTHING


class _Rights(TypedDict):
    name: str
    expires_at: Any
    allowed_models: list[str]


def _rights(form: NewKeyForm) -> _Rights:
    data = form.cleaned_data
    return {"name": data["name"], "expires_at": data["expires_at"], "allowed_models": data["allowed_models"]}


def secret_page(
    site: AdminSite, request: HttpRequest, key: ApiKey, secret: str, *, replaced: ApiKey | None = None
) -> HttpResponse:
    """Must not be stored anywhere: cache, session, message or log, nor in a response rendered later."""
    context = {
        **site.each_context(request),
        "opts": ApiKey._meta,
        "title": "Your new API key",
        "key": key,
        "secret": secret,
        "replaced": replaced,
        "base_url": request.build_absolute_uri("/v1"),
        "model": next(iter(key.allowed_models), settings.LLM_DEFAULT_MODEL or "gpt-4o-mini"),
    }
    response = render(request, "admin/llm/apikey/secret.html", context)
    response["Cache-Control"] = "no-store"
    return response
