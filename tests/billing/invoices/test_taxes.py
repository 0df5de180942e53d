"""The tax of a document's lines: rounded, and adding up to the tax that the document says, at each rate."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.invoices.taxes import Tax, set_taxes, tax_by_line, tax_of
from billing.models import Invoice, InvoiceLine
from llm.money import exact_sum

RATES = ("0", "7", "7.7", "19", "20")


def document(*taxes: Tax, currency: str = "EUR") -> Invoice:
    invoice = Invoice(currency=currency, tax_percent=taxes[0].percent)
    set_taxes(invoice, taxes)
    return invoice


def line(amount: str, percent: str | None = "19") -> InvoiceLine:
    return InvoiceLine(amount=Decimal(amount), tax_percent=None if percent is None else Decimal(percent))


def tax(percent: str, net: str, tax: str) -> Tax:
    return Tax(Decimal(percent), Decimal(net), Decimal(tax))


def shares(invoice: Invoice, *lines: InvoiceLine) -> list[str]:
    return [f"{share:f}" for share in tax_by_line(invoice, lines)]


def test_what_rounding_leaves_goes_to_the_largest_remainders() -> None:
    """Rounded one by one they are 0.01 each, 0.03 in all."""
    lines = (line("0.03"), line("0.03"), line("0.04"))
    assert shares(document(tax("19", "0.10", "0.02")), *lines) == ["0.01", "0.00", "0.01"]


def test_lines_below_nothing_count_too() -> None:
    lines = (line("2.50"), line("-0.27"), line("0.00"), line("0.05"))
    assert shares(document(tax("19", "2.28", "0.43")), *lines) == ["0.47", "-0.05", "0.00", "0.01"]


def test_each_rate_adds_up_by_itself() -> None:
    lines = (line("10.03"), line("0.53", "7"), line("10.03"), line("0.53", "7"), line("5.00", "0"))
    invoice = document(tax("19", "20.06", "3.81"), tax("7", "1.06", "0.07"), tax("0", "5.00", "0"))
    assert shares(invoice, *lines) == ["1.91", "0.04", "1.90", "0.03", "0.00"]


def test_a_credit_note_that_takes_the_last_of_the_tax_adds_up_to_it() -> None:
    lines = (line("-1.00"), line("-1.00"))
    assert shares(document(tax("19", "-2.00", "-0.37")), *lines) == ["-0.19", "-0.18"]
    assert shares(document(tax("19", "-2.00", "-0.41")), *lines) == ["-0.21", "-0.20"]


def test_lines_of_version_1_have_their_invoices_rate() -> None:
    invoice = Invoice(currency="USD", tax_percent=Decimal(19), subtotal=Decimal("0.06"), tax=Decimal("0.01"), taxes=[])
    assert shares(invoice, line("0.03", None), line("0.03", None)) == ["0.01", "0.00"]


def test_a_credit_note_of_all_lines_takes_each_lines_tax_back() -> None:
    amounts = ("0.03", "0.03", "0.04")
    charged = shares(document(tax("19", "0.10", "0.02")), *(line(amount) for amount in amounts))
    given = shares(document(tax("19", "-0.10", "-0.02")), *(line(f"-{amount}") for amount in amounts))
    assert [Decimal(share) for share in given] == [-Decimal(share) for share in charged]


def test_currencies_have_their_decimals() -> None:
    assert shares(document(tax("10", "15", "2"), currency="JPY"), line("8", "10"), line("7", "10")) == ["1", "1"]
    kwd = document(tax("5", "0.021", "0.001"), currency="KWD")
    assert shares(kwd, line("0.010", "5"), line("0.011", "5")) == ["0.000", "0.001"]


def test_a_document_without_lines_has_no_tax_by_line() -> None:
    assert shares(document(tax("19", "0", "0"))) == []


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.sampled_from(RATES)), min_size=1, max_size=20))
def test_shares_add_up_whatever_the_lines(given_lines: list[tuple[int, str]]) -> None:
    lines = [line(f"{Decimal(cents).scaleb(-2):f}", percent) for cents, percent in given_lines]
    nets = {
        percent: exact_sum(each.amount for each in lines if each.tax_percent == Decimal(percent)) for percent in RATES
    }
    taxes = [Tax(Decimal(percent), net, tax_of(net, Decimal(percent), "EUR")) for percent, net in nets.items()]
    found = tax_by_line(document(*taxes), lines)
    for each in taxes:
        at_rate = [share for share, one in zip(found, lines, strict=True) if one.tax_percent == each.percent]
        assert sum(at_rate) == each.tax
    assert all(
        abs(share - one.amount * one.tax_percent / 100) < Decimal("0.01")
        for share, one in zip(found, lines, strict=True)
        if one.tax_percent is not None
    )


@pytest.mark.parametrize("total", ["0.05", "-0.05"])
def test_a_tax_without_a_rate_is_still_told(total: str) -> None:
    """It can't come about, but what the document says is what the lines add up to."""
    assert sum(tax_by_line(document(tax("0", "3.00", total)), [line("1.00", "0"), line("2.00", "0")])) == Decimal(total)
