"""A provider's report as JSON, read exactly: numbers as Decimal, and every error with its place.

A file may hold one page, a list of pages, or pages one after another. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from billing.reconcile.types import ReportError
from llm.money import PICO_DECIMALS, round_half_away

MAX_TEXT = 200
_MAX_INTEGER = 2**63 - 1
_MAX_USD = Decimal(10) ** 15
_MAX_DECIMALS = 60
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the report and its place. Unexpected values raise ReportError with both."""

    value: Any
    place: str

    def __contains__(self, name: str) -> bool:
        return self.mapping.get(name) is not None

    def __getitem__(self, name: str) -> Node:
        return Node(self.mapping.get(name), f"{self.place}.{name}")

    @property
    def mapping(self) -> dict[str, Any]:
        return self.value if isinstance(self.value, dict) else self.refuse("an object")

    @property
    def entries(self) -> Iterator[Node]:
        if not isinstance(self.value, list):
            self.refuse("a list")
        return (Node(entry, f"{self.place}[{position}]") for position, entry in enumerate(self.value))

    @property
    def text(self) -> str:
        """A string that our columns can hold; "" for null."""
        if self.value is None:
            return ""
        if not isinstance(self.value, str) or len(self.value) > MAX_TEXT or not self.value.isprintable():
            self.refuse(f"text of at most {MAX_TEXT} characters")
        return self.value.strip()

    @property
    def count(self) -> int:
        if type(self.value) is not int or not 0 <= self.value <= _MAX_INTEGER:
            self.refuse("a whole number, 0 or more")
        return self.value

    @property
    def amount(self) -> Decimal:
        """Exact, with any number of decimals."""
        number = self.value
        if isinstance(number, str):
            try:
                number = Decimal(number)
            except InvalidOperation:
                self.refuse("an amount")
        if type(number) is int:
            number = Decimal(number)
        if not isinstance(number, Decimal) or not number.is_finite() or abs(number) >= _MAX_USD:
            self.refuse("an amount")
        exponent = number.as_tuple().exponent
        if isinstance(exponent, int) and exponent < -_MAX_DECIMALS:
            self.refuse(f"an amount with at most {_MAX_DECIMALS} decimals")
        return number

    def refuse(self, wanted: str) -> NoReturn:
        if self.value is None:
            raise ReportError(f"{self.place} is missing: expected {wanted}.")
        shown = repr(self.value)
        raise ReportError(f"{self.place} is {shown[:_SHOWN]}{'…' * (len(shown) > _SHOWN)}, not {wanted}.")


def read_pages(content: bytes) -> tuple[Node, ...]:
    """The report's pages. Raises ReportError if the file isn't JSON or has no page."""
    try:
        text = content.decode("utf-8-sig")
        documents = list(_documents(text))
    except UnicodeDecodeError as error:
        raise ReportError(f"The file is not UTF-8 text: byte {error.start} is invalid.") from error
    except json.JSONDecodeError as error:
        raise ReportError(f"The file is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from error
    except (ValueError, InvalidOperation, RecursionError) as error:
        raise ReportError(
            "The JSON in the file can't be read: a number is too long, or it is nested too deep."
        ) from error
    pages = [page for document in documents for page in (document if isinstance(document, list) else [document])]
    if not pages:
        raise ReportError("The file is empty: there is no page of a report in it.")
    return tuple(Node(page, f"page {position}") for position, page in enumerate(pages, 1))


def utc_day(start: datetime, end: datetime, bucket: Node) -> date:
    """The day that contains the whole bucket. Raises ReportError if no single day does."""
    if end <= start:
        raise ReportError(f"{bucket.place} ends before it begins.")
    if (end - timedelta(microseconds=1)).date() != start.date():
        raise ReportError(f"{bucket.place} spans more than one UTC day: ask the provider for days (bucket width 1d).")
    return start.date()


def unix_moment(node: Node) -> datetime:
    try:
        return datetime.fromtimestamp(node.count, UTC)
    except (OverflowError, OSError, ValueError):
        node.refuse("a moment in Unix seconds")


def rfc3339_moment(node: Node) -> datetime:
    try:
        moment = datetime.fromisoformat(node.text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (OverflowError, ValueError):
        node.refuse("a moment such as 2026-11-01T00:00:00Z")


@dataclass(slots=True)
class Buckets:
    """Buckets read so far, so that a duplicate page doesn't count twice."""

    seen: dict[tuple[str, datetime], str] = field(default_factory=dict)

    def add(self, report: str, start: datetime, bucket: Node) -> None:
        earlier = self.seen.setdefault((report, start), bucket.place)
        if earlier != bucket.place:
            raise ReportError(f"{bucket.place} is the same bucket as {earlier}: a page is in the file twice.")


def to_pico_decimals(amount: Decimal) -> Decimal:
    """As the books hold it. Providers' floats have more digits than any price yields; they are rounded once."""
    return round_half_away(amount, PICO_DECIMALS)


def _documents(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant)
    position = _skip_space(text, 0)
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        yield document
        position = _skip_space(text, position)


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _refuse_constant(name: str) -> NoReturn:
    raise ReportError(f"The file contains {name}, which is not a number.")
