"""What the pages of all jobs share: a form that requests the job, and a page that shows its progress."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.pages import user_of
from billing.enums import JobState
from billing.jobs.runner import MAX_ATTEMPTS
from billing.models.jobs import Job
from llm.admin.base import ReadOnlyAdmin
from llm.admin.format import NOTHING, badge, moment

LATE_AFTER = timedelta(minutes=2)
"""Waiting jobs are looked for each minute: by then a worker should have started."""

_TONES = {
    JobState.WAITING: "waiting",
    JobState.RUNNING: "open",
    JobState.DONE: "sent",
    JobState.FAILED: "problems",
}
_J = TypeVar("_J", bound=Job)


class JobAdmin(ReadOnlyAdmin[_J]):
    """unit: what the job's progress counts. Each job has its own template, which extends `admin/billing/job.html`."""

    unit = ""
    list_filter: ClassVar[Any] = ("state",)
    list_select_related: ClassVar[Any] = ("requested_by",)
    sortable_by = ()

    def get_fieldsets(self, request: HttpRequest, obj: _J | None = None) -> Any:
        return ((None, {"fields": ("state",)}),)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        job = self.get_object(request, object_id)
        context: dict[str, Any] = {"subtitle": None}
        if job is not None:
            since = timezone.now() - LATE_AFTER
            context |= {"title": str(job), "job": job, "state": self.state_now(job), "unit": self.unit}
            context["max_attempts"] = MAX_ATTEMPTS
            context["is_late"] = job.state == JobState.WAITING and job.created_at < since
            context |= self.page_of(job)
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def page_of(self, job: _J) -> dict[str, Any]:
        """Template context beside the job itself."""
        return {}

    @admin.display(description="Month")
    def month(self, job: _J) -> str:
        return str(job.period)

    @admin.display(description="State")
    def state_now(self, job: _J) -> SafeString:
        state = JobState(job.state)
        return badge(_TONES[state], state.label)

    @admin.display(description="Progress")
    def how_far(self, job: _J) -> SafeString | str:
        if not job.total:
            return NOTHING
        if job.state == JobState.DONE:
            return format_html('<span class="gw-num">{} {}</span>', f"{job.total:,}", self.unit)
        return format_html(
            '<progress class="bl-progress" max="{}" value="{}"></progress>'
            '<span class="gw-hint gw-num">{} of {} {}</span>',
            job.total,
            job.progress,
            f"{job.progress:,}",
            f"{job.total:,}",
            self.unit,
        )

    @admin.display(description="Requested by")
    def asked_by(self, job: _J) -> str:
        return str(job.requested_by) if job.requested_by else "the system"

    @admin.display(description="When (UTC)")
    def asked_at(self, job: _J) -> str:
        return moment(job.created_at)


def ask_for(request: HttpRequest, job: Job, queue: Callable[[int], None]) -> HttpResponse:
    """Save a new job, hand it to a worker on commit, and redirect to its page."""
    job.requested_by = user_of(request)
    with transaction.atomic():
        job.save(force_insert=True)
        queue(job.pk)
    messages.success(request, f"{job} is in progress.")
    return HttpResponseRedirect(reverse(f"admin:billing_{job._meta.model_name}_change", args=(job.pk,)))
