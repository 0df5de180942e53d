"""What an invoice's page shows beside the invoice's own content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.db.models import Sum
from django.urls import reverse

from billing.admin.invoices.formatting import (
    change_text,
    estimated_share,
    flag_badges,
    margin_percent,
    margin_text,
    overdue_badge,
    state_badge,
    usage_change_text,
)
from billing.admin.invoices.review_queue import BY_ATTENTION
from billing.admin.invoices.steps import Step, open_steps
from billing.enums import InvoiceKind, InvoiceState, LineKind
from billing.invoices.blockers import find_blockers, open_calls_note
from billing.invoices.glyphs import missing_now, missing_sentence
from billing.invoices.line_calls import has_calls
from billing.invoices.messages import REMINDER_EVENT, find_mails
from billing.invoices.parties import BillTo, bill_to_of
from billing.invoices.payments import Balance, balance_of
from billing.invoices.taxes import Tax, taxes_of
from billing.models import DailyUsage, Invoice, InvoiceEvent, InvoiceLine, OneOffLine, Payment
from billing.models.invoices import FINAL_STATES
from billing.periods import BillingPeriod
from llm.admin.format import badge
from llm.fields import ExactSum
from llm.models import ApiKey, Outbox

FLAG_MEANINGS = {
    "open": "Calls of the month are still in flight; their usage is billed as late usage on the next invoice.",
    "undecided": (
        "Calls were lost because the gateway restarted before their usage was recorded; staff must decide "
        "what they used."
    ),
    "disputed": (
        "Providers reported usage that can't be right; these calls are not billed unless staff decide so, under Usage."
    ),
    "unpriced": "Calls have no price and are charged at zero; they block issuing.",
    "estimated": (
        "At least 5 % of the cost is for tokens that we estimated: no provider reported them, and staff have not "
        "decided on them."
    ),
    "jump": "The total, or the cost of the usage, differs by more than half from the previous month.",
    "first": "The account has not been billed before.",
    "new_key": "A key was created in the month.",
    "late": "There are lines for earlier months.",
    "catch_up": "The month ended a while ago without an invoice: its fee or minimum commitment is billed now.",
    "one_off": "Staff added a charge or an allowance by hand; its reason is below the lines.",
    "negative": "A charge is negative: something is refunded.",
    "loss": "We pay the providers more than we charge.",
    "profile": "The billing profile has no address, no email, or a country that doesn't exist.",
    "seller": "The seller's details are incomplete; that blocks issuing.",
    "glyphs": "When the invoice was drafted, no font had some of its characters.",
}


@dataclass(frozen=True, slots=True)
class PageLine:
    """calls_url: the page of the calls behind the line; "" if it has none."""

    line: InvoiceLine
    calls_url: str


@dataclass(frozen=True, slots=True)
class LineGroup:
    period: BillingPeriod
    is_late: bool
    lines: Sequence[PageLine]


@dataclass(frozen=True, slots=True)
class KeyUsage:
    key: ApiKey
    calls: int
    tokens: int
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Blocker:
    """url: the page on which it can be settled; "" if there is none."""

    sentence: str
    url: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The invoices before and after this one among those in the same state, in the queue's order. position: from 1."""

    position: int = 0
    number: int = 0
    before: Invoice | None = None
    after: Invoice | None = None


@dataclass(frozen=True, slots=True)
class PageMail:
    """state: a badge. at: when it was sent, failed, or will be sent."""

    message: Outbox
    kind: str
    to: str
    state: str
    at: datetime


@dataclass(frozen=True, slots=True)
class InvoicePage:
    """days, keys: billable usage of the month as currently on the books; empty for credit notes.

    days is read by a script: its costs are USD as text, so that money never becomes a float.
    """

    steps: Sequence[Step]
    state: str
    change: str
    usage_change: str
    margin: str
    margin_share: str
    estimated: str
    flags: Sequence[tuple[str, str]]
    blockers: Sequence[Blocker]
    open_calls: str
    groups: Sequence[LineGroup]
    one_offs: Sequence[OneOffLine]
    balance: Balance
    overdue: str
    payments: Sequence[Payment]
    mails: Sequence[PageMail]
    taxes: Sequence[Tax]
    days: Sequence[dict[str, Any]]
    keys: Sequence[KeyUsage]
    events: Sequence[InvoiceEvent]
    neighbours: Neighbours
    credit_notes: Sequence[Invoice]
    bill_to: BillTo


def invoice_page(invoice: Invoice, user: User) -> InvoicePage:
    """invoice: with its account, original, plan version, exchange rate and users loaded."""
    rows = [] if invoice.kind == InvoiceKind.CREDIT_NOTE else _usage_rows(invoice)
    is_settled = invoice.state in (*FINAL_STATES, InvoiceState.VOID)
    groups = _groups(invoice)
    balance = balance_of(invoice)
    return InvoicePage(
        steps=open_steps(invoice, user),
        state=state_badge(invoice),
        change=change_text(invoice),
        usage_change=usage_change_text(invoice),
        margin=margin_text(invoice),
        margin_share=margin_percent(invoice),
        estimated=estimated_share(invoice),
        flags=_flags(invoice),
        blockers=[] if is_settled else [_blocker(invoice, groups, each) for each in find_blockers(invoice)],
        open_calls="" if is_settled else open_calls_note(invoice),
        groups=groups,
        one_offs=_one_offs(invoice, groups),
        balance=balance,
        overdue=overdue_badge(balance),
        payments=list(Payment.objects.filter(invoice=invoice).select_related("recorded_by").order_by("-id")),
        mails=[_mail(each) for each in find_mails(invoice)] if invoice.state in FINAL_STATES else [],
        taxes=taxes_of(invoice),
        days=_days(invoice, rows) if rows else [],
        keys=_keys(rows),
        events=list(invoice.events.select_related("user").order_by("-id")),
        neighbours=_neighbours(invoice),
        credit_notes=list(invoice.credit_notes.select_related("account").order_by("credit_sequence")),
        bill_to=bill_to_of(invoice),
    )


def _flags(invoice: Invoice) -> list[tuple[str, str]]:
    """Badges and their meanings. Missing characters are checked again: the profile may have changed since the draft."""
    meanings = dict(FLAG_MEANINGS)
    codes = list(invoice.flags)
    if invoice.state != InvoiceState.VOID and (missing := missing_sentence(missing_now(invoice))):
        meanings["glyphs"] = missing
        codes += ["glyphs"] if "glyphs" not in codes else []
    return [(flag_badges([code]), meanings.get(code, "")) for code in codes]


def _groups(invoice: Invoice) -> list[LineGroup]:
    """The invoice's own month first, as on the document, then earlier ones."""
    lines = list(invoice.lines.order_by("position"))
    lines.sort(key=lambda line: (line.period_start != invoice.period_start, line.period_start))
    return [
        LineGroup(
            BillingPeriod(start),
            start != invoice.period_start,
            [PageLine(line, _calls_url(invoice, line)) for line in group],
        )
        for start, group in groupby(lines, key=lambda line: line.period_start)
    ]


def _one_offs(invoice: Invoice, groups: Sequence[LineGroup]) -> list[OneOffLine]:
    """Those on the invoice, and those of a draft's month that have nothing to cover."""
    keys = {row.line.key for group in groups for row in group.lines if row.line.kind == LineKind.ONE_OFF}
    if not keys and (invoice.state != InvoiceState.DRAFT or invoice.kind == InvoiceKind.CREDIT_NOTE):
        return []
    starts = {invoice.period_start, *(group.period.start for group in groups)}
    rows = OneOffLine.objects.filter(account=invoice.account_id, period_start__in=starts).select_related("added_by")
    is_draft = invoice.state == InvoiceState.DRAFT
    return [each for each in rows if each.key in keys or (is_draft and each.removed_at is None)]


_WAITING_STATES = (InvoiceState.DRAFT, InvoiceState.IN_REVIEW, InvoiceState.APPROVED)
MAX_NEIGHBOURS = 5000


def _neighbours(invoice: Invoice) -> Neighbours:
    """There are none unless the invoice waits for a step."""
    if invoice.state not in _WAITING_STATES:
        return Neighbours()
    queue = Invoice.objects.filter(state=invoice.state).order_by(*BY_ATTENTION, "pk")
    ids = list(queue.values_list("pk", flat=True)[:MAX_NEIGHBOURS])
    if invoice.pk not in ids or len(ids) < 2:
        return Neighbours()
    place = ids.index(invoice.pk)
    wanted = (*ids[max(place - 1, 0) : place], *ids[place + 1 : place + 2])
    near = Invoice.objects.select_related("account").in_bulk(wanted)
    before = near[ids[place - 1]] if place else None
    after = near[ids[place + 1]] if place + 1 < len(ids) else None
    return Neighbours(place + 1, len(ids), before, after)


def _mail(message: Outbox) -> PageMail:
    state = "sent" if message.sent_at else "failed" if message.given_up_at else "waiting"
    kind = "Reminder" if message.event == REMINDER_EVENT else "Document"
    at = message.sent_at or message.given_up_at or message.due_at
    return PageMail(message, kind, str(message.payload.get("to", "")), badge(state), at)


def _calls_url(invoice: Invoice, line: InvoiceLine) -> str:
    line.invoice = invoice
    return reverse("admin:billing_invoice_calls", args=(invoice.pk, line.position)) if has_calls(line) else ""


def _usage_url(invoice: Invoice, period: BillingPeriod, **narrowed: str) -> str:
    asked = {
        "account": invoice.account.name,
        **{name: value for name, value in narrowed.items() if value},
        "first": str(period.start),
        "last": str(period.last_day),
    }
    return f"{reverse('admin:llm_usage_changelist')}?{urlencode(asked)}"


_PLACES: dict[str, dict[str, str]] = {
    "lost when": {"outcome": "undecided"},
    "no price": {"cost": "unpriced"},
    "calls without a price": {"cost": "unpriced"},
}
"""Words in a blocker's sentence -> filters for the calls of its month that it is about."""


def _blocker(invoice: Invoice, groups: Sequence[LineGroup], sentence: str) -> Blocker:
    periods = (invoice.period, *(group.period for group in groups))
    period = next((each for each in periods if str(each) in sentence), invoice.period)
    for words, narrowed in _PLACES.items():
        if words in sentence:
            return Blocker(sentence, _usage_url(invoice, period, **narrowed), "These calls")
    return Blocker(sentence)


@dataclass(frozen=True, slots=True)
class _Cell:
    """Billable usage of one key on one day."""

    day: date
    key_id: int
    calls: int
    tokens_in: int
    tokens_out: int
    cost: Decimal


def _usage_rows(invoice: Invoice) -> list[_Cell]:
    period = invoice.period
    usage = DailyUsage.objects.filter(
        account=invoice.account_id, local_day__range=(period.start, period.last_day), is_billable=True
    )
    cells = usage.order_by().values_list("local_day", "api_key")
    sums = (Sum("calls"), Sum("prompt_tokens"), Sum("completion_tokens"), ExactSum("cost"))
    return [_Cell(*row) for row in cells.annotate(*sums)]


def _days(invoice: Invoice, rows: Sequence[_Cell]) -> list[dict[str, Any]]:
    """Every day of the month, including those without usage."""
    calls = dict.fromkeys(invoice.period.days, 0)
    costs = dict.fromkeys(invoice.period.days, Decimal(0))
    for row in rows:
        calls[row.day] += row.calls
        costs[row.day] += row.cost
    return [{"day": str(day), "calls": calls[day], "cost": f"{costs[day]:f}"} for day in calls]


def _keys(rows: Sequence[_Cell]) -> list[KeyUsage]:
    """By cost, highest first."""
    keys = ApiKey.objects.in_bulk({row.key_id for row in rows})
    found = []
    for key_id, key in keys.items():
        own = [row for row in rows if row.key_id == key_id]
        tokens = sum(row.tokens_in + row.tokens_out for row in own)
        found.append(KeyUsage(key, sum(row.calls for row in own), tokens, sum((row.cost for row in own), Decimal(0))))
    return sorted(found, key=lambda each: (-each.cost, -each.calls, each.key.name))
