"""Providers' reports of what they charge us, compared with the books. Import from here.

`import_report` stores a provider's report; `reconciliation` compares; docs/reconciliation.md explains both.
"""

from billing.reconcile.comparing import MAX_DAYS, reconciliation
from billing.reconcile.importing import CostImportSummary, import_report, read_report, reporting_providers
from billing.reconcile.types import (
    Books,
    Reason,
    ReasonCode,
    ReconciledDay,
    ReconciledLine,
    ReconciledTotals,
    Reconciliation,
    ReportError,
    Side,
)

__all__ = (
    "MAX_DAYS",
    "Books",
    "CostImportSummary",
    "Reason",
    "ReasonCode",
    "ReconciledDay",
    "ReconciledLine",
    "ReconciledTotals",
    "Reconciliation",
    "ReportError",
    "Side",
    "import_report",
    "read_report",
    "reconciliation",
    "reporting_providers",
)
