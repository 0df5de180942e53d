"""API tokens of staff: listed and revoked here, created by `manage.py create_api_token`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from rest_framework.authtoken.models import TokenProxy

from billing.models import StaffToken
from billing.staff.tokens import revoke_token
from llm.admin.confirmation import ConfirmedAction, ConfirmedActionsAdmin
from llm.admin.format import badge, moment

# DRF's admin page shows tokens in plain text and lets staff create more.
admin.site.unregister(TokenProxy)


class TokenStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("usable", "Active"), ("expired", "Expired"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[StaffToken]) -> QuerySet[StaffToken]:
        now = timezone.now()
        conditions = {
            "usable": Q(revoked_at=None, expires_at__gt=now),
            "expired": Q(revoked_at=None, expires_at__lte=now),
            "revoked": Q(revoked_at__isnull=False),
        }
        return queryset.filter(conditions.get(self.value() or "", Q()))


def _revoke(token: StaffToken) -> str | None:
    return "Revoked." if revoke_token(token) else None


@admin.register(StaffToken)
class StaffTokenAdmin(ConfirmedActionsAdmin[StaffToken]):
    list_display = ("name", "token", "user", "may", "state", "expires")
    list_filter = (TokenStateFilter,)
    list_select_related = ("user",)
    search_fields = ("name", "prefix", "last_four", "user__username")
    search_help_text = "Search by name, user, or the token's prefix or last four characters."
    sortable_by = ()
    fields = readonly_fields = ("name", "token", "user", "may", "state", "expires", "created", "revoked")
    confirmed_actions = (
        ConfirmedAction(
            name="revoke",
            label="Revoke",
            consequence="The management API refuses the token from the next request. This can't be undone.",
            done="revoked",
            applies_to=lambda token: token.revoked_at is None,
            perform=_revoke,
            is_dangerous=True,
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: StaffToken | None = None) -> bool:
        """Deleted with their user: nothing refers to a token, and otherwise a user with tokens couldn't be deleted."""
        return bool(request.user.has_perm("billing.delete_stafftoken"))

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    @admin.display(description="API token")
    def token(self, token: StaffToken) -> SafeString:
        return format_html('<code class="gw-key">{}</code>', token.masked)

    @admin.display(description="Scopes")
    def may(self, token: StaffToken) -> str:
        return ", ".join(token.scopes)

    @admin.display(description="State")
    def state(self, token: StaffToken) -> SafeString:
        return badge(token.refusal_at(timezone.now()) or "active")

    @admin.display(description="Expires")
    def expires(self, token: StaffToken) -> str:
        return moment(token.expires_at)

    @admin.display(description="Created")
    def created(self, token: StaffToken) -> str:
        return moment(token.created_at)

    @admin.display(description="Revoked")
    def revoked(self, token: StaffToken) -> str:
        return moment(token.revoked_at)
