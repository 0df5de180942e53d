"""A provider's report, and the result of comparing it with the books: frozen, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum

from llm.money import exact_arithmetic, exact_sum


class ReportError(Exception):
    """The file can't be imported: one sentence that says where and why. Nothing was written."""


@dataclass(frozen=True, slots=True)
class ReportedCost:
    """One row of a report, as stored in `billing.models.ProviderCost`. None: the report doesn't say."""

    report: str
    utc_day: date
    model: str
    line_item: str = ""
    requests: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """rows: one per report, day, model and line item. days: (report, day) that the file covers."""

    rows: tuple[ReportedCost, ...]
    days: frozenset[tuple[str, date]]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One side's figures for a model's day. None: it has none. cost: USD."""

    requests: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cost: Decimal | None = None

    @property
    def total_tokens(self) -> int | None:
        return count_of((self.prompt_tokens, self.completion_tokens))


@dataclass(frozen=True, slots=True)
class Books:
    """Our side, with possible explanations of a difference. unpriced_calls used tokens, but no price was known for
    them.

    estimated_calls: their tokens are our estimate. open_calls: have no figures yet. beside_tokens: the part of the cost
    for units beside tokens, such as web searches, which providers charge on lines without a model.
    """

    side: Side
    unpriced_calls: int = 0
    estimated_calls: int = 0
    open_calls: int = 0
    beside_tokens: Decimal = Decimal(0)

    @property
    def is_nothing(self) -> bool:
        """Calls that used nothing, such as those that the provider refused."""
        return not self.side.total_tokens and not self.side.cost and not self.open_calls


class ReasonCode(StrEnum):
    NOT_HERE = "not_here"
    NOT_THERE = "not_there"
    ESTIMATED = "estimated"
    UNPRICED = "unpriced"
    OPEN = "open"
    PRICE = "price"
    ROUNDING = "rounding"
    OTHER_DAY = "other_day"
    NOT_ATTRIBUTABLE = "not_attributable"
    BESIDE_TOKENS = "beside_tokens"
    IN_ALL = "in_all"
    NO_COSTS = "no_costs"
    NO_TOKENS = "no_tokens"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Reason:
    code: ReasonCode
    sentence: str


@dataclass(frozen=True, slots=True)
class ReconciledLine:
    """A model's day. line_item: for charges without a model. ours, theirs: None if that side has nothing.

    Without model and line_item: figures of a report without models, compared with all of ours.
    """

    utc_day: date
    model: str
    line_item: str
    ours: Books | None
    theirs: Side | None
    reasons: tuple[Reason, ...]

    @property
    def cost_difference(self) -> Decimal | None:
        """Theirs less ours: positive if they charge something that the books don't have. None if it is unknown."""
        ours = Decimal(0) if self.ours is None else self.ours.side.cost
        theirs = Decimal(0) if self.theirs is None else self.theirs.cost
        return None if ours is None or theirs is None else difference_of(theirs, ours)

    @property
    def token_difference(self) -> int | None:
        """Theirs less ours, input and output."""
        ours = 0 if self.ours is None else self.ours.side.total_tokens
        theirs = 0 if self.theirs is None else self.theirs.total_tokens
        return None if ours is None or theirs is None else theirs - ours

    @property
    def agrees(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class ReconciledTotals:
    """Sums in USD over all models. theirs: None if no costs were imported."""

    ours: Decimal
    theirs: Decimal | None

    @property
    def difference(self) -> Decimal | None:
        return None if self.theirs is None else difference_of(self.theirs, self.ours)


@dataclass(frozen=True, slots=True)
class ReconciledDay:
    utc_day: date
    totals: ReconciledTotals


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Our books compared with the provider's reports, by UTC day and model; both days inclusive."""

    provider: str
    first: date
    last: date
    lines: tuple[ReconciledLine, ...]
    days: tuple[ReconciledDay, ...]

    @property
    def totals(self) -> ReconciledTotals:
        return ReconciledTotals(
            ours=total_of(day.totals.ours for day in self.days) or Decimal(0),
            theirs=total_of(day.totals.theirs for day in self.days),
        )

    @property
    def agrees(self) -> bool:
        return all(line.agrees for line in self.lines)


def total_of(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Exact sum of the known ones; None if none is known."""
    known = [amount for amount in amounts if amount is not None]
    return exact_sum(known) if known else None


def difference_of(first: Decimal, second: Decimal) -> Decimal:
    """Exact."""
    with exact_arithmetic():
        return first - second


def count_of(counts: Iterable[int | None]) -> int | None:
    """Sum of the known ones; None if none is known."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
