"""What all formats share: the scope of an export, and the interface of a format's writer.

An export is one walk over the invoices of a month: each is added to every format, then its usage, row by row. So the
database is read once for all formats, and at most one invoice's lines are in memory at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from billing.errors import BillingError
from billing.exports.files import ExportFiles
from billing.invoices.billed_calls import UsageRow
from billing.models import Invoice, InvoiceLine
from billing.periods import BillingPeriod
from llm.models import Account

LAYOUT = 2
"""Incremented when files or columns change in a way that readers must know about."""


class ExportError(BillingError):
    """A month can't be exported as asked; nothing was left on disk."""


@dataclass(frozen=True, slots=True)
class Scope:
    """account: the only one that is exported; None exports all. includes_drafts: also invoices not yet issued, except
    void ones.

    layout: which columns the files have. Layout 1 if all documents are of version 1, so that an older month exports to
    the same bytes as it did then.
    """

    period: BillingPeriod
    account: Account | None = None
    includes_drafts: bool = False
    layout: int = LAYOUT

    @property
    def shows_cost(self) -> bool:
        """False for the export of one account, which is for the customer: what providers charge us isn't shown."""
        return self.account is None


class FormatWriter(ABC):
    """Writes one format of one export. Each invoice is added before the rows of its usage."""

    def __init__(self, files: ExportFiles, scope: Scope) -> None:
        self.files = files
        self.scope = scope

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abandon()

    @abstractmethod
    def add_invoice(self, invoice: Invoice, lines: Sequence[InvoiceLine]) -> None:
        """lines: all of the invoice's lines, by position; `line.invoice` is that invoice."""

    def add_usage(self, row: UsageRow) -> None:  # noqa: B027 - most accounting formats know no usage
        """One day of one key, model and rate set, as billed by the invoice added last."""

    def close(self) -> None:  # noqa: B027 - files that need no end are closed by their folder
        """Write what can only be written at the end. Not called if the export fails."""

    def abandon(self) -> None:  # noqa: B027 - as above
        """Release everything but the files: the export has failed."""
