"""What tests of billing share."""

from __future__ import annotations

import pytest


@pytest.fixture
def every_month_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Months of fixed dates may lie ahead. Moving the clock instead would move the rollups' cutoffs into the future."""
    monkeypatch.setattr("billing.invoices.blockers.is_over", lambda *args: True)
