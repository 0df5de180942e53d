"""What travels between billing's layers: frozen, no I/O, no models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from billing.enums import LineKind, TierMode
from llm.types import STANDARD_SERVICE, Service, TokenCounts

NO_DIGEST = (0,) * 8

Progress = Callable[[int, int], None]
"""Called from time to time during long work with (done, total), approximately."""

EXACT_DECIMALS = 24
"""Of an unrounded amount: pico-units (12) times a percentage (6) times an exchange rate (6)."""
EXACT_DIGITS = 38
"""Of an amount including its decimals; no column holds more."""


@dataclass(frozen=True, slots=True)
class UsageSum:
    """The billable calls of one account and period, by model and by the rates that priced them.

    rates: meter -> pico-units of USD per unit, of that rate set; empty if the calls were free or unpriced.
    counts: sums without extra meters. cost_pico: pico-units of USD, of priced calls only. digest: sums of words.
    service, min_prompt_tokens: what the rate set is for. days: the first and last with such calls, in the account's
    calendar; None if not requested.
    """

    provider: str
    model: str
    rate_set_id: int | None
    calls: int
    counts: TokenCounts
    cost_pico: int
    rates: Mapping[str, int] = field(default_factory=dict)
    unpriced_calls: int = 0
    estimated_calls: int = 0
    estimated_cost_pico: int = 0
    digest: tuple[int, ...] = NO_DIGEST
    service: Service = STANDARD_SERVICE
    min_prompt_tokens: int = 0
    days: tuple[date, date] | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """price_per_million: in the plan's currency."""

    from_tokens: int
    price_per_million: Decimal


@dataclass(frozen=True, slots=True)
class FixedPrice:
    """The price of one meter of the models that match the pattern. tiers: by `from_tokens`, the first of them 0.

    A tier begins after its `from_tokens`: of tiers from 0 and from 1,000, the 1,000th token is still in the first.
    """

    pattern: str
    meter: str
    mode: TierMode
    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """A plan's version as rating sees it; see `billing.models.PlanVersion`. fixed_prices: the first match wins."""

    version_id: int
    effective_from: date
    currency: str
    markup_percent: Decimal = Decimal(0)
    flat_fee: Decimal = Decimal(0)
    minimum_commitment: Decimal = Decimal(0)
    allowance_tokens: int = 0
    allowance_amount: Decimal = Decimal(0)
    discount_percent: Decimal = Decimal(0)
    fixed_prices: tuple[FixedPrice, ...] = ()


@dataclass(frozen=True, slots=True)
class OneOff:
    """A charge or allowance that staff added to a month by hand; see `billing.models.OneOffLine`.

    amount: without tax; negative for an allowance. tax_percent: None if it has the tax rate of its month.
    """

    key: str
    description: str
    amount: Decimal
    tax_percent: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """One line as rated; see `billing.models.InvoiceLine`. key: identifies it among all lines of its period.

    quantity: of the meter's units, negative if an allowance takes them back; None if the line has none.
    unit_price: per million of them, if one price applies to all: exact_amount is exactly quantity x unit_price.
    exact_amount: in the plan's currency, unrounded, 24 decimals; amount: rounded half away from zero.
    cost_pico: its share of our cost, USD; the shares of all lines add up to the cost of the usage.
    calls, digest: of the calls that it stands for: at cost all that used its meter at its price, at fixed prices all of
    the model's. tax_percent: None if it has the tax rate of its month.
    """

    key: str
    kind: LineKind
    description: str
    exact_amount: Decimal
    amount: Decimal
    quantity: int | None = None
    unit_price: Decimal | None = None
    provider: str = ""
    model: str = ""
    meter: str = ""
    cost_pico: int = 0
    calls: int = 0
    digest: tuple[int, ...] = NO_DIGEST
    tax_percent: Decimal | None = None

    @property
    def residual(self) -> Decimal:
        """Exact: at most half a unit of the currency, with 24 decimals."""
        return self.exact_amount - self.amount
