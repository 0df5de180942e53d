"""What all formats share: what an export is of, and the way in which its parts reach a format.

An export is one walk over the invoices of a month: each is added to every format, then its usage, row by row. So the
database is read once whatever the formats, and no more than one invoice's lines are held at a time.
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
"""Changes when files or columns do, in a way that a reader must know of."""


class ExportError(BillingError):
    """A month can't be exported as asked; nothing was left on disk."""


@dataclass(frozen=True, slots=True)
class Scope:
    """account: the only one that is exported. includes_drafts: also what isn't issued yet, but for what was voided.

    layout: which columns the files have. Where all documents are of version 1 they have those of layout 1, so that a
    month from then exports to the same bytes.
    """

    period: BillingPeriod
    account: Account | None = None
    includes_drafts: bool = False
    layout: int = LAYOUT

    @property
    def shows_cost(self) -> bool:
        """An account's own export is for the customer: what providers charge us is none of its business."""
        return self.account is None


class FormatWriter(ABC):
    """Writes one format of one export. An invoice is added first, then the rows of its usage."""

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
        """lines: all of the invoice's, by position; `line.invoice` is that invoice."""

    def add_usage(self, row: UsageRow) -> None:  # noqa: B027 - most accounting formats know no usage
        """One day of one key, model and rate set, as the invoice that was added last bills it."""

    def close(self) -> None:  # noqa: B027 - files that need no end are closed by their folder
        """Write what can be written only at the end. Not called where the export fails."""

    def abandon(self) -> None:  # noqa: B027 - as above
        """Let go of what is held beside the files: the export has failed."""
