"""What a provider's report says, and what comes of setting it against the books: frozen, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum

from llm.money import exact_arithmetic, exact_sum


class ReportError(Exception):
    """A file that can't be imported: one sentence, which says where and why. Nothing was written."""


@dataclass(frozen=True, slots=True)
class ReportedCost:
    """One row of a report, as `billing.models.ProviderCost` keeps it. None: the report doesn't say."""

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
    """rows: one for each report, day, model and line item. days: (report, day) that the file speaks of."""

    rows: tuple[ReportedCost, ...]
    days: frozenset[tuple[str, date]]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the two says of a model's day. None: it doesn't say. cost: USD."""

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
    """Our side, with what may explain a difference. unpriced_calls used tokens, but no price was known for them.

    estimated_calls: their tokens were counted by us. open_calls: have no figures yet. beside_tokens: what of the cost
    is for units beside the tokens, such as web searches: providers charge them on lines without a model.
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
    """A model's day. line_item: where the provider names no model. ours, theirs: None where one knows nothing of it.

    Without both it is what a report says that names no models, and ours of all of them.
    """

    utc_day: date
    model: str
    line_item: str
    ours: Books | None
    theirs: Side | None
    reasons: tuple[Reason, ...]

    @property
    def cost_difference(self) -> Decimal | None:
        """Theirs less ours: more than 0 where they charge what the books don't know. None where it can't be told."""
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
    """Sums in USD, whatever the models are called. theirs: None where no costs were imported."""

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
    """Our books against the provider's reports, by UTC day and model; both days are included."""

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
    """Exact, of those that are known; None where none is."""
    known = [amount for amount in amounts if amount is not None]
    return exact_sum(known) if known else None


def difference_of(first: Decimal, second: Decimal) -> Decimal:
    """Exact."""
    with exact_arithmetic():
        return first - second


def count_of(counts: Iterable[int | None]) -> int | None:
    """Of those that are known; None where none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
