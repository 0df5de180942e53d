"""FOCUS 1.2 as rules that rows are held against: `focus_1_2.json` holds them, and says where they are from.

docs/decisions/0030 tells why the tests don't run `focus-validator` itself.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from billing.currencies import DECIMALS
from llm.money import exact_arithmetic

Row = Mapping[str, str]
"""As `csv.DictReader` gives it; "" is null."""

_FOCUS = json.loads(Path(__file__).with_name("focus_1_2.json").read_text(encoding="utf-8"))
COLUMNS: Mapping[str, Mapping[str, Any]] = _FOCUS["columns"]

_TYPES = {
    "decimal": re.compile(r"-?\d+(\.\d+)?"),
    "datetime": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    "currency": re.compile("|".join(DECIMALS)),
    # A unit is words, maybe after how many of them: Tokens, 1000000 Tokens.
    "unit": re.compile(r"(\d+ )?[A-Z][A-Za-z]*( [A-Z][A-Za-z]*)*"),
    "json": re.compile(r"\{.*\}"),
    "string": re.compile(r"(?s).*"),
}


@dataclass(frozen=True)
class Rule:
    column: str
    when: Mapping[str, Any]
    must: Any

    @property
    def name(self) -> str:
        when = ", ".join(f"{column} {values}" for column, values in self.when.items())
        return f"{self.column}: {self.must}{f' when {when}' if when else ''}"

    def applies_to(self, row: Row) -> bool:
        return all(
            bool(row.get(column)) if values == "set" else (row.get(column) or None) in values
            for column, values in self.when.items()
        )

    def holds_for(self, row: Row) -> bool:
        value = row.get(self.column, "")
        if self.must in ("null", "set"):
            return bool(value) is (self.must == "set")
        [(word, other)] = self.must.items()
        return _CHECKS[word](value, other, row)


def _is_product(value: str, factors: Sequence[str], row: Row) -> bool:
    first, second = factors
    with exact_arithmetic():
        return Decimal(row[first]) * Decimal(row[second]) == Decimal(value)


_CHECKS: Mapping[str, Callable[[str, Any, Row], bool]] = {
    "is": lambda value, other, row: value == other,
    "not": lambda value, other, row: value != other,
    "same_as": lambda value, other, row: value == row[other],
    "not_same_as": lambda value, other, row: value != row[other],
    "product": _is_product,
    "after": lambda value, other, row: value > row[other],
    "with": lambda value, other, row: bool(row[other]),
    # Of all rows together: see `broken_rules`.
    "one": lambda value, other, row: True,
}


def _of_column(name: str, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    kind = _TYPES[facts["type"]]
    yield f"{name}: of type {facts['type']}", lambda value: not value or kind.fullmatch(value)
    if not facts.get("null", True):
        yield f"{name}: never null", bool
    if values := facts.get("values"):
        yield f"{name}: one of {values}", lambda value: not value or value in values
    if "at_least" in facts:
        yield f"{name}: at least {facts['at_least']}", lambda value: not value or Decimal(value) >= facts["at_least"]


RULES = tuple(Rule(each["column"], each["when"], each["must"]) for each in _FOCUS["rules"])
COLUMN_RULES = tuple((name, *rule) for name, facts in COLUMNS.items() for rule in _of_column(name, facts))


def broken_rules(rows: Sequence[Row], *, columns: Collection[str] | None = None) -> list[str]:
    """Each broken rule with the rows that break it, from 0. columns: those that are looked at, otherwise all."""
    looked_at = COLUMNS if columns is None else columns
    missing = [f"{name}: missing" for name in looked_at if rows and name not in rows[0]]
    found: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        for sentence in _broken_by(row, looked_at):
            found[sentence].append(number)
    divided = [rule.name for rule in RULES if rule.column in looked_at and _has_two_parents(rule, rows)]
    return [*missing, *divided, *(f"{rule} (rows {numbers})" for rule, numbers in found.items())]


def _broken_by(row: Row, looked_at: Collection[str]) -> Iterator[str]:
    yield from (f"{name}: unknown" for name in row if name not in COLUMNS and not name.startswith("x_"))
    for name, sentence, holds in COLUMN_RULES:
        if name in looked_at and not holds(row.get(name, "")):
            yield sentence
    for rule in RULES:
        if rule.column in looked_at and rule.applies_to(row) and not rule.holds_for(row):
            yield rule.name


def _has_two_parents(rule: Rule, rows: Sequence[Row]) -> bool:
    """Whether one value of the column stands beside several of the other, where it may have one."""
    if not isinstance(rule.must, dict) or "one" not in rule.must:
        return False
    parents: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if rule.applies_to(row):
            parents[row[rule.column]].add(row.get(rule.must["one"], ""))
    return any(len(values) > 1 for values in parents.values())
