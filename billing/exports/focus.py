"""focus: the FinOps Open Cost and Usage Specification 1.2, as one CSV file.

One row an invoice line, at its unrounded amount; then what rounding the lines came to, and the tax, on a row of its own
each. So the rows of an invoice add up to exactly what it asks for, tax included, as the specification wants it of
`BilledCost`. docs/export.md says how each column is filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal

from billing.enums import InvoiceKind, LineKind
from billing.exports.base import FormatWriter, Scope
from billing.exports.cells import Figure, Value, exact
from billing.exports.csv_files import CsvRows
from billing.exports.files import ExportFiles
from billing.exports.tables import number_of, state_of
from billing.models import Invoice, InvoiceLine
from billing.parties import bill_to_of, seller_of
from billing.periods import Period
from billing.taxes import taxes_of
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
    LineKind.GOODWILL: ("Credit", "One-Time"),
}
"""ChargeCategory and ChargeFrequency."""

_PRICED = ("Usage", "Purchase")
"""Categories that have prices."""

_TOKENS = frozenset(Meter.values)

Row = dict[str, Value]


class FocusWriter(FormatWriter):
    def __init__(self, files: ExportFiles, scope: Scope) -> None:
        super().__init__(files, scope)
        self._rows = CsvRows(files, "focus-1.2.csv", COLUMNS)

    def add_invoice(self, invoice: Invoice, lines: Sequence[InvoiceLine]) -> None:
        shared = _of_invoice(invoice)
        with exact_arithmetic():
            rows = [*(_of_line(line) for line in lines), *_at_the_end(invoice, lines)]
        for row in rows:
            self._rows.add([{**shared, **row}.get(name) for name in COLUMNS])


def _of_invoice(invoice: Invoice) -> Row:
    """What all rows of an invoice share."""
    seller = seller_of(invoice).name
    return {
        "BillingAccountId": str(invoice.account_id),
        "BillingAccountName": bill_to_of(invoice).legal_name,
        "BillingAccountType": "Account",
        "BillingCurrency": invoice.currency,
        "PricingCurrency": invoice.currency,
        **_bounds("BillingPeriod", invoice.period),
        **_bounds("ChargePeriod", invoice.period),
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


def _of_line(line: InvoiceLine) -> Row:
    category, frequency = _CATEGORY[LineKind(line.kind)]
    is_correction = line.invoice.kind == InvoiceKind.CREDIT_NOTE or line.period_start != line.invoice.period_start
    row: Row = {
        **_costs(line.exact_amount),
        **_bounds("ChargePeriod", Period(line.period_start)),
        "ChargeCategory": category,
        "ChargeClass": "Correction" if is_correction else None,
        "ChargeDescription": line.description,
        "ChargeFrequency": frequency,
        "x_LinePosition": line.position,
    }
    if category in _PRICED:
        row |= _priced(line)
    if line.model:
        row |= {"PublisherName": line.provider, "ResourceName": line.model, "ResourceType": "Model"}
    if category == "Usage" and line.quantity is not None:
        row |= {"ConsumedQuantity": line.quantity, "ConsumedUnit": _unit_of(line)}
    return row


def _priced(line: InvoiceLine) -> Row:
    """Quantity x unit price is the cost; what has no unit price is one piece at its cost, or one piece back."""
    if line.unit_price is None or line.quantity is None or line.unit_price < 0:
        quantity, price, unit = Decimal(1).copy_sign(line.exact_amount), abs(line.exact_amount), "Units"
    else:
        quantity, price = Decimal(line.quantity).scaleb(-PRICE_DECIMALS), line.unit_price
        unit = f"{10**PRICE_DECIMALS} {_unit_of(line)}"
    return {
        "PricingCategory": "Standard",
        "PricingQuantity": exact(quantity),
        "PricingUnit": unit,
        **dict.fromkeys(("ContractedUnitPrice", "ListUnitPrice"), exact(price)),
        **dict.fromkeys(("PricingCurrencyContractedUnitPrice", "PricingCurrencyListUnitPrice"), exact(price)),
        "SkuId": f"{line.provider}/{line.model}" if line.model else line.kind,
        "SkuMeter": line.meter or None,
        "SkuPriceId": f"{line.plan_version_id}|{line.key}",
    }


def _at_the_end(invoice: Invoice, lines: Sequence[InvoiceLine]) -> Iterator[Row]:
    rounding = -sum((line.residual for line in lines), Decimal(0))
    if rounding:
        yield {**_costs(rounding), **_said("Adjustment", "Rounding of the lines")}
    for each in taxes_of(invoice):
        if each.tax:
            yield {**_costs(each.tax), **_said("Tax", f"Tax, {exact(each.percent)} %")}


def _said(category: str, description: str) -> Row:
    return {"ChargeCategory": category, "ChargeDescription": description, "ChargeFrequency": "One-Time"}


def _costs(amount: Decimal) -> dict[str, Figure]:
    """Nothing is amortized and there is no list beside the plan, so all costs are the same."""
    names = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingCurrencyEffectiveCost")
    return dict.fromkeys(names, exact(amount))


def _bounds(name: str, period: Period) -> dict[str, str]:
    return {f"{name}Start": _midnight(period.start), f"{name}End": _midnight(period.end)}


def _midnight(day: date) -> str:
    """Of the account's own calendar, written as if it were UTC: the specification knows no other days."""
    return f"{day.isoformat()}T00:00:00Z"


def _unit_of(line: InvoiceLine) -> str:
    return "Tokens" if line.meter in _TOKENS else "Requests" if line.meter == "requests" else "Units"
