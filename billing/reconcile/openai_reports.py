"""OpenAI's reports: `GET /v1/organization/costs` and `GET /v1/organization/usage/{completions,embeddings,...}`.

Source: openai 3.54, openai/types/admin/organization/usage_costs_response.py and usage_completions_response.py; the
line items' form (“model, meter”) from usage_costs_params.py. Both read on 2026-11-24; see docs/reconciliation.md. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date

from billing.reconcile.reading import Buckets, Node, unix_moment, utc_day
from billing.reconcile.types import ReportedCost, ReportError

# Model names have no spaces; other charges, such as “Web search tool calls”, do.
_LINE_ITEM_OF_MODEL = re.compile(r"(\S+), .+")


def read_rows(pages: tuple[Node, ...]) -> Iterator[ReportedCost | tuple[str, date]]:
    """The rows of the pages, and the days that they cover. Raises ReportError."""
    buckets = Buckets()
    for page in pages:
        if page["object"].text != "page":
            page["object"].refuse("“page”, the first object of OpenAI's usage and cost reports")
        # An empty bucket doesn't tell its report's kind; the page's other buckets do.
        report = _report_of(page)
        for bucket in page["data"].entries:
            start, end = unix_moment(bucket["start_time"]), unix_moment(bucket["end_time"])
            day = utc_day(start, end, bucket)
            if report:
                buckets.add(report, start, bucket)
                yield report, day
            for result in bucket["results"].entries:
                yield _READERS[_kind_of(result)](result, day)


def _report_of(page: Node) -> str:
    kinds = {_kind_of(result) for bucket in page["data"].entries for result in bucket["results"].entries}
    if len(kinds) > 1:
        raise ReportError(f"{page.place} mixes {' and '.join(sorted(kinds))}: each page must come from one report.")
    return kinds.pop() if kinds else ""


def _kind_of(result: Node) -> str:
    kind = result["object"].text.removeprefix("organization.").removeprefix("usage.").removesuffix(".result")
    if kind not in _READERS:
        result["object"].refuse(f"one of the reports that can be imported ({', '.join(_READERS)})")
    return kind


def _read_cost(result: Node, day: date) -> ReportedCost:
    amount = result["amount"]
    if amount["currency"].text.lower() != "usd":
        amount["currency"].refuse("“usd”, the currency of the books")
    line_item = result["line_item"].text
    of_model = _LINE_ITEM_OF_MODEL.fullmatch(line_item)
    return ReportedCost("costs", day, of_model[1] if of_model else "", line_item=line_item, cost=amount["value"].amount)


def _read_completions(result: Node, day: date) -> ReportedCost:
    """input_tokens includes tokens read from or written to the cache."""
    return ReportedCost(
        "completions",
        day,
        result["model"].text,
        requests=result["num_model_requests"].count,
        prompt_tokens=result["input_tokens"].count,
        completion_tokens=result["output_tokens"].count,
        cache_read_tokens=_optional_count(result, "input_cached_tokens"),
        cache_write_tokens=_optional_count(result, "input_cache_write_tokens"),
    )


def _read_input_alone(report: str) -> Callable[[Node, date], ReportedCost]:
    def read(result: Node, day: date) -> ReportedCost:
        return ReportedCost(
            report,
            day,
            result["model"].text,
            requests=result["num_model_requests"].count,
            prompt_tokens=result["input_tokens"].count,
            completion_tokens=0,
        )

    return read


def _optional_count(result: Node, name: str) -> int | None:
    return result[name].count if name in result else None


_READERS: dict[str, Callable[[Node, date], ReportedCost]] = {
    "costs": _read_cost,
    "completions": _read_completions,
    "embeddings": _read_input_alone("embeddings"),
    "moderations": _read_input_alone("moderations"),
}
