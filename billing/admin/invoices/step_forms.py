"""The forms behind the buttons of an invoice's page."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django import forms
from django.utils import timezone

from billing.currencies import DECIMALS, MAX_DECIMALS, format_money
from billing.invoices.crediting import creditable
from billing.invoices.one_off_changes import removable_lines
from billing.invoices.payments import balance_of, payments_to_undo
from billing.invoices.review import MAX_REFERENCE
from billing.models import Invoice, Payment
from billing.models.plans import PERCENT_DECIMALS
from llm.admin.usage.filters import DateInput

MAX_DIGITS = 26
"""Of an amount, decimals included."""


class StepForm(forms.Form):
    """The reason, for the invoice's history. Subclasses ask for more."""

    reason = forms.CharField(
        max_length=500,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 60}),
        help_text="Recorded in the invoice's history.",
    )

    def __init__(self, data: Any = None, *, invoice: Invoice | None = None) -> None:
        """invoice: None where the step is made for several at once."""
        super().__init__(data)
        self.invoice = invoice

    def details(self) -> dict[str, Any]:
        """Further arguments of the service beside the reason. Only for a valid form."""
        return {}

    def plain_fields(self) -> Iterable[forms.BoundField]:
        """Fields that the page shows one below the other, before the reason."""
        return [field for field in self if field.name not in ("reason", "scope") and not field.name.startswith("line_")]


class ReasonedForm(StepForm):
    def __init__(self, data: Any = None, *, invoice: Invoice | None = None) -> None:
        super().__init__(data, invoice=invoice)
        self.fields["reason"].required = True


class OneOffForm(ReasonedForm):
    """A charge or an allowance that isn't usage. Both are entered as positive amounts."""

    CHARGE, ALLOWANCE = "charge", "allowance"

    kind = forms.ChoiceField(
        label="Kind",
        choices=[(CHARGE, "Charge, such as a setup fee"), (ALLOWANCE, "Allowance: reduces what the month charges")],
        help_text="An allowance covers at most what the month charges otherwise, and late usage up to its amount.",
    )
    description = forms.CharField(
        max_length=150,
        widget=forms.TextInput(attrs={"size": 50}),
        help_text="As printed on the invoice.",
    )
    amount = forms.DecimalField(
        min_value=Decimal("0.001"),
        max_digits=MAX_DIGITS,
        decimal_places=MAX_DECIMALS,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "gw-rate"}),
    )
    tax_percent = forms.DecimalField(
        label="Tax, percent",
        required=False,
        min_value=Decimal(0),
        max_value=Decimal(100),
        decimal_places=PERCENT_DECIMALS,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "gw-rate"}),
        help_text="Only for a charge with a tax rate of its own. Empty: the rate of the month.",
    )

    field_order = ("kind", "description", "amount", "tax_percent", "reason")

    def __init__(self, data: Any = None, *, invoice: Invoice) -> None:
        super().__init__(data, invoice=invoice)
        self.fields["amount"].help_text = f"In {invoice.currency}, without tax."

    def details(self) -> dict[str, Any]:
        sign = -1 if self.cleaned_data["kind"] == self.ALLOWANCE else 1
        return {
            "description": self.cleaned_data["description"],
            "amount": sign * self.cleaned_data["amount"],
            "tax_percent": self.cleaned_data["tax_percent"],
        }


class RemoveOneOffForm(ReasonedForm):
    """Chooses one of the lines that can be removed."""

    field_order = ("one_off", "reason")

    def __init__(self, data: Any = None, *, invoice: Invoice) -> None:
        super().__init__(data, invoice=invoice)
        self.fields["one_off"] = forms.TypedChoiceField(
            label="Line",
            coerce=int,
            choices=[
                (line.pk, f"{line.description}, {format_money(line.amount, line.currency)} {line.currency}")
                for line in removable_lines(invoice)
            ],
        )
        self.order_fields(self.field_order)

    def details(self) -> dict[str, Any]:
        return {"line_id": self.cleaned_data["one_off"]}


class PaymentForm(StepForm):
    """amount: asked only for a single invoice; several are each paid in full."""

    paid_on = forms.DateField(label="Paid on", widget=DateInput(), initial=lambda: timezone.now().date())
    amount = forms.DecimalField(
        required=False,
        max_digits=MAX_DIGITS,
        decimal_places=MAX_DECIMALS,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "gw-rate"}),
    )
    reference = forms.CharField(
        required=False,
        max_length=MAX_REFERENCE,
        widget=forms.TextInput(attrs={"size": 40}),
        help_text="For example the bank's.",
    )

    field_order = ("paid_on", "amount", "reference", "reason")

    def __init__(self, data: Any = None, *, invoice: Invoice | None = None) -> None:
        super().__init__(data, invoice=invoice)
        if invoice is None:
            del self.fields["amount"]
        else:
            left = format_money(abs(balance_of(invoice).outstanding), invoice.currency)
            self.fields["amount"].help_text = f"Empty: all of the {left} {invoice.currency} outstanding."

    def details(self) -> dict[str, Any]:
        return {name: self.cleaned_data.get(name) for name in ("paid_on", "amount", "reference")}


class UndoPaymentForm(ReasonedForm):
    """Chooses one of the payments."""

    field_order = ("payment", "reason")

    def __init__(self, data: Any = None, *, invoice: Invoice) -> None:
        super().__init__(data, invoice=invoice)
        choices = [(each.pk, _payment_text(each, invoice.currency)) for each in payments_to_undo(invoice)]
        self.fields["payment"] = forms.TypedChoiceField(label="Payment", coerce=int, choices=choices)
        self.order_fields(self.field_order)

    def details(self) -> dict[str, Any]:
        return {"payment_id": self.cleaned_data["payment"]}


def _payment_text(payment: Payment, currency: str) -> str:
    reference = f", {payment.reference}" if payment.reference else ""
    return f"{format_money(payment.amount, currency)} {currency} on {payment.paid_on}{reference}"


class CreditForm(ReasonedForm):
    """Credits all that is left of the invoice, or amounts of some of its lines."""

    WHOLE, LINES = "whole", "lines"

    scope = forms.ChoiceField(
        label="What is credited?",
        choices=[(WHOLE, "Everything left on the invoice"), (LINES, "These amounts, without tax:")],
        initial=WHOLE,
        widget=forms.RadioSelect,
    )

    def __init__(self, data: Any = None, *, invoice: Invoice) -> None:
        super().__init__(data, invoice=invoice)
        left = creditable(invoice)
        self._lines = {line.pk: line for line in invoice.lines.order_by("position") if left[line.pk] > 0}
        for line_id, line in self._lines.items():
            self.fields[f"line_{line_id}"] = forms.DecimalField(
                label=line.description,
                required=False,
                min_value=Decimal(0),
                max_digits=MAX_DIGITS,
                decimal_places=min(DECIMALS[invoice.currency], MAX_DECIMALS),
                widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "gw-rate"}),
                help_text=f"of {format_money(left[line_id], invoice.currency)}",
            )

    def line_fields(self) -> Iterable[forms.BoundField]:
        return [self[f"line_{line_id}"] for line_id in self._lines]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        given = self._amounts()
        if data.get("scope") == self.LINES and not given and not self.errors:
            self.add_error("scope", "Enter an amount for at least one line.")
        if data.get("scope") == self.WHOLE and given:
            self.add_error("scope", "The line amounts would be ignored: select “These amounts”, or clear them.")
        return data

    def details(self) -> dict[str, Any]:
        return {"amounts": None if self.cleaned_data["scope"] == self.WHOLE else self._amounts()}

    def _amounts(self) -> dict[int, Decimal]:
        values = ((line_id, self.cleaned_data.get(f"line_{line_id}")) for line_id in self._lines)
        return {line_id: amount for line_id, amount in values if amount}


class BillAgainForm(ReasonedForm):
    """Corrects all lines of the invoice, or some of them."""

    WHOLE, LINES = "whole", "lines"

    scope = forms.ChoiceField(
        label="What is billed again?",
        choices=[(WHOLE, "The whole invoice"), (LINES, "These lines:")],
        initial=WHOLE,
        widget=forms.RadioSelect,
    )

    def __init__(self, data: Any = None, *, invoice: Invoice) -> None:
        super().__init__(data, invoice=invoice)
        left = creditable(invoice)
        self._lines = {line.pk: line for line in invoice.lines.order_by("position") if left[line.pk]}
        for line_id, line in self._lines.items():
            self.fields[f"line_{line_id}"] = forms.BooleanField(
                label=line.description,
                required=False,
                help_text=f"{format_money(left[line_id], invoice.currency)} left",
            )

    def line_fields(self) -> Iterable[forms.BoundField]:
        return [self[f"line_{line_id}"] for line_id in self._lines]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get("scope") == self.LINES and not self._chosen():
            self.add_error("scope", "Choose at least one line.")
        if data.get("scope") == self.WHOLE and self._chosen():
            self.add_error("scope", "You chose lines: select “These lines”, or clear them.")
        return data

    def details(self) -> dict[str, Any]:
        return {"line_ids": None if self.cleaned_data["scope"] == self.WHOLE else self._chosen()}

    def _chosen(self) -> list[int]:
        return [line_id for line_id in self._lines if self.cleaned_data.get(f"line_{line_id}")]
