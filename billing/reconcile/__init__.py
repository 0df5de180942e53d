"""What providers say that they charge us, set against the books. Import from here.

`import_report` keeps a provider's report; `reconciliation` compares; docs/reconciliation.md explains both.
"""

from billing.reconcile.comparing import MOST_DAYS, reconciliation
from billing.reconcile.importing import PROVIDERS, ImportSummary, import_report, read_report
from billing.reconcile.types import (
    Books,
    DayTotals,
    Reason,
    ReasonCode,
    ReconciledLine,
    Reconciliation,
    ReportError,
    Side,
    Totals,
)

__all__ = (
    "MOST_DAYS",
    "PROVIDERS",
    "Books",
    "DayTotals",
    "ImportSummary",
    "Reason",
    "ReasonCode",
    "ReconciledLine",
    "Reconciliation",
    "ReportError",
    "Side",
    "Totals",
    "import_report",
    "read_report",
    "reconciliation",
)
