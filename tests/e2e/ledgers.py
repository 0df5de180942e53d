"""The books against what the upstream says that it has served."""

from __future__ import annotations

from dataclasses import fields

from llm.enums import CallOutcome, UsageSource, UsageStatus
from tests.books import closed_usage
from tests.fakes import Counts, FakeUpstream


def assert_books_equal_ledger(upstream: FakeUpstream, *, provider: str, calls: int = 1) -> None:
    """Row by row: tokens of each class, the reply's id, and that the upstream itself reported it all."""
    rows = sorted(closed_usage(calls), key=lambda row: row.upstream_response_id)
    entries = sorted(upstream.ledger.entries(), key=lambda entry: entry.response_id)
    for row, entry in zip(rows, entries, strict=True):
        state = (row.status, row.usage_source, row.outcome)
        assert state == (UsageStatus.SETTLED, UsageSource.REPORTED, CallOutcome.OK)
        assert (row.dialect, row.provider) == (entry.dialect, provider)
        assert (row.upstream_response_id, row.is_stream) == (entry.response_id, entry.is_stream)
        assert (row.prompt_tokens, row.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens)
        assert Counts(**{field.name: getattr(row, field.name) for field in fields(Counts)}) == entry.counts
