"""Several doubtful calls decided at once: each at our estimate, in its own transaction, with one reason."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from llm.admin.base import ReadOnlyAdmin
from llm.admin.usage.corrections import WITH_CORRECTIONS, call_figures
from llm.admin.usage.decisions import CHANGED, digest_of, may_decide, queue_url
from llm.books.adjusting import decide_call, lock_call
from llm.models import Usage
from llm.money import plural

MAX_AT_ONCE = 100


class ManyDecisionsForm(forms.Form):
    billable = forms.ChoiceField(
        label="Are these calls billed?",
        choices=[("yes", "Billable: they are charged to their accounts"), ("no", "Not billable: we bear the cost")],
        widget=forms.RadioSelect,
    )
    reason = forms.CharField(
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 60}),
        help_text="The reason, for the record of each call.",
    )


def decide_many_view(usage_admin: ReadOnlyAdmin[Usage], request: HttpRequest) -> HttpResponse:
    if not may_decide(request):
        raise PermissionDenied
    form = ManyDecisionsForm(request.POST if request.method == "POST" else None)
    chosen = _chosen(request)
    if form.is_bound and not chosen:
        form.add_error(None, "Choose at least one call.")
    if form.is_bound and form.is_valid():
        return _decide_all(usage_admin, request, form, chosen)
    undecided = Usage.objects.undecided().select_related("account", "api_key").prefetch_related(WITH_CORRECTIONS)
    calls = [call_figures(call) for call in undecided.order_by("id")[: MAX_AT_ONCE + 1]]
    context = {
        **usage_admin.admin_site.each_context(request),
        "opts": usage_admin.opts,
        "title": "Decide several calls",
        "form": form,
        "calls": [(known, digest_of([each.adjustment for each in known.corrections])) for known in calls[:MAX_AT_ONCE]],
        "has_more": len(calls) > MAX_AT_ONCE,
        "chosen": {str(pk) for pk in chosen},
        "queue": queue_url(),
        "limit": MAX_AT_ONCE,
    }
    return TemplateResponse(request, "admin/llm/usage/decide_many.html", context)


def _chosen(request: HttpRequest) -> dict[UUID, str]:
    """By call, the digest of the figures that its row of the page was made of."""
    found: dict[UUID, str] = {}
    for text in request.POST.getlist("call")[:MAX_AT_ONCE]:
        identifier, _, seen = text.partition("=")
        try:
            found[UUID(identifier)] = seen
        except ValueError:
            continue
    return found


def _decide_all(
    usage_admin: ReadOnlyAdmin[Usage], request: HttpRequest, form: ManyDecisionsForm, chosen: dict[UUID, str]
) -> HttpResponse:
    is_billable = form.cleaned_data["billable"] == "yes"
    decided, refused = 0, []
    for pk, seen in chosen.items():
        try:
            _decide(usage_admin, request, pk, seen, is_billable=is_billable, reason=form.cleaned_data["reason"])
            decided += 1
        except (ValueError, Usage.DoesNotExist) as error:
            refused.append(f"{pk}: {error}")
    if decided:
        word = "billable" if is_billable else "not billable"
        usage_admin.message_user(request, f"Decided {plural(decided, 'call')}: {word}.", messages.SUCCESS)
    if refused:
        usage_admin.message_user(
            request, f"{plural(len(refused), 'call')} not decided. {' '.join(refused[:5])}", messages.WARNING
        )
    return HttpResponseRedirect(queue_url())


@transaction.atomic
def _decide(usage_admin: ReadOnlyAdmin[Usage], request: HttpRequest, pk: UUID, seen: str, **decision: Any) -> None:
    """Raises ValueError if another user was faster."""
    if digest_of(lock_call(pk).adjustments) != seen:
        raise ValueError(CHANGED)
    decide_call(pk, counts=None, user=cast("User", request.user), **decision)
    said = f"Decided with others, at our estimate: {'billable' if decision['is_billable'] else 'not billable'}."
    usage_admin.log_change(request, Usage.objects.get(pk=pk), said)
