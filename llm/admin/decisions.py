"""The page on which staff decide on a call in doubt: what it used, and whether it is billed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from llm.admin.corrections import CallFigures, call_figures
from llm.admin.format import exact_usd
from llm.admin.usagefilters import UNDECIDED
from llm.books.adjusting import cost_in_force, decide_call
from llm.books.figures import figures_of
from llm.dialects.usage_figures import MOST_TOKENS
from llm.models import RefusedWrite, Usage
from llm.money import pico_to_usd
from llm.types import TokenCounts

if TYPE_CHECKING:
    from llm.admin.usage import UsageAdmin

DECIDING_PERMISSION = "llm.change_usage"
ESTIMATE, TYPED = "estimate", "typed"


class DecisionForm(forms.Form):
    billable = forms.ChoiceField(
        label="Is it billed?",
        choices=[("yes", "Billable: it is charged to the account"), ("no", "Not billable: it stays with us")],
        widget=forms.RadioSelect,
    )
    figures = forms.ChoiceField(
        label="What did it use?",
        choices=[(ESTIMATE, "Our estimate"), (TYPED, "As the provider's own records say:")],
        initial=ESTIMATE,
        widget=forms.RadioSelect,
    )
    prompt_tokens = forms.IntegerField(label="Tokens in", required=False, min_value=0, max_value=MOST_TOKENS)
    completion_tokens = forms.IntegerField(label="Tokens out", required=False, min_value=0, max_value=MOST_TOKENS)
    reason = forms.CharField(
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 60}),
        help_text="Why, for whoever reads the books in a year.",
    )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        for name in ("prompt_tokens", "completion_tokens"):
            is_given = data.get(name) is not None
            if data.get("figures") == TYPED and not is_given and name not in self.errors:
                self.add_error(name, "Give a number; 0 is one.")
            if data.get("figures") == ESTIMATE and is_given:
                self.add_error(name, "This would not count: choose the provider's records above, or clear it.")
        return data

    @property
    def counts(self) -> TokenCounts | None:
        """None keeps the estimate."""
        if self.cleaned_data["figures"] == ESTIMATE:
            return None
        return TokenCounts(self.cleaned_data["prompt_tokens"], self.cleaned_data["completion_tokens"])


def may_decide(request: HttpRequest) -> bool:
    return request.user.has_perm(DECIDING_PERMISSION)


def decision_view(usage_admin: UsageAdmin, request: HttpRequest, object_id: object) -> HttpResponse:
    call = usage_admin.get_object(request, str(object_id))
    if call is None:
        raise Http404
    if not may_decide(request):
        raise PermissionDenied
    known = call_figures(call)
    if not known.is_undecided:
        return _refuse(usage_admin, request, call, "What this call has used is known already.")
    form = DecisionForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid() and _can_be_priced(known, form):
        return _decide(usage_admin, request, call, form)
    return TemplateResponse(request, "admin/llm/usage/decide.html", _context(usage_admin, request, known, form))


def _can_be_priced(known: CallFigures, form: DecisionForm) -> bool:
    """`decide_call` refuses the others; here it is said beside what was typed."""
    if form.counts is None or known.cost is None:
        return True
    adjustments = [each.adjustment for each in known.corrections]
    if cost_in_force(known.call, adjustments, form.counts, known.figures.service) is not None:
        return True
    form.add_error(None, "The price of this call has no cost for so many tokens.")
    return False


def _context(usage_admin: UsageAdmin, request: HttpRequest, known: CallFigures, form: DecisionForm) -> dict[str, Any]:
    return {
        **usage_admin.admin_site.each_context(request),
        "opts": usage_admin.opts,
        "title": "Decide on a disputed call" if known.call.is_disputed else "Decide on a lost call",
        "call": known.call,
        "known": known,
        "claims": _claims_of(known.call),
        "form": form,
        "queue": queue_url(),
    }


def _claims_of(call: Usage) -> list[Any]:
    """Absurd figures as the upstream sent them; those of a lost call came too late, and were refused."""
    refused = RefusedWrite.objects.filter(usage_id=call.pk).order_by("id").values_list("document", flat=True)
    claims = [call.disputed_usage, *(document.get("disputed_usage") for document in refused)]
    return [claim for claim in claims if claim is not None]


def _decide(usage_admin: UsageAdmin, request: HttpRequest, call: Usage, form: DecisionForm) -> HttpResponse:
    try:
        said = _record(usage_admin, request, call, form)
    except ValueError as error:
        return _refuse(usage_admin, request, call, str(error))
    usage_admin.message_user(request, said, messages.SUCCESS)
    return HttpResponseRedirect(queue_url())


@transaction.atomic
def _record(usage_admin: UsageAdmin, request: HttpRequest, call: Usage, form: DecisionForm) -> str:
    """Says what was decided. Raises ValueError where somebody was quicker."""
    is_billable = form.cleaned_data["billable"] == "yes"
    decide_call(
        call.pk,
        counts=form.counts,
        is_billable=is_billable,
        reason=form.cleaned_data["reason"],
        user=cast("User", request.user),
    )
    figures = figures_of(call, call.adjustments.model.objects.filter(usage=call).order_by("id"))
    cost = "unpriced" if figures.cost_pico is None else exact_usd(pico_to_usd(figures.cost_pico))
    said = (
        f"Decided: {figures.counts.prompt_tokens:,} tokens in, {figures.counts.completion_tokens:,} out, {cost}, "
        f"{'billable' if is_billable else 'not billable'}."
    )
    usage_admin.log_change(request, call, said)
    return said


def _refuse(usage_admin: UsageAdmin, request: HttpRequest, call: Usage, why: str) -> HttpResponse:
    usage_admin.message_user(request, why, messages.ERROR)
    return HttpResponseRedirect(reverse("admin:llm_usage_change", args=(call.pk,)))


def queue_url() -> str:
    """The list of calls that wait for a decision."""
    return f"{reverse('admin:llm_usage_changelist')}?outcome={UNDECIDED}"
