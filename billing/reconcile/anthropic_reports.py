"""Anthropic's reports: `GET /v1/organizations/cost_report` and `GET /v1/organizations/usage_report/messages`.

Source: https://platform.claude.com/docs/en/api/admin/cost_report and .../admin/usage_report/retrieve_messages, read on
2026-11-24; see docs/reconciliation.md. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from billing.reconcile.reading import Buckets, Node, rfc3339_moment, utc_day
from billing.reconcile.types import ReportedCost, ReportError
from llm.money import exact_arithmetic

_CENTS_DECIMALS = 2


def read_rows(pages: tuple[Node, ...]) -> Iterator[ReportedCost | tuple[str, date]]:
    """The rows of the pages, and the days that they cover. Raises ReportError."""
    buckets = Buckets()
    for page in pages:
        # An empty bucket doesn't tell its report's kind; the page's other buckets do.
        report = _report_of(page)
        for bucket in page["data"].entries:
            start, end = rfc3339_moment(bucket["starting_at"]), rfc3339_moment(bucket["ending_at"])
            day = utc_day(start, end, bucket)
            if report:
                buckets.add(report, start, bucket)
                yield report, day
            for result in bucket["results"].entries:
                yield _read_cost(result, day) if report == "costs" else _read_messages(result, day)


def _report_of(page: Node) -> str:
    kinds = {_kind_of(result) for bucket in page["data"].entries for result in bucket["results"].entries}
    if len(kinds) > 1:
        raise ReportError(f"{page.place} mixes {' and '.join(sorted(kinds))}: each page must come from one report.")
    return kinds.pop() if kinds else ""


def _kind_of(result: Node) -> str:
    if "amount" in result:
        return "costs"
    if "output_tokens" in result:
        return "messages"
    raise ReportError(
        f"{result.place} has neither amount nor output_tokens: it is neither from a cost report nor from a messages "
        "usage report."
    )


def _read_cost(result: Node, day: date) -> ReportedCost:
    """amount: cents, as a decimal string, such as "123.45" for 1.2345 USD."""
    if result["currency"].text.upper() != "USD":
        result["currency"].refuse("“USD”, the currency of the books")
    with exact_arithmetic():
        cost = result["amount"].amount.scaleb(-_CENTS_DECIMALS)
    line_item = result["description"].text or result["cost_type"].text
    return ReportedCost("costs", day, result["model"].text, line_item=line_item, cost=cost)


def _read_messages(result: Node, day: date) -> ReportedCost:
    """Our prompt tokens include all input; Anthropic counts uncached input, cache reads and cache writes separately."""
    cache_read = result["cache_read_input_tokens"].count
    creation = result["cache_creation"]
    cache_write = creation["ephemeral_5m_input_tokens"].count + creation["ephemeral_1h_input_tokens"].count
    return ReportedCost(
        "messages",
        day,
        result["model"].text,
        prompt_tokens=result["uncached_input_tokens"].count + cache_read + cache_write,
        completion_tokens=result["output_tokens"].count,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
    )
