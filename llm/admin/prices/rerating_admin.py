"""Price corrections: which past calls were priced again, and what that changed. Read-only."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString

from llm.admin.base import ReadOnlyAdmin
from llm.admin.format import badge, moment, signed_usd, tokens
from llm.models import ReratingRun


@admin.register(ReratingRun)
class ReratingRunAdmin(ReadOnlyAdmin[ReratingRun]):
    list_display = (
        "started",
        "model",
        "provider",
        "first_day",
        "last_day",
        "calls_changed",
        "change",
        "state",
        "reason",
    )
    list_filter = ("provider",)
    search_fields = ("model", "reason")
    search_help_text = "Search by the provider's model name, or by reason."
    sortable_by = ()
    fields = (
        *("provider", "model", "first_day", "last_day", "reason", "calls_changed", "cost_before", "cost_after"),
        *("change", "state", "started", "ended", "started_by"),
    )
    readonly_fields = fields

    @admin.display(description="Started (UTC)")
    def started(self, run: ReratingRun) -> str:
        return moment(run.started_at)

    @admin.display(description="Ended")
    def ended(self, run: ReratingRun) -> str:
        return moment(run.ended_at)

    @admin.display(description="Calls changed")
    def calls_changed(self, run: ReratingRun) -> SafeString:
        return tokens(run.calls)

    @admin.display(description="Cost changed")
    def change(self, run: ReratingRun) -> str:
        return signed_usd(run.cost_after - run.cost_before)

    @admin.display(description="State")
    def state(self, run: ReratingRun) -> SafeString:
        return badge("failed", "not finished") if run.ended_at is None else badge("ok", "done")
