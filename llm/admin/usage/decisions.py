"""The page on which staff decide about a doubtful call: what it used, and whether it is billed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from llm.admin.base import ReadOnlyAdmin
from llm.admin.concurrent_edits import digest_value
from llm.admin.confirmation import SEEN_FIELD
from llm.admin.format import exact_usd
from llm.admin.prices.rate_tables import service_name
from llm.admin.usage.corrections import CorrectedCall, call_figures
from llm.admin.usage.filters import UNDECIDED
from llm.books.adjusting import cost_in_force, decide_call, lock_call
from llm.books.figures import compute_figures
from llm.dialects.usage_figures import (
    EXTRA_METERS,
    MAX_TOKENS,
    AbsurdFigureError,
    merged_service,
    refuse_parts_above_totals,
)
from llm.models import RefusedWrite, Usage, UsageAdjustment
from llm.money import pico_to_usd
from llm.prices.pricing import unusual_words
from llm.types import TOKEN_FIELDS, Service, TokenCounts

DECIDING_PERMISSION = "llm.change_usage"
CHANGED = "The figures of this call were changed since this page was opened. Check them and try again."
ESTIMATE, TYPED = "estimate", "typed"


TOTALS = ("prompt_tokens", "completion_tokens")
PARTS = tuple(name for name in TOKEN_FIELDS if name not in TOTALS)
SERVICE = Service._fields


def _figure(label: str, help_text: str = "") -> forms.IntegerField:
    return forms.IntegerField(label=label, required=False, min_value=0, max_value=MAX_TOKENS, help_text=help_text)


def _word(label: str, help_text: str) -> forms.CharField:
    return forms.CharField(
        label=label, required=False, max_length=50, help_text=help_text, widget=forms.TextInput(attrs={"size": 14})
    )


class DecisionForm(forms.Form):
    """What a call used, by every meter with a price; an empty meter counts as zero.

    An empty service keeps the known one: a `priority` call must not become a standard one because a field was left
    empty.
    """

    billable = forms.ChoiceField(
        label="Is this call billed?",
        choices=[("yes", "Billable: it is charged to the account"), ("no", "Not billable: we bear the cost")],
        widget=forms.RadioSelect,
    )
    figures = forms.ChoiceField(
        label="What did this call use?",
        choices=[(ESTIMATE, "Our estimate"), (TYPED, "The usage in the provider's records:")],
        initial=ESTIMATE,
        widget=forms.RadioSelect,
    )
    prompt_tokens = _figure("Tokens in", "Total, including cached tokens.")
    completion_tokens = _figure("Tokens out", "Total, including reasoning.")
    cache_read_tokens = _figure("Read from the cache")
    cache_write_5m_tokens = _figure("Written to the cache, 5 minutes")
    cache_write_1h_tokens = _figure("Written to the cache, 1 hour")
    audio_input_tokens = _figure("Audio in")
    reasoning_tokens = _figure("Reasoning")
    audio_output_tokens = _figure("Audio out")
    web_searches = _figure("Web searches")
    search_sources = _figure("Sources searched")
    service_tier = _word("Service tier", "Such as priority, or standard.")
    speed = _word("Speed", "Such as fast, or standard.")
    inference_geo = _word("Inference region", "Such as us, or global.")
    reason = forms.CharField(
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 60}),
        help_text="The reason, for the record.",
    )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        for name in (*TOKEN_FIELDS, *EXTRA_METERS, *SERVICE):
            is_given = data.get(name) not in (None, "")
            if data.get("figures") == TYPED and not is_given and name in TOTALS and name not in self.errors:
                self.add_error(name, "Enter a number; 0 is allowed.")
            if data.get("figures") == ESTIMATE and is_given:
                self.add_error(name, "This would be ignored: select the provider's records above, or clear this field.")
        if not self.errors:
            self._check_parts()
        return data

    def _check_parts(self) -> None:
        if (counts := self.counts) is None:
            return
        try:
            refuse_parts_above_totals(counts)
        except AbsurdFigureError:
            self.add_error(
                None,
                "The parts exceed their total: tokens in include cached and audio tokens, tokens out include "
                "reasoning and audio tokens.",
            )

    @property
    def counts(self) -> TokenCounts | None:
        """None keeps the estimate."""
        if self.cleaned_data["figures"] == ESTIMATE:
            return None
        extra = {name: units for name in EXTRA_METERS if (units := self.cleaned_data.get(name))}
        tokens = {name: self.cleaned_data.get(name) or 0 for name in TOKEN_FIELDS}
        return TokenCounts(**tokens, extra_meters=extra)

    @property
    def service(self) -> Service:
        """As typed; empty parts keep the known values."""
        return Service(*(self.cleaned_data.get(name) or "" for name in SERVICE))

    @property
    def parts(self) -> list[forms.BoundField]:
        """The parts of the totals, and units billed beside tokens."""
        return [self[name] for name in (*PARTS, *EXTRA_METERS)]

    @property
    def service_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in SERVICE]


def may_decide(request: HttpRequest) -> bool:
    return request.user.has_perm(DECIDING_PERMISSION)


def decision_view(usage_admin: ReadOnlyAdmin[Usage], request: HttpRequest, object_id: object) -> HttpResponse:
    call = usage_admin.get_object(request, str(object_id))
    if call is None:
        raise Http404
    if not may_decide(request):
        raise PermissionDenied
    known = call_figures(call)
    if not known.is_undecided:
        return _refuse(usage_admin, request, call, "The usage of this call is already known.")
    form = DecisionForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid() and _is_what_was_seen(request, known, form) and _can_be_priced(known, form):
        return _decide(usage_admin, request, call, form)
    return TemplateResponse(request, "admin/llm/usage/decide.html", _context(usage_admin, request, known, form))


def _is_what_was_seen(request: HttpRequest, known: CorrectedCall, form: DecisionForm) -> bool:
    """False if a price correction has changed the estimate meanwhile. `decide_call` refuses calls decided meanwhile."""
    if request.POST.get(SEEN_FIELD) == _seen(known):
        return True
    form.add_error(None, CHANGED)
    return False


def _seen(known: CorrectedCall) -> str:
    return digest_of([each.adjustment for each in known.corrections])


def digest_of(adjustments: Iterable[UsageAdjustment]) -> str:
    """Digest of the figures that a page shows, which follow from the call and its adjustments."""
    return digest_value([each.pk for each in adjustments])


def _can_be_priced(known: CorrectedCall, form: DecisionForm) -> bool:
    """`decide_call` refuses the others too; here the error is shown beside the input."""
    if form.counts is None or known.cost is None:
        return True
    adjustments = [each.adjustment for each in known.corrections]
    service = merged_service(known.figures.service, form.service)
    if cost_in_force(known.call, adjustments, form.counts, service) is not None:
        return True
    words = "".join(f", {each}" for each in unusual_words(service))
    form.add_error(None, f"The price of this call has no rate for this usage{words}: set one, then re-rate the call.")
    return False


def _context(
    usage_admin: ReadOnlyAdmin[Usage], request: HttpRequest, known: CorrectedCall, form: DecisionForm
) -> dict[str, Any]:
    return {
        **usage_admin.admin_site.each_context(request),
        "opts": usage_admin.opts,
        "title": "Decide on a disputed call" if known.call.is_disputed else "Decide on a lost call",
        "call": known.call,
        "known": known,
        "served": served_name(known),
        "claims": _find_claims(known.call),
        "form": form,
        "queue": queue_url(),
        "seen_field": SEEN_FIELD,
        "seen": _seen(known),
    }


def served_name(known: CorrectedCall) -> str:
    """How the call was served, as far as the books know."""
    if any(known.figures.service):
        return service_name(known.figures.service)
    if known.call.is_disputed:
        return "Standard service: the provider named no other"
    return "Unknown: no response was read. If left empty, standard rates apply"


def _find_claims(call: Usage) -> list[Any]:
    """Implausible figures as the provider sent them; a lost call's arrived too late, and were refused."""
    refused = RefusedWrite.objects.filter(usage_id=call.pk).order_by("id").values_list("document", flat=True)
    claims = [call.disputed_usage, *(document.get("disputed_usage") for document in refused)]
    return [claim for claim in claims if claim is not None]


def _decide(usage_admin: ReadOnlyAdmin[Usage], request: HttpRequest, call: Usage, form: DecisionForm) -> HttpResponse:
    try:
        said = _record(usage_admin, request, call, form)
    except ValueError as error:
        return _refuse(usage_admin, request, call, str(error))
    usage_admin.message_user(request, said, messages.SUCCESS)
    return HttpResponseRedirect(queue_url())


@transaction.atomic
def _record(usage_admin: ReadOnlyAdmin[Usage], request: HttpRequest, call: Usage, form: DecisionForm) -> str:
    """Describes the decision. Raises ValueError if another user was faster."""
    if digest_of(lock_call(call.pk).adjustments) != request.POST.get(SEEN_FIELD):
        raise ValueError(CHANGED)
    is_billable = form.cleaned_data["billable"] == "yes"
    decide_call(
        call.pk,
        counts=form.counts,
        service=form.service,
        is_billable=is_billable,
        reason=form.cleaned_data["reason"],
        user=cast("User", request.user),
    )
    figures = compute_figures(call, call.adjustments.model.objects.filter(usage=call).order_by("id"))
    cost = "unpriced" if figures.cost_pico is None else exact_usd(pico_to_usd(figures.cost_pico))
    said = (
        f"Decided: {figures.counts.prompt_tokens:,} tokens in, {figures.counts.completion_tokens:,} out, {cost}, "
        f"{'billable' if is_billable else 'not billable'}."
    )
    usage_admin.log_change(request, call, said)
    return said


def _refuse(usage_admin: ReadOnlyAdmin[Usage], request: HttpRequest, call: Usage, why: str) -> HttpResponse:
    usage_admin.message_user(request, why, messages.ERROR)
    return HttpResponseRedirect(reverse("admin:llm_usage_change", args=(call.pk,)))


def queue_url() -> str:
    """The list of calls that await a decision."""
    return f"{reverse('admin:llm_usage_changelist')}?outcome={UNDECIDED}"
