"""What an invoice says, as one canonical text, and the digest that an approver signs.

The text is JSON with sorted keys; amounts are plain decimals without needless zeros, moments ISO 8601 in UTC. How far
the invoice has come, who did what, and its number are no part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson

from billing.models import Invoice, InvoiceLine
from billing.taxes import plain

_INVOICE_FIELDS = (
    *("account_id", "kind", "period_start", "currency", "plan_version_id", "exchange_rate_id", "per_usd"),
    *("original_id", "credit_sequence", "bill_to", "seller", "cutoff_at", "subtotal", "tax_percent", "tax", "total"),
    "cost_usd",
)
_INVOICE_FIELDS_2 = (*_INVOICE_FIELDS, "credit_kind", "taxes")
_LINE_FIELDS = (
    *("position", "kind", "key", "period_start", "plan_version_id", "description", "provider", "model", "meter"),
    *("quantity", "unit_price", "exact_amount", "amount", "residual", "cost_usd", "calls", "digest", "cutoff_at"),
    "credited_line_id",
)
_LINE_FIELDS_2 = (*_LINE_FIELDS, "tax_percent", "per_usd")
_FIELDS = {1: (_INVOICE_FIELDS, _LINE_FIELDS), 2: (_INVOICE_FIELDS_2, _LINE_FIELDS_2)}
"""By `content_version`: a version is never changed, so that what was signed under it verifies for ever."""


def content_digest(invoice: Invoice, lines: Iterable[InvoiceLine] | None = None) -> str:
    """SHA-256 of the content, 64 hex digits. lines: all of the invoice's, by position; read where not given."""
    lines = invoice.lines.order_by("position") if lines is None else lines
    invoice_fields, line_fields = _FIELDS[invoice.content_version]
    content = {
        "version": f"invoice/{invoice.content_version}",
        **_values(invoice, invoice_fields),
        "lines": [_values(line, line_fields) for line in lines],
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _values(row: Invoice | InvoiceLine, names: Iterable[str]) -> dict[str, Any]:
    return {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value
