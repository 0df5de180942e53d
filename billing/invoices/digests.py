"""The content of an invoice as one canonical text, and the digest of it that an approver signs.

The text is JSON with sorted keys; amounts are plain decimals without trailing zeros, moments ISO 8601 in UTC. The
invoice's state and who did what aren't part of it. The number and the dates, which are set on issue, have their own
digest, on top of the content's.

The fields of a version never change, or what was signed under it could no longer be checked. To add fields, add a
version to `_FIELDS` and make it the models' CONTENT_VERSION.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson

from billing.invoices.taxes import plain
from billing.models import Invoice, InvoiceLine

ISSUE_VERSION = "issue/1"

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
"""By `content_version`, of the invoice and of a line."""
_ISSUE_FIELDS = ("content_digest", "series_id", "number", "issued_on", "due_on", "paid_on")


def content_digest(invoice: Invoice, lines: Iterable[InvoiceLine] | None = None) -> str:
    """SHA-256 of the content, 64 hex digits. lines: all of the invoice's, by position; read if not given."""
    lines = invoice.lines.order_by("position") if lines is None else lines
    invoice_fields, line_fields = _FIELDS[invoice.content_version]
    content = {
        "version": f"invoice/{invoice.content_version}",
        **_values(invoice, invoice_fields),
        "lines": [_values(line, line_fields) for line in lines],
    }
    return _sha256(content)


def issue_digest(invoice: Invoice) -> str:
    """SHA-256 of what an invoice gets on issue, its number and dates, together with its content digest."""
    return _sha256({"version": ISSUE_VERSION, **_values(invoice, _ISSUE_FIELDS)})


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _values(row: Invoice | InvoiceLine, names: Iterable[str]) -> dict[str, Any]:
    return {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value
