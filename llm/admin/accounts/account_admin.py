"""Accounts: created, suspended, closed, never deleted."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.core.validators import URLValidator
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.forms.utils import flatatt
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from llm.admin.accounts.webhook_secret import masked_webhook_secret, webhook_secret_problem, webhook_secret_view
from llm.admin.base import ModelForm, ReadOnlyInline
from llm.admin.confirmation import ConfirmedAction, ConfirmedActionsAdmin, ObjectButton
from llm.admin.format import badge, calendar_day, moment, moment_of_id
from llm.admin.keys.state import key_state_badge
from llm.admin.limits.limit_admin import limits_of_account
from llm.admin.usage_summaries import latest_call, latest_calls
from llm.enums import AccountStatus
from llm.limits.changes import limits_end_users
from llm.models import Account, ApiKey

_CROSSED = "a limit's soft threshold is crossed. Empty: the gateway's own address gets it, if it has one."


TimeZoneKeeper = Callable[[HttpRequest, Account], SafeString | None]


def keep_time_zone(keeper: TimeZoneKeeper) -> None:
    """For apps on top of this one: a keeper returns a sentence saying where to change an account's zone instead.

    None: it doesn't manage this account's zone.
    """
    _zone_keepers.append(keeper)


_zone_keepers: list[TimeZoneKeeper] = []


class TimeZoneInput(forms.TextInput):
    """A text field that suggests IANA time zone names."""

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        field = super().render(name, value, {**(attrs or {}), "list": "time-zones"}, renderer)
        names = ((zone,) for zone in sorted(zoneinfo.available_timezones()))
        options = format_html_join("", '<option value="{}"></option>', names)
        return format_html("{}<datalist{}>{}</datalist>", field, flatatt({"id": "time-zones"}), options)


class AccountForm(ModelForm[Account]):
    webhook_url = forms.URLField(
        label="Webhook URL",
        required=False,
        max_length=200,
        assume_scheme="https",
        validators=[URLValidator(schemes=["https", "http"])],
        widget=forms.TextInput(attrs={"class": "vTextField", "inputmode": "url"}),
        help_text=f"Receives a signed POST when {_CROSSED}",
    )

    class Meta:
        model = Account
        fields = (
            "name",
            "time_zone",
            "shows_cost",
            "records_end_users",
            "allows_storage",
            "alert_email",
            "webhook_url",
        )
        help_texts = {"alert_email": f"Receives an email when {_CROSSED}"}
        widgets = {"time_zone": TimeZoneInput(attrs={"class": "vTextField"})}

    def clean_records_end_users(self) -> bool:
        records: bool = self.cleaned_data["records_end_users"]
        if not records and self.instance.pk and limits_end_users(self.instance):
            raise forms.ValidationError(
                "This account has limits for each end user, which need to know who they are. End those limits first."
            )
        return records


class KeyInline(ReadOnlyInline[ApiKey, Account]):
    model = ApiKey
    fields = ("key", "state", "expires", "created")
    readonly_fields = fields
    verbose_name_plural = "API keys"
    template = "admin/llm/account/keys.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).order_by("-id")

    @admin.display(description="API key")
    def key(self, key: ApiKey) -> SafeString:
        return format_html('{} <code class="gw-key">{}</code>', key.name, key.masked)

    @admin.display(description="State")
    def state(self, key: ApiKey) -> SafeString:
        return key_state_badge(key, timezone.now())

    @admin.display(description="Expires")
    def expires(self, key: ApiKey) -> str:
        return moment(key.expires_at)

    @admin.display(description="Created")
    def created(self, key: ApiKey) -> str:
        return moment(key.created_at)


def _changes_status(to: AccountStatus) -> Any:
    @transaction.atomic
    def perform(account: Account) -> str | None:
        row = Account.objects.select_for_update(no_key=True).get(pk=account.pk)
        if row.status == to:
            return None
        before, now = row.status, timezone.now()
        if row.status == AccountStatus.CLOSED:
            # No fees are due for the months in between. For accounts closed long ago the start is unknown.
            closed_at = None if row.closed_at is None else row.closed_at.isoformat()
            row.former_closures.append([closed_at, now.isoformat()])
        row.status, row.closed_at = to, now if to is AccountStatus.CLOSED else None
        # Only these fields, so that two people editing the same account don't overwrite each other.
        row.save(update_fields=["status", "closed_at", "former_closures"])
        return f"Status changed from {before} to {to.value}."

    return perform


@admin.register(Account)
class AccountAdmin(ConfirmedActionsAdmin[Account]):
    form = AccountForm
    list_display = ("name", "state", "time_zone", "keys_in_use", "last_call", "created")
    list_filter = ("status",)
    ordering = ("name",)
    search_fields = ("name",)
    readonly_fields = ("state", "created", "last_call", "signed_with")
    inlines = (KeyInline,)
    confirmed_actions = (
        ConfirmedAction(
            name="suspend",
            label="Suspend",
            consequence="All their keys are refused from the next call, until you reactivate them.",
            done="suspended",
            applies_to=lambda account: account.status == AccountStatus.ACTIVE,
            perform=_changes_status(AccountStatus.SUSPENDED),
            is_dangerous=True,
        ),
        ConfirmedAction(
            name="activate",
            label="Activate",
            consequence="Their keys are accepted again from the next call.",
            done="activated",
            applies_to=lambda account: account.status != AccountStatus.ACTIVE,
            perform=_changes_status(AccountStatus.ACTIVE),
        ),
        ConfirmedAction(
            name="close",
            label="Close",
            consequence="All their keys are refused from the next call, and no new ones can be created. Their "
            "billing month ends: the last invoice can be drafted and submitted at once, and no fees are due for later "
            "months. Nothing is removed from the books.",
            done="closed",
            applies_to=lambda account: account.status != AccountStatus.CLOSED,
            perform=_changes_status(AccountStatus.CLOSED),
            is_dangerous=True,
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Account | None = None) -> Any:
        return (*self.readonly_fields, "time_zone") if _where_zone_is_kept(request, obj) else self.readonly_fields

    def get_fieldsets(self, request: HttpRequest, obj: Account | None = None) -> Any:
        own = ("name", "state", "created", "last_call") if obj else ("name",)
        return (
            (
                None,
                {
                    "fields": own,
                    "description": "A customer or team. It owns API keys and limits, and gets the invoices.",
                },
            ),
            (
                "Calendar",
                {
                    "fields": ("time_zone",),
                    "description": format_html(
                        (
                            "Determines the day and month a call counts towards. Calls already recorded keep "
                            "their day. {}"
                        ),
                        _where_zone_is_kept(request, obj) or "A change applies to later calls.",
                    ),
                },
            ),
            ("Replies", {"fields": ("shows_cost",)}),
            ("End users", {"fields": ("records_end_users",)}),
            ("Storage", {"fields": ("allows_storage",)}),
            ("Messages", {"fields": ("alert_email", "webhook_url", *(("signed_with",) if obj else ()))}),
        )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(partial(webhook_secret_view, self))
        return [path("<int:object_id>/webhook-secret/", view, name="llm_account_webhook_secret"), *super().get_urls()]

    def object_buttons(self, obj: Account) -> list[ObjectButton]:
        url = reverse("admin:llm_account_webhook_secret", args=(obj.pk,))
        label = "Replace webhook secret" if obj.webhook_secret else "Create webhook secret"
        return [ObjectButton(label, url), *super().object_buttons(obj)]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        account = self.get_object(request, object_id)
        may_see = account is not None and request.user.has_perm("llm.view_limit")
        context = limits_of_account(account) if account is not None and may_see else {}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        """Saves only the edited fields: a status or secret that another user has changed meanwhile must stay."""
        obj.save(update_fields=form.changed_data if change else None)

    def get_inlines(self, request: HttpRequest, obj: Account | None = None) -> Any:
        return self.inlines if obj and request.user.has_perm("llm.view_apikey") else ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        now = timezone.now()
        in_use = (Q(keys__revoked_at=None) | Q(keys__revoked_at__gt=now)) & (
            Q(keys__expires_at=None) | Q(keys__expires_at__gt=now)
        )
        latest = latest_calls("account")
        return super().get_queryset(request).annotate(usable_keys=Count("keys", filter=in_use, distinct=True), **latest)

    @admin.display(description="Status", ordering="status")
    def state(self, account: Account) -> SafeString:
        return badge(account.status)

    @admin.display(description="Active keys", ordering="usable_keys")
    def keys_in_use(self, account: Account) -> SafeString | str:
        number = account.usable_keys  # type: ignore[attr-defined]
        url = f"{reverse('admin:llm_apikey_changelist')}?account={account.pk}"
        return format_html('<a class="gw-num" href="{}">{}</a>', url, number)

    @admin.display(description="Last call")
    def last_call(self, account: Account) -> str:
        return moment(moment_of_id(latest_call(account)))

    @admin.display(description="Webhook secret")
    def signed_with(self, account: Account) -> SafeString | str:
        if problem := webhook_secret_problem(account):
            return format_html('<span class="gw-note gw-note-warn">{}</span>', problem)
        if not account.webhook_secret:
            return "none yet"
        return format_html('<code class="gw-key">{}</code>', masked_webhook_secret(account))

    @admin.display(description="Created", ordering="created_at")
    def created(self, account: Account) -> str:
        return calendar_day(account.created_at)


def _where_zone_is_kept(request: HttpRequest, account: Account | None) -> SafeString | None:
    if account is None:
        return None
    return next((where for keeper in _zone_keepers if (where := keeper(request, account))), None)
