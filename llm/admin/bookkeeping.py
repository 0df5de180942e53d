"""How the books are kept: rejected entries, audits, and the processes that write. Read-only."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llm.admin.base import ReadOnlyAdmin
from llm.admin.format import badge, milliseconds, moment
from llm.models import BooksCheck, OpenCall, Process, Redaction, RefusedWrite, ScheduledTask, Usage
from llm.money import plural

_R = TypeVar("_R", RefusedWrite, Redaction)


@admin.register(RefusedWrite)
class RefusedWriteAdmin(ReadOnlyAdmin[RefusedWrite]):
    list_display = ("recorded", "reason", "call")
    search_fields = ("usage_id__exact",)
    search_help_text = "Search by full call ID."
    sortable_by = ()

    def get_fieldsets(self, request: HttpRequest, obj: RefusedWrite | None = None) -> Any:
        """None: the page has its own template."""
        return ((None, {"fields": ("digest",)}),)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[RefusedWrite], search_term: str
    ) -> tuple[QuerySet[RefusedWrite], bool]:
        """Django would pass a malformed UUID to the database."""
        text = search_term.strip()
        return (_of_call(queryset, text) if text else queryset), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        refused = self.get_object(request, object_id)
        is_on_books = refused is not None and any(
            model._default_manager.filter(pk=refused.usage_id).exists() for model in (OpenCall, Usage)
        )
        context = {"title": "Rejected ledger entry", "subtitle": None, "is_on_books": is_on_books}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    @admin.display(description="Recorded (UTC)")
    def recorded(self, refused: RefusedWrite) -> str:
        return moment(refused.recorded_at)

    @admin.display(description="Call")
    def call(self, refused: RefusedWrite) -> SafeString:
        return format_html('<span class="gw-mono">{}</span>', refused.usage_id)


@admin.register(ScheduledTask)
class ScheduledTaskAdmin(ReadOnlyAdmin[ScheduledTask]):
    list_display = ("name", "started", "ended", "attempts")
    sortable_by = ()
    fields = list_display
    readonly_fields = fields

    @admin.display(description="Last started (UTC)")
    def started(self, task: ScheduledTask) -> str:
        return moment(task.started_at)

    @admin.display(description="Last finished (UTC)")
    def ended(self, task: ScheduledTask) -> str:
        return moment(task.ended_at) if task.ended_at else "never"


@admin.register(Redaction)
class RedactionAdmin(ReadOnlyAdmin[Redaction]):
    """Values of closed rows that contained one of our keys."""

    list_display = ("redacted", "field", "call")
    search_fields = ("usage_id__exact",)
    search_help_text = "Search by full call ID."
    sortable_by = ()
    fields = ("redacted", "field", "call")
    readonly_fields = fields

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Redaction], search_term: str
    ) -> tuple[QuerySet[Redaction], bool]:
        """Django would pass a malformed UUID to the database."""
        text = search_term.strip()
        return (_of_call(queryset, text) if text else queryset), False

    @admin.display(description="Blanked (UTC)")
    def redacted(self, redaction: Redaction) -> str:
        return moment(redaction.redacted_at)

    @admin.display(description="Call")
    def call(self, redaction: Redaction) -> SafeString:
        return format_html('<span class="gw-mono">{}</span>', redaction.usage_id)


class ProblemsFilter(admin.SimpleListFilter):
    title = "result"
    parameter_name = "result"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("problems", "Problems"), ("none", "No problems")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[BooksCheck]) -> QuerySet[BooksCheck]:
        conditions = {"problems": Q(problems__gt=0), "none": Q(problems=0)}
        return queryset.filter(conditions.get(self.value() or "", Q()))


@admin.register(BooksCheck)
class BooksCheckAdmin(ReadOnlyAdmin[BooksCheck]):
    list_display = ("started", "result", "scope_checked", "rows_checked", "windows_checked", "took")
    list_filter = (ProblemsFilter,)
    sortable_by = ()

    def get_fieldsets(self, request: HttpRequest, obj: BooksCheck | None = None) -> Any:
        """None: the page has its own template."""
        return ((None, {"fields": ("rows",)}),)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        check = self.get_object(request, object_id)
        context = {"title": "Ledger audit", "subtitle": None, "took": self.took(check) if check else ""}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    @admin.display(description="Started (UTC)")
    def started(self, check: BooksCheck) -> str:
        return moment(check.started_at)

    @admin.display(description="Result")
    def result(self, check: BooksCheck) -> SafeString:
        return badge("problems", plural(check.problems, "problem")) if check.problems else badge("no problems")

    @admin.display(description="Checked")
    def scope_checked(self, check: BooksCheck) -> str:
        return check.get_scope_display()

    @admin.display(description="Calls")
    def rows_checked(self, check: BooksCheck) -> str:
        return f"{check.rows:,}"

    @admin.display(description="Limit periods")
    def windows_checked(self, check: BooksCheck) -> str:
        return f"{check.windows:,}"

    @admin.display(description="Duration")
    def took(self, check: BooksCheck) -> str:
        return milliseconds((check.ended_at - check.started_at) // timedelta(milliseconds=1))


class ProcessStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("alive", "Alive"), ("silent", "Silent"), ("ended", "Ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Process]) -> QuerySet[Process]:
        silent_since = _silent_since(timezone.now())
        conditions = {
            "alive": Q(ended_at=None, seen_at__gte=silent_since),
            "silent": Q(ended_at=None, seen_at__lt=silent_since),
            "ended": Q(ended_at__isnull=False),
        }
        return queryset.filter(conditions.get(self.value() or "", Q()))


@admin.register(Process)
class ProcessAdmin(ReadOnlyAdmin[Process]):
    list_display = ("process", "state", "started", "seen", "ended", "boot_id")
    list_filter = (ProcessStateFilter,)
    search_fields = ("host",)
    search_help_text = "By host."
    sortable_by = ()
    readonly_fields = ("process", "state", "started", "seen", "ended", "boot_id")
    fieldsets = (
        (
            None,
            {
                "fields": readonly_fields,
                "description": "A gateway process is alive while its heartbeats arrive. One that falls silent "
                "without having "
                "ended is presumed dead: its open calls are closed with an estimate, for staff to decide.",
            },
        ),
    )

    @admin.display(description="Process")
    def process(self, process: Process) -> SafeString:
        return format_html(
            '<span class="gw-num">{}</span> <span class="gw-hint gw-below">pid {}</span>', process.host, process.pid
        )

    @admin.display(description="State")
    def state(self, process: Process) -> SafeString:
        if process.ended_at is not None:
            return badge("ended")
        return badge("alive" if process.seen_at >= _silent_since(timezone.now()) else "silent")

    @admin.display(description="Started (UTC)")
    def started(self, process: Process) -> str:
        return moment(process.started_at)

    @admin.display(description="Last seen")
    def seen(self, process: Process) -> str:
        return moment(process.seen_at)

    @admin.display(description="Ended")
    def ended(self, process: Process) -> str:
        return moment(process.ended_at)

    @admin.display(description="Boot id")
    def boot_id(self, process: Process) -> SafeString:
        return format_html('<span class="gw-mono">{}</span>', process.pk)


def _silent_since(now: datetime) -> datetime:
    return now - timedelta(seconds=settings.LLM_REAP_AFTER_SECONDS)


def _of_call(rows: QuerySet[_R], text: str) -> QuerySet[_R]:
    try:
        return rows.filter(usage_id=UUID(text))
    except ValueError:
        return rows.none()
