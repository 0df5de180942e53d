"""What the parts of `verify_export.py` share: rows as text, and the report of differences. See `script`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path

MANIFEST = "manifest.json"
TABLES = ("invoices", "lines", "usage")

Model = tuple[str, str, str, str]
"""Invoice, period, provider, model."""


class CannotCheck(Exception):
    """There is nothing to compare."""


class Unreadable(ValueError):
    """A value is missing or isn't a number."""


class Row(dict[str, str]):
    """Column -> text; "" for nothing."""

    def __missing__(self, column: str) -> str:
        raise Unreadable(f"there is no column {column}")

    def number(self, column: str) -> Decimal:
        try:
            value = Decimal(self[column])
        except InvalidOperation:
            value = Decimal("nan")
        if not value.is_finite():
            raise Unreadable(f"{column} is “{self[column]}”, which is not a number")
        return value

    def whole(self, column: str) -> int:
        value = self.number(column)
        if value != int(value):
            raise Unreadable(f"{column} is “{self[column]}”, which is not a whole number")
        return int(value)

    @property
    def name(self) -> str:
        """The invoice's name."""
        return self.get("number") or f"Invoice {self['invoice_id']}"

    @property
    def model(self) -> Model:
        return (self["invoice_id"], self["period"], self["provider"], self["model"])


class Report:
    """The differences found; at most MAX_DIFFERENCES are printed."""

    MAX_DIFFERENCES = 1000

    def __init__(self) -> None:
        self.differences = 0

    def differs(self, sentence: str) -> None:
        self.differences += 1
        if self.differences <= self.MAX_DIFFERENCES:
            sys.stdout.write(f"{sentence}\n")

    def compare(self, where: str, what: str, found: object, due: object) -> None:
        if found != due:
            self.differs(f"{where}: {what} is {plain(found)}, but should be {plain(due)}.")

    def same(self, where: str, row: Row, **due: str) -> None:
        """due: column -> expected text."""
        for column, text in due.items():
            if not is_same(row[column], text):
                self.compare(where, column, row[column], text)

    def guard(self, where: str, check: Callable[..., None], *arguments: object) -> None:
        """Reports unreadable values as differences; the check continues."""
        try:
            check(*arguments)
        except Unreadable as error:
            self.differs(f"{where}: {error}.")


def read_table(path: Path, report: Report) -> Iterator[Row]:
    """Rows as text, whatever the format."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file)
        try:
            for row in rows:
                yield Row({name: "" if value is None else str(value) for name, value in row.items()})
        except (ValueError, AttributeError, csv.Error) as error:
            report.differs(f"{path.name}: it can't be read completely: {error}.")


def total_of(rows: Iterable[Row], column: str) -> Decimal:
    return sum((row.number(column) for row in rows), Decimal(0))


def rounded(amount: Decimal, decimals: int) -> Decimal:
    """Rounds half away from zero."""
    return amount.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def plain(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value) or "nothing"


def is_same(found: str, due: str) -> bool:
    """In some formats, text that a spreadsheet could take for a formula has a leading apostrophe."""
    return found in (due, f"'{due}") or due == f"'{found}"
