"""Lines that staff added, beside those of the plan."""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing.enums import LineKind
from billing.rating import one_off_lines
from billing.rating.lines import month_line
from billing.types import OneOff

USAGE = month_line(LineKind.USAGE, "usage", "usage", Decimal(100), decimals=2)
TAX = Decimal(19)


def added(*amounts: str, own_tax: str | None = None) -> list[OneOff]:
    tax_percent = None if own_tax is None else Decimal(own_tax)
    return [
        OneOff(f"one_off|{number}", f"line {number}", Decimal(amount), tax_percent if Decimal(amount) > 0 else None)
        for number, amount in enumerate(amounts, start=1)
    ]


@pytest.mark.parametrize(
    ("amounts", "printed"),
    [
        (("500",), ["500"]),
        (("-20",), ["-20"]),
        (("-120",), ["-100"]),
        (("-120", "50"), ["50", "-120"]),
        (("-70", "-70", "-70"), ["-70", "-30"]),
    ],
)
def test_an_allowance_covers_at_most_what_the_month_charges(amounts: tuple[str, ...], printed: list[str]) -> None:
    lines = one_off_lines([USAGE], added(*amounts), tax_percent=TAX, decimals=2)
    assert [line.amount for line in lines] == [Decimal(amount) for amount in printed]
    assert {line.kind for line in lines} == {LineKind.ONE_OFF}
    assert all(line.residual == 0 for line in lines)


def test_an_allowance_covers_nothing_that_has_another_tax_rate() -> None:
    lines = one_off_lines([], added("50", "-80", own_tax="7"), tax_percent=TAX, decimals=2)
    assert [(line.amount, line.tax_percent) for line in lines] == [(Decimal(50), Decimal(7))]


def test_a_rate_that_is_the_months_is_covered() -> None:
    lines = one_off_lines([], added("50", "-80", own_tax="19"), tax_percent=TAX, decimals=2)
    assert [line.amount for line in lines] == [Decimal(50), Decimal(-50)]


def test_nothing_is_covered_where_the_month_gives_back() -> None:
    taken_back = month_line(LineKind.USAGE, "usage", "usage", Decimal(-5), decimals=2)
    assert one_off_lines([taken_back], added("-1"), tax_percent=TAX, decimals=2) == ()
