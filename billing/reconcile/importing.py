"""Imports a provider's report from a file: all of it or nothing, and once however often it is imported."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import date
from decimal import Decimal
from functools import reduce
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from billing.models import CostImport, ProviderCost
from billing.reconcile import anthropic_reports, openai_reports
from billing.reconcile.reading import read_pages, to_pico_decimals
from billing.reconcile.types import ProviderReport, ReportedCost, ReportError, count_of, total_of
from llm.providers.registry import instances

_READERS = {"openai": openai_reports.read_rows, "anthropic": anthropic_reports.read_rows}

_COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens")
_MAX_COUNT = 2**63 - 1
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class CostImportSummary:
    """What an import did, or would do. replaced: rows of earlier reports that it superseded. cost: USD.

    is_new: False if this very file was imported before; then nothing is done. is_cut: the provider has more pages.
    """

    rows: int
    replaced: int
    first: date
    last: date
    cost: Decimal | None
    is_new: bool
    is_cut: bool


def reporting_providers() -> dict[str, str]:
    """Who has a report that can be read -> whose format it has: providers, and what their instances are booked as."""
    booked = {each.booked_as: each.provider for each in instances().all if each.provider in _READERS}
    return {name: name for name in _READERS} | {name: kind for name, kind in booked.items() if name not in _READERS}


def read_report(provider: str, content: bytes) -> ProviderReport:
    """Raises ReportError with a sentence that says where and why."""
    kinds = reporting_providers()
    if provider not in kinds:
        raise ReportError(f"There is no reader for reports of {provider}, only of {' and '.join(kinds)}.")
    pages = read_pages(content)
    days: set[tuple[str, date]] = set()
    rows: list[ReportedCost] = []
    for found in _READERS[kinds[provider]](pages):
        if isinstance(found, ReportedCost):
            rows.append(found)
        else:
            days.add(found)
    if not rows:
        raise ReportError("There are no figures in the file: each of its days is empty.")
    return ProviderReport(_merged(rows), frozenset(days), is_cut=pages[-1].mapping.get("has_more") is True)


def import_report(
    provider: str, content: bytes, *, file_name: str, user: User | None = None, dry_run: bool = False
) -> CostImportSummary:
    """Replaces the days that the file covers in reports of its kind. Raises ReportError and writes nothing then."""
    report = read_report(provider, content)
    digest = hashlib.sha256(content).hexdigest()
    try:
        with transaction.atomic():
            is_new = not CostImport.objects.filter(digest=digest).exists()
            replaced = _replace_days(provider, report, digest, file_name, user) if is_new else 0
            transaction.set_rollback(dry_run)
    except IntegrityError as error:
        raise ReportError("Another import of the same days was in progress: nothing was done, try again.") from error
    covered = [day for _, day in report.days]
    return CostImportSummary(
        rows=len(report.rows),
        replaced=replaced,
        first=min(covered),
        last=max(covered),
        cost=total_of(row.cost for row in report.rows),
        is_new=is_new,
        is_cut=report.is_cut,
    )


def _replace_days(provider: str, report: ProviderReport, digest: str, file_name: str, user: User | None) -> int:
    source = CostImport.objects.create(
        provider=provider, file_name=file_name[:_MAX_NAME], digest=digest, rows=len(report.rows), created_by=user
    )
    replaced = 0
    for kind in sorted({kind for kind, _ in report.days}):
        days = [day for other, day in report.days if other == kind]
        replaced += ProviderCost.objects.filter(provider=provider, report=kind, utc_day__in=days).delete()[0]
    ProviderCost.objects.bulk_create(
        [ProviderCost(source=source, provider=provider, **_columns(row)) for row in report.rows], batch_size=500
    )
    return replaced


def _columns(row: ReportedCost) -> dict[str, object]:
    return {column.name: getattr(row, column.name) for column in fields(row)}


def _merged(rows: Iterable[ReportedCost]) -> tuple[ReportedCost, ...]:
    """One row per key: what a report splits further (by project, tier or hour) is added up, then rounded once."""
    groups: dict[tuple[date, str, str, str], list[ReportedCost]] = {}
    for row in rows:
        groups.setdefault((row.utc_day, row.report, row.model, row.line_item), []).append(row)
    return tuple(_rounded(reduce(_plus, groups[key])) for key in sorted(groups))


def _plus(first: ReportedCost, second: ReportedCost) -> ReportedCost:
    counts: dict[str, Any] = {name: count_of((getattr(first, name), getattr(second, name))) for name in _COUNTS}
    if any((count or 0) > _MAX_COUNT for count in counts.values()):
        raise ReportError(f"The counts of {first.model or first.line_item} on {first.utc_day} are too large.")
    return replace(first, **counts, cost=total_of((first.cost, second.cost)))


def _rounded(row: ReportedCost) -> ReportedCost:
    return row if row.cost is None else replace(row, cost=to_pico_decimals(row.cost))
