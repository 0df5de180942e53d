"""An invoice's figures as reviewers read them. Amounts are exact; percentages are rounded half away from zero."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.calendar import sellers_date
from billing.currencies import format_money
from billing.enums import InvoiceKind, InvoiceState
from billing.invoices.flags import FLAGS
from billing.invoices.payments import Balance
from billing.models import Invoice
from llm.admin.format import NOTHING, badge, exact_usd, side_by_side
from llm.money import plural, round_half_away

_STATE_TONES = {
    InvoiceState.DRAFT: "pending",
    InvoiceState.IN_REVIEW: "estimated",
    InvoiceState.APPROVED: "open",
    InvoiceState.ISSUED: "active",
    InvoiceState.PAID: "active",
    InvoiceState.VOID: "void",
}
_STOPPING_FLAGS = ("open", "undecided", "unpriced", "seller")
_WORRYING_FLAGS = ("disputed", "estimated", "jump", "negative", "loss", "profile", "glyphs")
_USD_DECIMALS = 2


def money_badge(amount: Decimal, currency: str) -> SafeString:
    """1,234.50 EUR."""
    return format_html(
        '<span class="gw-num">{} <span class="gw-hint">{}</span></span>', format_money(amount, currency), currency
    )


def sentence_case(text: str) -> str:
    """The first letter in upper case, the rest unchanged."""
    return f"{text[:1].upper()}{text[1:]}"


def state_badge(invoice: Invoice) -> SafeString:
    state = InvoiceState(invoice.state)
    return badge(_STATE_TONES[state], state.label)


def overdue_badge(balance: Balance) -> SafeString | str:
    """With the number of days; "" if it isn't overdue."""
    today = sellers_date()
    if not balance.is_overdue(today) or balance.due_on is None:
        return ""
    return format_html(" {}", badge("disputed", f"overdue {plural((today - balance.due_on).days, 'day')}"))


def flag_badges(codes: Iterable[str]) -> SafeString | str:
    return side_by_side(badge(_tone_of(code), FLAGS.get(code, code)) for code in codes) or NOTHING


def change_text(invoice: Invoice) -> str:
    """Change from the previous month's invoice: +12.3 %, or “new” if there was none."""
    if invoice.kind != InvoiceKind.REGULAR:
        return NOTHING
    return "new" if invoice.previous_total is None else _change(invoice.total, invoice.previous_total)


def usage_change_text(invoice: Invoice) -> str:
    """Change in our cost of the usage, which fees and a commitment don't hide; "" if last month's is unknown."""
    if invoice.kind != InvoiceKind.REGULAR or invoice.previous_cost_usd is None:
        return ""
    return f"usage {_change(invoice.cost_usd, invoice.previous_cost_usd)}"


def _change(now: Decimal, before: Decimal) -> str:
    if not before:
        return "from 0" if now else "0.0 %"
    return _signed_percent(now - before, abs(before))


def margin_of(invoice: Invoice) -> Decimal | None:
    """Charge without tax less cost, approximately, in USD; None for credit notes, which carry no cost."""
    if invoice.kind == InvoiceKind.CREDIT_NOTE:
        return None
    return charge_usd(invoice) - invoice.cost_usd


def charge_usd(invoice: Invoice) -> Decimal:
    """The charge without tax, approximately, in USD: only for comparisons."""
    return invoice.subtotal / (invoice.per_usd or 1)


def margin_text(invoice: Invoice) -> str:
    margin = margin_of(invoice)
    if margin is None:
        return NOTHING
    sign = "-" if margin < 0 else ""
    return f"{sign}{exact_usd(round_half_away(abs(margin), _USD_DECIMALS))}"


def margin_percent(invoice: Invoice) -> str:
    """Margin as a percentage of the charge; "" if the charge isn't positive."""
    margin, charge = margin_of(invoice), charge_usd(invoice)
    return "" if margin is None or charge <= 0 else f"{round_half_away(margin * 100 / charge, 1)} %"


def estimated_share(invoice: Invoice) -> str:
    "Of the cost, by calls whose tokens were our estimate."
    return f"{Decimal(invoice.estimated_permille) / 10:.1f} %" if invoice.estimated_permille else NOTHING


def age(since: datetime, now: datetime) -> str:
    """Time since then, in its largest unit: 3 days, 5 h, 12 min."""
    passed = max(now - since, timedelta(0))
    if passed.days:
        return f"{passed.days} day{'' if passed.days == 1 else 's'}"
    minutes = passed.seconds // 60
    return f"{minutes // 60} h" if minutes >= 60 else f"{minutes} min"


def _tone_of(code: str) -> str:
    if code in _STOPPING_FLAGS:
        return "disputed"
    return "estimated" if code in _WORRYING_FLAGS else "pending"


def _signed_percent(part: Decimal, whole: Decimal) -> str:
    percent = round_half_away(part * 100 / whole, 1)
    return f"{percent:+,.1f} %" if percent else "0.0 %"
