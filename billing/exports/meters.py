"""Units beside tokens, such as web searches, behind an invoice's lines of other usage.

Rollups don't count them, since they are rare. They are counted from the calls, as on the books at the invoice's
cutoff.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from billing.models import Invoice, InvoiceLine
from billing.rating.cost import AT_PRICE, OF_RATE_SET
from billing.rollup import load_rates
from llm.books.figures import compute_figures
from llm.enums import UsageStatus
from llm.models import Usage, UsageAdjustment
from llm.money import format_usd, pico_to_usd

_CLOSED = (UsageStatus.SETTLED, UsageStatus.ESTIMATED)

_Rates = tuple[str, str, int]
"""Provider, model, id of the rate set."""


@dataclass(frozen=True, slots=True)
class MeteredUnits:
    """units x unit_price = amount, in the invoice's currency. key: what the key of a line of this meter would be."""

    meter: str
    units: int
    unit_price: Decimal
    key: str

    @property
    def amount(self) -> Decimal:
        return self.units * self.unit_price


class MetersOfMonth:
    """Of an invoice's own month. The calls are read when they are first needed."""

    def __init__(self, invoice: Invoice) -> None:
        self.invoice = invoice

    def behind(self, line: InvoiceLine) -> Iterator[MeteredUnits]:
        """line: of other usage, without a quantity. Call it inside `exact_arithmetic`.

        Empty if the plan has a fixed price, which includes these units, or if their rates aren't those of the line.
        """
        kind, _, basis, rest = [*line.key.split("|", 3), "", "", ""][:4]
        rate_sets = self._rate_sets_behind(line, basis)
        rates, charge = load_rates(rate_sets), _charge_per_usd(line, self.invoice)
        found: Counter[tuple[str, Decimal]] = Counter()
        for rate_set in rate_sets:
            for name, units in self._units[line.provider, line.model, rate_set].items():
                if name in rates[rate_set]:
                    found[name, pico_to_usd(rates[rate_set][name]) * charge] += units
        for (name, price), units in sorted(found.items()):
            if units:
                own = basis if basis.startswith(OF_RATE_SET) else AT_PRICE + format_usd(price, min_decimals=0)
                yield MeteredUnits(name, units, price, f"{kind}|{name}|{own}|{rest}")

    def _rate_sets_behind(self, line: InvoiceLine, basis: str) -> list[int]:
        """The line of a month that is billed by price adds up all rate sets of its model."""
        if basis.startswith(AT_PRICE):
            return [rate_set for *model, rate_set in self._units if model == [line.provider, line.model]]
        rate_set_id = basis.removeprefix(OF_RATE_SET)
        return [int(rate_set_id)] if basis.startswith(OF_RATE_SET) and rate_set_id.isdigit() else []

    @cached_property
    def _units(self) -> Mapping[_Rates, Counter[str]]:
        units: dict[_Rates, Counter[str]] = defaultdict(Counter)
        for row, adjustments in self._calls():
            figures = compute_figures(row, adjustments)
            if figures.is_billable and figures.rate_set_id is not None:
                units[row.provider, row.model, figures.rate_set_id].update(figures.counts.extra_meters)
        return units

    def _calls(self) -> Iterator[tuple[Usage, list[UsageAdjustment]]]:
        """The month's calls with such units, and their adjustments, oldest first, as recorded by the cutoff."""
        period, cutoff = self.invoice.period, self.invoice.cutoff_at
        if cutoff is None:
            return
        known = UsageAdjustment.objects.filter(recorded_at__lte=cutoff)
        has_some = ~Q(extra_meters={}) | Exists(known.filter(usage=OuterRef("pk")).exclude(extra_meters={}))
        rows = Usage.objects.filter(
            has_some,
            account=self.invoice.account_id,
            local_day__gte=period.start,
            local_day__lt=period.end,
            recorded_at__lte=cutoff,
            status__in=_CLOSED,
        )
        adjustments: dict[UUID, list[UsageAdjustment]] = defaultdict(list)
        for adjustment in known.filter(usage__in=rows).order_by("id"):
            adjustments[adjustment.usage_id].append(adjustment)
        for row in rows.order_by().iterator(chunk_size=2000):
            yield row, adjustments.get(row.pk, [])


def _charge_per_usd(line: InvoiceLine, invoice: Invoice) -> Decimal:
    """As the line was rated. Lines of version 1 use their invoice's exchange rate."""
    markup = 1 + line.plan_version.markup_percent.scaleb(-2)
    return markup * (line.per_usd or invoice.per_usd or 1)
