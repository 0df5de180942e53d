"""What an invoice's page shows, beside what the invoice says itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.db.models import Sum
from django.urls import reverse

from billing.admin.figures import change_text, estimated_share, flag_badges, margin_percent, margin_text, state_badge
from billing.admin.steps import Step, open_steps
from billing.blockers import blockers_of
from billing.enums import InvoiceKind, InvoiceState
from billing.models import DailyUsage, Invoice, InvoiceEvent, InvoiceLine
from billing.models.invoices import FINAL_STATES
from billing.parties import BillTo, bill_to_of
from billing.periods import Period
from llm.fields import ExactSum
from llm.models import ApiKey

FLAG_MEANINGS = {
    "open": "Calls of the month are under way; they block the issue.",
    "undecided": "Calls were lost with their process; somebody must decide what they used.",
    "disputed": "Upstreams reported absurd usage; such calls are not billed unless somebody decides so, under Usage.",
    "unpriced": "Calls have no price and are charged at nothing; they block the issue.",
    "estimated": "Of 5 % of the cost or more the tokens were counted by us, not reported by the provider.",
    "jump": "The total differs by more than half from the month before.",
    "first": "The account was never billed before.",
    "new_key": "A key was made in the month.",
    "late": "There are lines of earlier months.",
    "negative": "A charge is less than nothing: something is taken back.",
    "loss": "We pay the providers more than we charge.",
    "profile": "The billing profile has no address or no e-mail.",
    "seller": "It doesn't say who sends it; that blocks issuing it.",
}


@dataclass(frozen=True, slots=True)
class PageLine:
    """calls_url: the calls behind it; "" where it stands for none."""

    line: InvoiceLine
    calls_url: str


@dataclass(frozen=True, slots=True)
class LineGroup:
    period: Period
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
    """url: where it can be settled; "" where that is no page."""

    sentence: str
    url: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class InvoicePage:
    """days, keys: billable usage of the month as the books stand now; empty of credit notes.

    days: for a script, costs in USD as text: money is never a float on its way.
    """

    steps: Sequence[Step]
    state: str
    change: str
    margin: str
    margin_share: str
    estimated: str
    flags: Sequence[tuple[str, str]]
    blockers: Sequence[Blocker]
    groups: Sequence[LineGroup]
    days: Sequence[dict[str, Any]]
    keys: Sequence[KeyUsage]
    events: Sequence[InvoiceEvent]
    credit_notes: Sequence[Invoice]
    bill_to: BillTo


def invoice_page(invoice: Invoice, user: User) -> InvoicePage:
    """invoice: with its account, original, plan version, rate of exchange and people."""
    rows = [] if invoice.kind == InvoiceKind.CREDIT_NOTE else _usage_rows(invoice)
    is_settled = invoice.state in (*FINAL_STATES, InvoiceState.VOID)
    groups = _groups(invoice)
    return InvoicePage(
        steps=open_steps(invoice, user),
        state=state_badge(invoice),
        change=change_text(invoice),
        margin=margin_text(invoice),
        margin_share=margin_percent(invoice),
        estimated=estimated_share(invoice),
        flags=[(flag_badges([code]), FLAG_MEANINGS.get(code, "")) for code in invoice.flags],
        blockers=[] if is_settled else [_blocker(invoice, groups, each) for each in blockers_of(invoice)],
        groups=groups,
        days=_days(invoice, rows) if rows else [],
        keys=_keys(rows),
        events=list(invoice.events.select_related("user").order_by("-id")),
        credit_notes=list(invoice.credit_notes.select_related("account").order_by("credit_sequence")),
        bill_to=bill_to_of(invoice),
    )


def _groups(invoice: Invoice) -> list[LineGroup]:
    """The invoice's own month first, as on the document, then earlier ones."""
    lines = list(invoice.lines.order_by("position"))
    lines.sort(key=lambda line: (line.period_start != invoice.period_start, line.period_start))
    return [
        LineGroup(
            Period(start),
            start != invoice.period_start,
            [PageLine(line, _calls_url(invoice, line)) for line in group],
        )
        for start, group in groupby(lines, key=lambda line: line.period_start)
    ]


def _calls_url(invoice: Invoice, line: InvoiceLine) -> str:
    if not (line.calls and line.model):
        return ""
    return _usage_url(invoice, Period(line.period_start), model=line.model, provider=line.provider)


def _usage_url(invoice: Invoice, period: Period, **narrowed: str) -> str:
    asked = {
        "account": invoice.account.name,
        **{name: value for name, value in narrowed.items() if value},
        "first": str(period.start),
        "last": str(period.last_day),
    }
    return f"{reverse('admin:llm_usage_changelist')}?{urlencode(asked)}"


_PLACES: dict[str, dict[str, str]] = {
    "are still open": {"status": "open"},
    "were lost": {"outcome": "undecided"},
    "have no price": {"cost": "unpriced"},
    "calls without a price": {"cost": "unpriced"},
}
"""Words of a blocker's sentence -> which calls of its month it speaks of."""


def _blocker(invoice: Invoice, groups: Sequence[LineGroup], sentence: str) -> Blocker:
    periods = (invoice.period, *(group.period for group in groups))
    period = next((each for each in periods if str(each) in sentence), invoice.period)
    for words, narrowed in _PLACES.items():
        if words in sentence:
            return Blocker(sentence, _usage_url(invoice, period, **narrowed), "These calls")
    return Blocker(sentence)


@dataclass(frozen=True, slots=True)
class _Cell:
    """Billable usage of a day and key."""

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
    """Every day of the month."""
    calls = dict.fromkeys(invoice.period.days, 0)
    costs = dict.fromkeys(invoice.period.days, Decimal(0))
    for row in rows:
        calls[row.day] += row.calls
        costs[row.day] += row.cost
    return [{"day": str(day), "calls": calls[day], "cost": f"{costs[day]:f}"} for day in calls]


def _keys(rows: Sequence[_Cell]) -> list[KeyUsage]:
    """The dearest first."""
    keys = ApiKey.objects.in_bulk({row.key_id for row in rows})
    found = []
    for key_id, key in keys.items():
        own = [row for row in rows if row.key_id == key_id]
        tokens = sum(row.tokens_in + row.tokens_out for row in own)
        found.append(KeyUsage(key, sum(row.calls for row in own), tokens, sum((row.cost for row in own), Decimal(0))))
    return sorted(found, key=lambda each: (-each.cost, -each.calls, each.key.name))
