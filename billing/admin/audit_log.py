"""The audit log as a list: filtered, and as a CSV file. Read-only."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from billing.exports.cells import Value, text_of
from llm.admin.base import ReadOnlyAdmin
from llm.admin.format import NOTHING, badge, moment
from llm.admin.secrets import without_secrets
from llm.admin.trail.describe import Names, describe_changes, describe_row, model_of
from llm.models import AuditEntry
from llm.money import plural
from llm.trail.watched import watched_tables

MAX_EXPORTED = 20_000
MAX_SHOWN = 6
"""Changes of a row in the list; the entry's own page has all of them."""
_AT_ONCE = 500
_HEADING: tuple[Value, ...] = (
    *("id", "time", "action", "user", "via", "address", "object", "object_id", "changes", "detail", "occurrences"),
)


class PeriodFilter(admin.SimpleListFilter):
    title = "time"
    parameter_name = "days"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "Last 24 hours"), ("7", "Last 7 days"), ("30", "Last 30 days"), ("90", "Last 90 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        if self.value() is None:
            return queryset
        if self.value() not in {days for days, _ in self.lookup_choices}:
            return queryset.none()
        return queryset.filter(at__gte=timezone.now() - timedelta(days=int(self.value() or 0)))


class ObjectFilter(admin.SimpleListFilter):
    title = "object"
    parameter_name = "table"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        named = ((table, model_of(table)) for table in watched_tables())
        kinds = [(table, str(capfirst(str(model._meta.verbose_name)))) for table, model in named if model is not None]
        return sorted(kinds, key=lambda pair: pair[1].casefold())

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        return queryset if self.value() is None else queryset.filter(table_name=self.value())


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin[AuditEntry]):
    change_list_template = "admin/billing/audit_log.html"
    list_display = ("time", "what", "who", "changed_object", "changes")
    list_display_links = ("time",)
    list_filter = ("action", PeriodFilter, ObjectFilter)
    allowed_lookups: ClassVar[tuple[str, ...]] = ("row_id", "user_id")
    search_fields = ("actor", "address", "detail", "row_id__exact")
    search_help_text = "Search by user, address, the object's ID, or the address of a download."
    sortable_by = ()
    fields = readonly_fields = ("time", "what", "who", "via", "address", "changed_object", "all_changes", "detail")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.csv_view)
        return [path("csv/", view, name="llm_auditentry_csv"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        query = request.GET.urlencode()
        url = reverse("admin:llm_auditentry_csv")
        return super().changelist_view(
            request, {"csv_url": f"{url}?{query}" if query else url, **(extra_context or {})}
        )

    def csv_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if (elsewhere := without_secrets(request)) is not None:
            return elsewhere
        back = f"{reverse('admin:llm_auditentry_changelist')}?{request.GET.urlencode()}"
        try:
            entries = list(self.get_changelist_instance(request).get_queryset(request)[: MAX_EXPORTED + 1])
        except IncorrectLookupParameters:
            return HttpResponseRedirect(back)
        if len(entries) > MAX_EXPORTED:
            text = f"More than {MAX_EXPORTED:,} entries match. Filter the list, then download it again."
            self.message_user(request, text, messages.ERROR)
            return HttpResponseRedirect(back)
        file = StringIO()
        csv.writer(file, lineterminator="\r\n").writerows(
            [text_of(value) for value in row] for row in (_HEADING, *_rows(entries))
        )
        name = f"audit-log-{timezone.now():%Y%m%dT%H%M%SZ}.csv"
        return HttpResponse(
            file.getvalue().encode(),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Reads the names of what the page shows all at once."""
        changelist = super().get_changelist_instance(request)
        entries = list(changelist.result_list)
        _attach_names(entries)
        changelist.result_list = entries
        return changelist

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> AuditEntry | None:
        entry = super().get_object(request, object_id, from_field)
        if entry is not None:
            _attach_names([entry])
        return entry

    @admin.display(description="Time (UTC)")
    def time(self, entry: AuditEntry) -> SafeString | str:
        return moment(entry.at)

    @admin.display(description="Action")
    def what(self, entry: AuditEntry) -> SafeString:
        times = f" ({plural(entry.occurrences, 'time')})" if entry.occurrences > 1 else ""
        return badge(entry.action, f"{entry.get_action_display()}{times}")

    @admin.display(description="User")
    def who(self, entry: AuditEntry) -> SafeString | str:
        name = entry.actor or ("unknown" if entry.address else entry.via or "database")
        below = entry.via if entry.actor and entry.via != "admin" else entry.address
        if not below:
            return name
        return format_html('{} <span class="gw-hint gw-below">{}</span>', name, below)

    @admin.display(description="Object")
    def changed_object(self, entry: AuditEntry) -> SafeString | str:
        if not entry.table_name:
            return NOTHING
        text = describe_row(entry, _names_of(entry))
        url = _url_of(entry)
        return format_html('<a href="{}">{}</a>', url, text) if url else text

    @admin.display(description="Changes")
    def changes(self, entry: AuditEntry) -> SafeString | str:
        changes = describe_changes(entry, _names_of(entry))
        if not changes:
            return entry.detail or NOTHING
        shown = format_html_join("", "<div>{}</div>", ((str(change),) for change in changes[:MAX_SHOWN]))
        more = len(changes) - MAX_SHOWN
        return format_html('{}<div class="gw-hint">and {} more</div>', shown, more) if more > 0 else shown

    @admin.display(description="Changes")
    def all_changes(self, entry: AuditEntry) -> SafeString | str:
        changes = describe_changes(entry, _names_of(entry))
        return format_html_join("", "<div>{}</div>", ((str(change),) for change in changes)) or NOTHING


def _attach_names(entries: list[AuditEntry]) -> None:
    names = Names(entries)
    for entry in entries:
        entry.names = names  # type: ignore[attr-defined]  # for the columns of the page


def _names_of(entry: AuditEntry) -> Names:
    names: Names = entry.names  # type: ignore[attr-defined]
    return names


def _url_of(entry: AuditEntry) -> str | None:
    model = model_of(entry.table_name)
    if model is None or model not in admin.site._registry:
        return None
    try:
        return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=(entry.row_id,))
    except NoReverseMatch:
        return None


def _rows(entries: list[AuditEntry]) -> Iterator[tuple[Value, ...]]:
    for start in range(0, len(entries), _AT_ONCE):
        part = entries[start : start + _AT_ONCE]
        names = Names(part)
        for entry in part:
            yield (
                entry.pk,
                entry.at.isoformat(timespec="milliseconds"),
                entry.action,
                entry.actor,
                entry.via,
                entry.address,
                describe_row(entry, names),
                entry.row_id,
                "; ".join(str(change) for change in describe_changes(entry, names)),
                entry.detail,
                entry.occurrences,
            )
