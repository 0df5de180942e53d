"""Mails and webhooks that are sent, due or failed; a failed one can be sent again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llm.admin.account_filter import AccountFilter
from llm.admin.confirmation import ConfirmedAction, ConfirmedActionsAdmin
from llm.admin.format import NOTHING, badge, moment
from llm.alerts.outbox import NOBODY, compose
from llm.enums import OutboxKind
from llm.models import Outbox

GIVEN_UP = Q(sent_at=None, given_up_at__isnull=False)
_UNADDRESSED = Q(sent_at__isnull=False, last_result=NOBODY)


class MessageStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("waiting", "Waiting"), ("sent", "Sent"), ("unaddressed", "No recipient"), ("given_up", "Failed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Outbox]) -> QuerySet[Outbox]:
        conditions = {
            "waiting": Q(sent_at=None, given_up_at=None),
            "sent": Q(sent_at__isnull=False) & ~_UNADDRESSED,
            "unaddressed": _UNADDRESSED,
            "given_up": GIVEN_UP,
        }
        return queryset.filter(conditions.get(self.value() or "", Q()))


def _send_again(message: Outbox) -> str | None:
    given_up = Outbox.objects.filter(GIVEN_UP, pk=message.pk)
    return "Queued again." if given_up.update(given_up_at=None, due_at=timezone.now()) else None


@admin.register(Outbox)
class OutboxAdmin(ConfirmedActionsAdmin[Outbox]):
    list_display = ("created", "what", "told", "state_and_moment", "tries")
    list_filter = (MessageStateFilter, "kind", AccountFilter)
    list_select_related = ("account",)
    search_fields = ("account__name", "cause")
    search_help_text = "By account or cause."
    sortable_by = ()
    confirmed_actions = (
        ConfirmedAction(
            name="send_again",
            label="Send again",
            consequence="It is queued for immediate delivery. If that fails as well, it is marked as failed again.",
            done="queued again",
            applies_to=lambda message: message.sent_at is None and message.given_up_at is not None,
            perform=_send_again,
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Outbox | None = None) -> Any:
        """None: the page has its own template."""
        return ((None, {"fields": ("cause",)}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Outbox | None = None) -> Any:
        return ("cause",)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The permission to change a message only allows sending it again; there is no edit form."""
        if request.method == "POST":
            raise PermissionDenied
        message = self.get_object(request, object_id)
        context = {
            "title": "Message",
            "subtitle": None,
            "state": self.state(message) if message else "",
            **(_content(message) if message else {}),
            "show_save": False,
            "show_save_and_continue": False,
        }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    @admin.display(description="Written (UTC)")
    def created(self, message: Outbox) -> str:
        return moment(message.created_at)

    @admin.display(description="State")
    def state(self, message: Outbox) -> SafeString:
        if message.sent_at is not None:
            return badge("no recipient") if message.last_result == NOBODY else badge("sent")
        return badge("waiting") if message.given_up_at is None else badge("failed")

    @admin.display(description="Event")
    def what(self, message: Outbox) -> SafeString:
        kind = message.get_kind_display()
        return format_html('{}<span class="gw-hint gw-below">{}</span>', message.event, kind)

    @admin.display(description="State, since or due")
    def state_and_moment(self, message: Outbox) -> SafeString:
        when = moment(message.sent_at or message.given_up_at or message.due_at)
        is_waiting = message.sent_at is None and message.given_up_at is None
        due = "due " if is_waiting else ""
        return format_html('{}<span class="gw-hint gw-below gw-num">{}{}</span>', self.state(message), due, when)

    @admin.display(description="Account")
    def told(self, message: Outbox) -> str:
        return NOTHING if message.account is None else message.account.name

    @admin.display(description="Attempts, last result")
    def tries(self, message: Outbox) -> SafeString:
        return format_html('{}<span class="gw-hint gw-below">{}</span>', message.attempts, message.last_result)


def _content(message: Outbox) -> dict[str, Any]:
    """What its receiver reads. Nothing for messages that this release can't write any more: those have only facts."""
    try:
        address, notice = compose(message)
    except (KeyError, TypeError, ValueError):
        return {}
    if message.kind == OutboxKind.MAIL:
        return {"address": address, "mail": notice.mail}
    return {"address": address, "facts": notice.facts}
