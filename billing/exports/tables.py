"""The tables of an export: invoices, their lines, and the usage that they bill, by day, key, model and rate set.

Nothing here may change once an invoice is issued, or a month wouldn't export to the same bytes again. So names that
can be changed later (of accounts, of keys) are replaced by ids, and a paid invoice is exported as issued.
docs/export.md describes the columns; a change that `verify_export.py` must know about needs a new layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Generic, TypeVar

from billing.currencies import DECIMALS
from billing.enums import InvoiceState
from billing.exports.base import Scope
from billing.exports.cells import Figure, Value, exact
from billing.invoices.billed_calls import UsageRow
from billing.invoices.parties import bill_to_of
from billing.invoices.taxes import percent_of
from billing.models import Invoice, InvoiceLine
from billing.models.rollups import COST_FIELDS, COUNT_FIELDS, SUM_FIELDS
from llm.digests import DIGEST_FIELDS, digest_hex
from llm.money import exact_sum, round_half_away

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Column(Generic[_Item]):
    """is_cost: what providers charge us, omitted from a customer's own export. since: the first layout that has the
    column.
    """

    name: str
    read: Callable[[_Item], Value]
    is_cost: bool = False
    since: int = 1


@dataclass(frozen=True, slots=True)
class Table(Generic[_Item]):
    name: str
    columns: tuple[Column[_Item], ...]

    @property
    def header(self) -> list[str]:
        return [column.name for column in self.columns]

    def row(self, item: _Item) -> list[Value]:
        return [column.read(item) for column in self.columns]

    def shown_in(self, scope: Scope) -> Table[_Item]:
        columns = (column for column in self.columns if column.since <= scope.layout)
        return replace(self, columns=tuple(column for column in columns if scope.shows_cost or not column.is_cost))


def money_cell(amount: Decimal, currency: str) -> Decimal:
    """With exactly the currency's decimals."""
    return round_half_away(amount, DECIMALS[currency])


def moment(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def state_of(invoice: Invoice) -> str:
    """Paid is exported as issued: a payment must not change what was exported."""
    return InvoiceState.ISSUED if invoice.state == InvoiceState.PAID else invoice.state


def number_of(invoice: Invoice) -> str | None:
    return invoice.label or None


def _day(on: date | None) -> str | None:
    return None if on is None else on.isoformat()


def _month(start: date) -> str:
    return f"{start:%Y-%m}"


def _exact(amount: Decimal | None) -> Figure | None:
    return None if amount is None else exact(amount)


def _residual_of(invoice: Invoice) -> Figure:
    """Sum of the lines' rounding differences, from the prefetched lines."""
    return exact(exact_sum(line.residual for line in invoice.lines.all()))


_SUM_INDEX = {name: index for index, name in enumerate(SUM_FIELDS)}
_DIGEST = slice(_SUM_INDEX[DIGEST_FIELDS[0]], _SUM_INDEX[DIGEST_FIELDS[-1]] + 1)


def _count(name: str) -> Column[UsageRow]:
    index = _SUM_INDEX[name]
    return Column(name, lambda row: row.detail.sums[index])


def _cost(name: str) -> Column[UsageRow]:
    index = _SUM_INDEX[name]
    return Column(f"{name}_usd", lambda row: exact(row.detail.sums[index]), is_cost=True)


INVOICES: Table[Invoice] = Table(
    "invoices",
    (
        Column("invoice_id", lambda invoice: invoice.pk),
        Column("number", number_of),
        Column("kind", lambda invoice: invoice.kind),
        Column("credit_kind", lambda invoice: invoice.credit_kind or None, since=2),
        Column("state", state_of),
        Column("period", lambda invoice: _month(invoice.period_start)),
        Column("account_id", lambda invoice: invoice.account_id),
        Column("legal_name", lambda invoice: bill_to_of(invoice).legal_name),
        Column("country", lambda invoice: bill_to_of(invoice).country),
        Column("tax_id", lambda invoice: bill_to_of(invoice).tax_id),
        Column("po_number", lambda invoice: bill_to_of(invoice).po_number),
        Column("time_zone", lambda invoice: bill_to_of(invoice).time_zone),
        Column("original_number", lambda invoice: None if invoice.original is None else number_of(invoice.original)),
        Column("issued_on", lambda invoice: _day(invoice.issued_on)),
        Column("due_on", lambda invoice: _day(invoice.due_on)),
        Column("cutoff_at", lambda invoice: moment(invoice.cutoff_at)),
        Column("plan_version_id", lambda invoice: invoice.plan_version_id),
        Column("per_usd", lambda invoice: _exact(invoice.per_usd)),
        Column("currency", lambda invoice: invoice.currency),
        Column("subtotal", lambda invoice: money_cell(invoice.subtotal, invoice.currency)),
        Column("tax_percent", lambda invoice: exact(invoice.tax_percent)),
        Column("tax", lambda invoice: money_cell(invoice.tax, invoice.currency)),
        Column("total", lambda invoice: money_cell(invoice.total, invoice.currency)),
        Column("residual", _residual_of),
        Column("content_digest", lambda invoice: invoice.content_digest or None),
        Column("cost_usd", lambda invoice: exact(invoice.cost_usd), is_cost=True),
    ),
)

LINES: Table[InvoiceLine] = Table(
    "lines",
    (
        Column("invoice_id", lambda line: line.invoice_id),
        Column("number", lambda line: number_of(line.invoice)),
        Column("position", lambda line: line.position),
        Column("kind", lambda line: line.kind),
        Column("period", lambda line: _month(line.period_start)),
        Column("description", lambda line: line.description),
        Column("provider", lambda line: line.provider or None),
        Column("model", lambda line: line.model or None),
        Column("meter", lambda line: line.meter or None),
        Column("quantity", lambda line: line.quantity),
        Column("unit_price_per_million", lambda line: _exact(line.unit_price)),
        Column("exact_amount", lambda line: exact(line.exact_amount)),
        Column("amount", lambda line: money_cell(line.amount, line.invoice.currency)),
        Column("residual", lambda line: exact(line.residual)),
        Column("tax_percent", lambda line: exact(percent_of(line, line.invoice)), since=2),
        Column("currency", lambda line: line.invoice.currency),
        Column("calls", lambda line: line.calls),
        Column("digest", lambda line: line.digest or None),
        Column("cutoff_at", lambda line: moment(line.cutoff_at)),
        Column("plan_version_id", lambda line: line.plan_version_id),
        Column("credited_position", lambda line: None if line.credited_line is None else line.credited_line.position),
        Column("key", lambda line: line.key),
        Column("cost_usd", lambda line: exact(line.cost_usd), is_cost=True),
    ),
)

USAGE: Table[UsageRow] = Table(
    "usage",
    (
        Column("invoice_id", lambda row: row.invoice.pk),
        Column("number", lambda row: number_of(row.invoice)),
        Column("account_id", lambda row: row.invoice.account_id),
        Column("period", lambda row: _month(row.period.start)),
        Column("day", lambda row: row.detail.key.day.isoformat()),
        Column("key_id", lambda row: row.detail.key.api_key_id),
        Column("key", lambda row: row.masked_key),
        Column("provider", lambda row: row.detail.key.provider),
        Column("model", lambda row: row.detail.key.model),
        Column("rate_set_id", lambda row: row.detail.key.rate_set_id or None),
        *(_count(name) for name in COUNT_FIELDS),
        Column("digest", lambda row: digest_hex(row.detail.sums[_DIGEST])),
        *(_cost(name) for name in COST_FIELDS),
    ),
)
