"""focus: the FinOps Open Cost and Usage Specification 1.2, as one CSV file.

One row per invoice line, at its unrounded amount; then the rounding of the lines and the tax, in rows of their own by
month. So the rows of an invoice add up to exactly its total, tax included, as the specification requires of
`BilledCost`. docs/export.md says how each column is filled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal

from billing.enums import InvoiceKind, LineKind
from billing.exports.base import FormatWriter, Scope
from billing.exports.cells import Value, exact
from billing.exports.files import ExportFiles
from billing.exports.meters import MetersOfMonth
from billing.exports.tables import number_of, state_of
from billing.exports.tabular import CsvRows
from billing.invoices.parties import bill_to_of, seller_of
from billing.invoices.taxes import percent_of, tax_by_line, taxes_of
from billing.models import Invoice, InvoiceLine
from billing.periods import BillingPeriod
from llm.enums import Meter
from llm.money import PRICE_DECIMALS, exact_arithmetic

COLUMNS = (
    *("AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType"),
    *("BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "CapacityReservationId"),
    *("CapacityReservationStatus", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency"),
    *("ChargePeriodEnd", "ChargePeriodStart", "CommitmentDiscountCategory", "CommitmentDiscountId"),
    *("CommitmentDiscountName", "CommitmentDiscountQuantity", "CommitmentDiscountStatus", "CommitmentDiscountType"),
    *("CommitmentDiscountUnit", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice"),
    *("EffectiveCost", "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory"),
    *("PricingCurrency", "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost"),
    *("PricingCurrencyListUnitPrice", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId"),
    *("RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName"),
    *("ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName"),
    *("SubAccountType", "Tags", "x_InvoiceKind", "x_InvoiceState", "x_LinePosition"),
)
"""All columns of the version, in their order, and three of our own."""

_CATEGORY = {
    LineKind.USAGE: ("Usage", "Usage-Based"),
    LineKind.ALLOWANCE: ("Credit", "One-Time"),
    LineKind.DISCOUNT: ("Credit", "One-Time"),
    LineKind.FLAT_FEE: ("Purchase", "Recurring"),
    LineKind.COMMITMENT: ("Purchase", "Recurring"),
    LineKind.ONE_OFF: ("Purchase", "One-Time"),
    LineKind.GOODWILL: ("Credit", "One-Time"),
}
"""ChargeCategory and ChargeFrequency."""

_TOKENS = frozenset(Meter.values)

Row = dict[str, Value]


_CORRECTION = "Correction"
"""The only ChargeClass: changes to a month that was invoiced already."""


class FocusWriter(FormatWriter):
    def __init__(self, files: ExportFiles, scope: Scope) -> None:
        super().__init__(files, scope)
        self._rows = CsvRows(files, "focus-1.2.csv", COLUMNS)

    def add_invoice(self, invoice: Invoice, lines: Sequence[InvoiceLine]) -> None:
        shared = _of_invoice(invoice)
        meters = MetersOfMonth(invoice)
        with exact_arithmetic():
            rows = [row for line in lines for row in _of_line(line, meters)]
            rows += [*_rounding(lines), *_taxes(invoice, lines)]
        for row in rows:
            self._rows.add([{**shared, **row}.get(name) for name in COLUMNS])


def _of_invoice(invoice: Invoice) -> Row:
    """Columns that all rows of an invoice share."""
    seller = seller_of(invoice).name
    return {
        "BillingAccountId": str(invoice.account_id),
        "BillingAccountName": bill_to_of(invoice).legal_name,
        "BillingAccountType": "Account",
        "BillingCurrency": invoice.currency,
        "PricingCurrency": invoice.currency,
        **_bounds("BillingPeriod", invoice.period),
        "InvoiceId": number_of(invoice),
        "InvoiceIssuerName": seller,
        "ProviderName": seller,
        "PublisherName": seller,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "LLM gateway",
        "ServiceSubcategory": "Generative AI",
        "x_InvoiceKind": invoice.kind,
        "x_InvoiceState": state_of(invoice),
    }


def _of_line(line: InvoiceLine, meters: MetersOfMonth) -> list[Row]:
    """One row; usage without a quantity is split into its meters."""
    row = _build_row(line)
    if row["ChargeCategory"] == "Usage":
        if line.quantity is not None:
            return [row | _priced(line) | {"ConsumedQuantity": line.quantity, "ConsumedUnit": _unit_of(line.meter)}]
        return [row] if row["ChargeClass"] else _split(line, row, meters)
    return [row | _priced(line) if row["ChargeCategory"] == "Purchase" else row]


def _build_row(line: InvoiceLine) -> Row:
    category, frequency = _CATEGORY[LineKind(line.kind)]
    if line.kind == LineKind.ONE_OFF and (line.amount < 0) != (line.invoice.kind == InvoiceKind.CREDIT_NOTE):
        category = "Credit"
    row: Row = {
        **_costs(line.exact_amount),
        **_when(line),
        **_said(category, line.description, frequency),
        "x_LinePosition": line.position,
    }
    if line.model:
        resource = f"{line.provider}/{line.model}"
        row |= {"PublisherName": line.provider, "ResourceId": resource, "ResourceName": line.model}
        row["ResourceType"] = "Model"
    return row


def _split(line: InvoiceLine, row: Row, meters: MetersOfMonth) -> list[Row]:
    """Web searches and the like, each at its price. What they leave of the line is an adjustment, not metered usage."""
    rest, rows = line.exact_amount, []
    for each in meters.behind(line):
        rest -= each.amount
        unit = _unit_of(each.meter)
        priced = {"PricingQuantity": exact(Decimal(each.units)), "PricingUnit": unit, **_prices(each.unit_price)}
        rows.append(
            row
            | _costs(each.amount)
            | _sku(line, each.meter, key=each.key)
            | priced
            | {"ChargeDescription": f"{line.description}: {each.meter.replace('_', ' ')}"}
            | {"ConsumedQuantity": each.units, "ConsumedUnit": unit}
        )
    if rest or not rows:
        rows.append(row | _costs(rest) | _said("Adjustment", line.description))
    return rows


def _priced(line: InvoiceLine) -> Row:
    """Quantity x unit price is the cost; a line without a unit price is one unit at its cost, or minus one."""
    if line.unit_price is None or line.quantity is None or line.unit_price < 0:
        quantity, price, unit = Decimal(1).copy_sign(line.exact_amount), abs(line.exact_amount), "Units"
    else:
        quantity, price = Decimal(line.quantity).scaleb(-PRICE_DECIMALS), line.unit_price
        unit = f"{10**PRICE_DECIMALS} {_unit_of(line.meter)}"
    return {
        "PricingQuantity": exact(quantity),
        "PricingUnit": unit,
        **_prices(price),
        **_sku(line, line.meter or line.kind, key=line.key),
    }


def _prices(price: Decimal) -> Row:
    names = ("ContractedUnitPrice", "ListUnitPrice")
    return {
        "PricingCategory": "Standard",
        **{f"{of}{name}": exact(price) for of in ("", "PricingCurrency") for name in names},
    }


def _sku(line: InvoiceLine, meter: str, *, key: str) -> Row:
    sku = f"{line.provider}/{line.model}" if line.model else line.kind
    return {"SkuId": sku, "SkuMeter": meter, "SkuPriceId": f"{line.plan_version_id}|{key}"}


def _rounding(lines: Sequence[InvoiceLine]) -> Iterator[Row]:
    """Rounding by month of the lines; a correction's is a correction."""
    for of_month in _by_month(lines):
        rounding = -sum((line.residual for line in of_month), Decimal(0))
        if rounding:
            yield {**_costs(rounding), **_when(of_month[0]), **_said("Adjustment", "Rounding of the lines")}


def _taxes(invoice: Invoice, lines: Sequence[InvoiceLine]) -> Iterator[Row]:
    """By rate and month; those of a rate add up to the tax on the document."""
    shares = dict(zip((line.pk for line in lines), tax_by_line(invoice, lines), strict=True))
    for each in taxes_of(invoice):
        at_rate = [line for line in lines if percent_of(line, invoice) == each.percent]
        for of_month in _by_month(at_rate):
            if tax := sum((shares[line.pk] for line in of_month), Decimal(0)):
                yield {**_costs(tax), **_when(of_month[0]), **_said("Tax", f"Tax, {exact(each.percent)} %")}


def _by_month(lines: Sequence[InvoiceLine]) -> list[list[InvoiceLine]]:
    """The document's own month first, then earlier ones, latest first."""
    months: dict[date, list[InvoiceLine]] = defaultdict(list)
    for line in lines:
        months[line.period_start].append(line)
    return [months[start] for start in sorted(months, reverse=True)]


def _when(line: InvoiceLine) -> Row:
    """Corrections of a month that was billed before: credit notes, supplements, and late lines of a later invoice."""
    is_regular = line.invoice.kind == InvoiceKind.REGULAR and line.period_start == line.invoice.period_start
    return {
        **_bounds("ChargePeriod", BillingPeriod(line.period_start)),
        "ChargeClass": None if is_regular else _CORRECTION,
    }


def _said(category: str, description: str, frequency: str = "One-Time") -> Row:
    return {"ChargeCategory": category, "ChargeDescription": description, "ChargeFrequency": frequency}


def _costs(amount: Decimal) -> Row:
    """All costs are equal: nothing is amortized, and there is no list price beside the plan's."""
    names = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingCurrencyEffectiveCost")
    return dict.fromkeys(names, exact(amount))


def _bounds(name: str, period: BillingPeriod) -> dict[str, str]:
    return {f"{name}Start": _midnight(period.start), f"{name}End": _midnight(period.end)}


def _midnight(day: date) -> str:
    """Midnight in the account's own calendar, written as if it were UTC: the specification has no other days."""
    return f"{day.isoformat()}T00:00:00Z"


def _unit_of(meter: str) -> str:
    """For example Tokens, Requests, Web Searches."""
    return "Tokens" if meter in _TOKENS else meter.replace("_", " ").title() or "Units"
