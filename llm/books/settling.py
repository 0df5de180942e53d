"""Closes that the books make by themselves."""

from __future__ import annotations

from llm.books.operations import CloseCall, OpenCall
from llm.enums import Outcome, UsageStatus


def void_close(opened: OpenCall, *, outcome: Outcome = Outcome.NOT_SENT) -> CloseCall:
    """For a call that was opened and never sent."""
    return CloseCall(id=opened.id, status=UsageStatus.VOID, outcome=outcome, cost_pico=0, account_id=opened.account_id)
