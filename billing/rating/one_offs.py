"""Lines that staff added to a month by hand: setup fees and the like, and allowances.

They come after everything that the plan charges, which they don't change: neither a discount nor a minimum commitment
takes them into account.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from billing.enums import LineKind
from billing.rating.lines import month_line
from billing.types import ChargeLine, OneOff
from llm.money import exact_sum


def one_off_lines(
    lines: Sequence[ChargeLine], one_offs: Iterable[OneOff], *, tax_percent: Decimal, decimals: int
) -> tuple[ChargeLine, ...]:
    """lines: all others of the month. one_offs: in the order in which they were added. tax_percent: the month's.

    Allowances come last. Each covers at most what is left of the lines taxed at the month's rate, so that neither these
    lines nor their tax become negative. If later usage makes them more, the allowance covers that too.
    """
    one_offs = list(one_offs)
    charges = [_line(each, each.amount, decimals) for each in one_offs if each.amount > 0]
    taxed_alike = (line for line in (*lines, *charges) if line.tax_percent in (None, tax_percent))
    left = max(exact_sum(line.amount for line in taxed_alike), Decimal(0))
    return (*charges, *_allowances((each for each in one_offs if each.amount < 0), left, decimals))


def _allowances(one_offs: Iterable[OneOff], left: Decimal, decimals: int) -> Iterator[ChargeLine]:
    for each in one_offs:
        covered = min(-each.amount, left)
        left = exact_sum((left, -covered))
        if covered:
            yield _line(each, -covered, decimals)


def _line(one_off: OneOff, amount: Decimal, decimals: int) -> ChargeLine:
    line = month_line(LineKind.ONE_OFF, one_off.key, one_off.description, amount, decimals=decimals)
    return line if one_off.tax_percent is None else replace(line, tax_percent=one_off.tax_percent)
