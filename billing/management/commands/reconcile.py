"""`manage.py reconcile openai --from 2026-11-01 --to 2026-11-30`: compare our books with the provider's reports."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import date
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.reconcile import ReconciledLine, ReconciledTotals, Reconciliation, Side, reconciliation
from llm.money import format_usd, plural

_HEAD = ("day (UTC)", "model", "our tokens", "theirs", "our cost", "theirs", "difference", "why")
_UNKNOWN = "-"


class Command(BaseCommand):
    help = (
        "Compares the books with a provider's imported reports, by UTC day and model: ours, theirs, difference, reason."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("provider", help="such as openai")
        parser.add_argument("--from", dest="first", type=_day, required=True, metavar="YYYY-MM-DD")
        parser.add_argument("--to", dest="last", type=_day, required=True, metavar="YYYY-MM-DD", help="included")
        parser.add_argument("--differences", action="store_true", help="show only the lines that differ")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = reconciliation(options["provider"], options["first"], options["last"])
        except ValueError as error:
            raise CommandError(f"{error}.") from error
        lines = [line for line in found.lines if not (options["differences"] and line.agrees)]
        for text in _table([_cells(line) for line in lines]):
            self.stdout.write(text)
        self.stdout.write(_summary(found))


def _cells(line: ReconciledLine) -> tuple[str, ...]:
    ours = line.ours.side if line.ours else None
    return (
        str(line.utc_day),
        line.model or line.line_item or "(no model)",
        _count(ours),
        _count(line.theirs),
        _usd(ours.cost if ours else None),
        _usd(line.theirs.cost if line.theirs else None),
        _signed(line.cost_difference),
        " ".join(reason.sentence for reason in line.reasons) or "agrees",
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they need to be; the last one, a sentence, isn't padded."""
    table = [_HEAD, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEAD) - 1)]
    return [
        "  ".join(
            [
                *(cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)),
                *(cell.rjust(width) for cell, width in zip(row[2:-1], widths[2:], strict=True)),
                row[-1],
            ]
        )
        for row in table
    ]


def _summary(found: Reconciliation) -> str:
    totals: ReconciledTotals = found.totals
    differing = sum(not line.agrees for line in found.lines)
    return (
        f"Total: ours {format_usd(totals.ours)} USD, theirs {_usd(totals.theirs)} USD, difference "
        f"{_signed(totals.difference)}; {differing:,} of {plural(len(found.lines), 'line')} "
        f"{'differs' if differing == 1 else 'differ'}."
    )


def _count(side: Side | None) -> str:
    return _UNKNOWN if side is None or side.total_tokens is None else f"{side.total_tokens:,}"


def _usd(amount: Decimal | None) -> str:
    return _UNKNOWN if amount is None else format_usd(amount)


def _signed(amount: Decimal | None) -> str:
    return _UNKNOWN if amount is None else f"{'+' if amount > 0 else ''}{format_usd(amount)}"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"“{text}” is not a date; write it as YYYY-MM-DD") from error
