"""The manifest: what an export contains, and the SHA-256 of each of its files.

It is JSON with sorted keys and no creation time, so the same month gives the same manifest. Its own SHA-256, kept
elsewhere, proves the whole folder.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import orjson

from billing.exports.base import Scope
from billing.exports.files import WrittenFile
from billing.exports.tables import money_cell, number_of, state_of
from billing.models import Invoice
from llm.money import exact_arithmetic

FORMAT = "llm-gateway-export"
NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """rows: per table. totals: per currency; `document` gives them as text."""

    scope: Scope
    formats: tuple[str, ...]
    rows: dict[str, int]
    totals: dict[str, dict[str, Decimal | int]]
    invoices: tuple[dict[str, Any], ...]
    files: tuple[WrittenFile, ...]

    @property
    def document(self) -> dict[str, Any]:
        """The content of the file: only text, whole numbers, lists and objects."""
        return {
            "format": f"{FORMAT}/{self.scope.layout}",
            "period": str(self.scope.period),
            "account_id": None if self.scope.account is None else self.scope.account.pk,
            "includes_drafts": self.scope.includes_drafts,
            "formats": list(self.formats),
            "rows": self.rows,
            "totals": {
                currency: {name: _text(value) for name, value in sums.items()}
                for currency, sums in sorted(self.totals.items())
            },
            "invoices": list(self.invoices),
            "files": [asdict(file) for file in self.files],
        }

    @property
    def text(self) -> bytes:
        return orjson.dumps(
            self.document, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        )

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()


class ManifestTotals:
    """The manifest's figures on invoices, gathered during the walk."""

    def __init__(self) -> None:
        self.rows = {"invoices": 0, "lines": 0, "usage": 0}
        self.invoices: list[dict[str, Any]] = []
        self._sums: dict[str, dict[str, Decimal | int]] = defaultdict(
            lambda: {"invoices": 0, "subtotal": Decimal(0), "tax": Decimal(0), "total": Decimal(0)}
        )

    def add_invoice(self, invoice: Invoice, *, lines: int) -> None:
        self.rows["invoices"] += 1
        self.rows["lines"] += lines
        sums = self._sums[invoice.currency]
        with exact_arithmetic():
            sums["invoices"] += 1
            for name in ("subtotal", "tax", "total"):
                sums[name] += money_cell(getattr(invoice, name), invoice.currency)
        self.invoices.append(
            {
                "invoice_id": invoice.pk,
                "number": number_of(invoice),
                "kind": invoice.kind,
                "state": state_of(invoice),
                "currency": invoice.currency,
                "total": _text(money_cell(invoice.total, invoice.currency)),
                "content_digest": invoice.content_digest or None,
            }
        )

    def add_usage(self) -> None:
        self.rows["usage"] += 1

    def manifest(self, scope: Scope, formats: Sequence[str], files: Sequence[WrittenFile]) -> Manifest:
        return Manifest(scope, tuple(formats), self.rows, dict(self._sums), tuple(self.invoices), tuple(files))


def _text(value: Decimal | int) -> str | int:
    return f"{value:f}" if isinstance(value, Decimal) else value
