"""The shape of invoices in responses. Our cost, margin, flags and who did what are for staff only."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.api.fields import CurrencyField, ExactField, MonthSerializerField, RequestSerializer, ViewedSerializer
from billing.calendar import sellers_date
from billing.currencies import DECIMALS, MAX_DECIMALS
from billing.enums import CreditKind, InvoiceAction, InvoiceKind, InvoiceState, LineKind
from billing.fonts import character_name
from billing.invoices.glyphs import missing_now
from billing.invoices.payments import Balance, balance_of
from billing.invoices.review import MAX_REFERENCE
from billing.invoices.taxes import percent_of, taxes_of
from billing.models import Invoice, InvoiceEvent, InvoiceLine, OneOffLine, Payment
from llm.money import format_usd


class TaxSerializer(serializers.Serializer[Any]):
    """The tax at one rate, on the sum of its lines."""

    percent = serializers.CharField()
    net = serializers.CharField()
    tax = serializers.CharField()


class InvoiceSerializer(ViewedSerializer[Invoice]):
    """Amounts are in the invoice's currency; those of credit notes are negative."""

    staff_only = frozenset(
        (
            "plan_version",
            "cost_usd",
            "previous_total",
            "previous_cost_usd",
            "estimated_permille",
            "flags",
            "needs_second_person",
            "prepared_by",
            "approved_by",
            "submitted_at",
            "approved_at",
        )
    )

    id = serializers.IntegerField()
    number = serializers.CharField(source="label", help_text="Such as INV-2026-000017; empty before it is issued.")
    account = serializers.IntegerField(source="account_id")
    account_name = serializers.CharField(source="account.name")
    kind = serializers.ChoiceField(choices=InvoiceKind.choices)
    credit_kind = serializers.ChoiceField(
        choices=[("", "none"), *CreditKind.choices], help_text="The kind of credit note; empty on invoices."
    )
    state = serializers.ChoiceField(choices=InvoiceState.choices)
    period = MonthSerializerField(source="period_start")
    currency = serializers.CharField()
    subtotal = CurrencyField()
    tax_percent = ExactField(help_text="For its own month; lines for other months may have a different rate.")
    tax = CurrencyField()
    taxes = serializers.SerializerMethodField()
    total = CurrencyField()
    per_usd = ExactField(allow_null=True, help_text="Units of the currency for one USD; null in USD.")
    original = serializers.IntegerField(
        source="original_id", allow_null=True, help_text="The invoice that a credit note credits."
    )
    issued_on = serializers.DateField(allow_null=True)
    due_on = serializers.DateField(allow_null=True)
    paid_on = serializers.DateField(allow_null=True, help_text="When the last of it was paid.")
    outstanding = serializers.SerializerMethodField(
        help_text="What is left to pay after credit notes and payments; negative: to refund or offset."
    )
    is_overdue = serializers.SerializerMethodField()
    cutoff_at = serializers.DateTimeField(
        allow_null=True, help_text="The invoice includes all usage recorded by then, and nothing later."
    )
    content_digest = serializers.CharField(help_text="SHA-256 of the content, from submission on.")
    plan_version = serializers.IntegerField(source="plan_version_id", required=False, help_text="For staff.")
    cost_usd = ExactField(required=False, help_text="USD that providers charge us for its usage. For staff.")
    previous_total = CurrencyField(required=False, allow_null=True, help_text="Of the previous month. For staff.")
    previous_cost_usd = ExactField(
        required=False, allow_null=True, help_text="Of the previous month, in USD. For staff."
    )
    estimated_permille = serializers.IntegerField(required=False, help_text="For staff.")
    flags = serializers.ListField(child=serializers.CharField(), required=False, help_text="For staff.")
    needs_second_person = serializers.BooleanField(required=False, help_text="For staff.")
    prepared_by = serializers.CharField(required=False, allow_null=True, help_text="For staff.")
    approved_by = serializers.CharField(required=False, allow_null=True, help_text="For staff.")
    submitted_at = serializers.DateTimeField(required=False, allow_null=True, help_text="For staff.")
    approved_at = serializers.DateTimeField(required=False, allow_null=True, help_text="For staff.")

    def get_outstanding(self, invoice: Invoice) -> str:
        return f"{self._balance_of(invoice).outstanding:.{DECIMALS[invoice.currency]}f}"

    def get_is_overdue(self, invoice: Invoice) -> bool:
        return self._balance_of(invoice).is_overdue(sellers_date())

    def _balance_of(self, invoice: Invoice) -> Balance:
        """From the view, which reads those of a page at once."""
        known: Mapping[int, Balance] = self.context.get("balances", {})
        return known.get(invoice.pk) or balance_of(invoice)

    @extend_schema_field(TaxSerializer(many=True))
    def get_taxes(self, invoice: Invoice) -> Any:
        decimals = DECIMALS[invoice.currency]
        return [
            {"percent": format_usd(each.percent), "net": f"{each.net:.{decimals}f}", "tax": f"{each.tax:.{decimals}f}"}
            for each in taxes_of(invoice)
        ]


class InvoiceLineSerializer(ViewedSerializer[InvoiceLine]):
    staff_only = frozenset(("key", "cost_usd"))

    position = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=LineKind.choices)
    period = MonthSerializerField(
        source="period_start", help_text="An earlier month than the invoice's if the line is late usage."
    )
    description = serializers.CharField()
    provider = serializers.CharField()
    model = serializers.CharField()
    meter = serializers.CharField()
    quantity = serializers.IntegerField(allow_null=True)
    unit_price = ExactField(allow_null=True, help_text="Per million.")
    exact_amount = ExactField(help_text="Unrounded.")
    amount = CurrencyField(help_text="As printed, rounded half away from zero.")
    tax_percent = serializers.SerializerMethodField()
    calls = serializers.IntegerField()
    digest = serializers.CharField(help_text="Of the calls behind the line.")
    credited_line = serializers.IntegerField(source="credited_line_id", allow_null=True)
    key = serializers.CharField(required=False, help_text="For staff.")
    cost_usd = ExactField(required=False, help_text="For staff.")

    def get_tax_percent(self, line: InvoiceLine) -> str:
        return format_usd(percent_of(line, line.invoice))


class InvoiceEventSerializer(serializers.Serializer[InvoiceEvent]):
    action = serializers.ChoiceField(choices=InvoiceAction.choices)
    from_state = serializers.CharField()
    to_state = serializers.ChoiceField(choices=InvoiceState.choices)
    user = serializers.CharField(source="user.username", default=None, allow_null=True, help_text="null: the system.")
    reason = serializers.CharField()
    content_digest = serializers.CharField()
    at = serializers.DateTimeField()


class PaymentSerializer(ViewedSerializer[Payment]):
    staff_only = frozenset(("reason", "recorded_by", "recorded_at"))

    id = serializers.IntegerField()
    amount = CurrencyField(help_text="Negative for a refund of a credit note, and for a payment that was undone.")
    paid_on = serializers.DateField()
    reference = serializers.CharField()
    reverses = serializers.IntegerField(
        source="reverses_id", allow_null=True, help_text="The payment that this one undoes."
    )
    reason = serializers.CharField(required=False, help_text="For staff.")
    recorded_by = serializers.CharField(
        source="recorded_by.username", default=None, allow_null=True, required=False, help_text="For staff."
    )
    recorded_at = serializers.DateTimeField(required=False, help_text="For staff.")


class PaymentRequestSerializer(RequestSerializer):
    paid_on = serializers.DateField()
    amount = serializers.DecimalField(
        max_digits=26,
        decimal_places=MAX_DECIMALS,
        allow_null=True,
        default=None,
        help_text="Positive. null: all that is outstanding.",
    )
    reference = serializers.CharField(max_length=MAX_REFERENCE, allow_blank=True, default="")
    reason = serializers.CharField(max_length=500, allow_blank=True, default="")


class InvoiceDetailSerializer(InvoiceSerializer):
    staff_only = InvoiceSerializer.staff_only | {"events", "missing_characters"}

    bill_to = serializers.DictField(help_text="As printed on the document, from submission on.")
    seller = serializers.DictField()
    lines = InvoiceLineSerializer(many=True)
    payments = PaymentSerializer(many=True)
    events = InvoiceEventSerializer(many=True, required=False, help_text="Its history. For staff.")
    missing_characters = serializers.SerializerMethodField(
        required=False,
        help_text="Characters that no font of the PDF has, such as “株 (U+682A)”; drawn as □. For staff.",
    )

    @extend_schema_field(serializers.ListField(child=serializers.CharField()))
    def get_missing_characters(self, invoice: Invoice) -> list[str]:
        return list(map(character_name, missing_now(invoice)))


class OneOffSerializer(serializers.Serializer[OneOffLine]):
    """A charge or an allowance that staff added to a month."""

    id = serializers.IntegerField()
    period = MonthSerializerField(source="period_start")
    description = serializers.CharField()
    currency = serializers.CharField()
    amount = CurrencyField(help_text="Without tax; negative for an allowance.")
    tax_percent = ExactField(allow_null=True, help_text="null: the tax rate of its month.")
    reason = serializers.CharField()
    added_by = serializers.CharField(source="added_by.username")
    added_at = serializers.DateTimeField()


class OneOffRequestSerializer(RequestSerializer):
    description = serializers.CharField(max_length=150, help_text="As printed on the invoice.")
    amount = serializers.DecimalField(
        max_digits=26,
        decimal_places=MAX_DECIMALS,
        help_text="Without tax, in the invoice's currency; negative for an allowance, which covers at most what the "
        "month charges otherwise.",
    )
    tax_percent = serializers.DecimalField(
        max_digits=7,
        decimal_places=4,
        allow_null=True,
        default=None,
        help_text="Of a charge with a tax rate of its own. null: the rate of the month.",
    )
    reason = serializers.CharField(max_length=500)


class ReasonSerializer(RequestSerializer):
    reason = serializers.CharField(max_length=500)


class CreditedLineSerializer(RequestSerializer):
    position = serializers.IntegerField(min_value=1, max_value=2**31 - 1, help_text="The id of the invoice's line.")
    amount = serializers.DecimalField(
        max_digits=26,
        decimal_places=MAX_DECIMALS,
        required=False,
        help_text="Without tax. Required for goodwill; a correction credits everything left on the line.",
    )


class CreditRequestSerializer(RequestSerializer):
    kind = serializers.ChoiceField(
        choices=[CreditKind.GOODWILL, CreditKind.CORRECTION],
        help_text="goodwill: what is credited stays billed. correction: the account's next draft bills it again.",
    )
    reason = serializers.CharField(max_length=500)
    # Not many=True, which would let a line be null wherever the list may be.
    lines = serializers.ListField(
        child=CreditedLineSerializer(),
        allow_empty=False,
        allow_null=True,
        default=None,
        help_text="null: everything left on the invoice.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        lines = attrs["lines"] or []
        needs_amount = attrs["kind"] == CreditKind.GOODWILL
        if any(("amount" in line) != needs_amount for line in lines):
            sentence = "Give an amount for each line." if needs_amount else "A correction takes no amounts."
            raise serializers.ValidationError({"lines": sentence})
        if len({line["position"] for line in lines}) < len(lines):
            raise serializers.ValidationError({"lines": "Name each line once."})
        return attrs

    def amounts(self, ids: Mapping[int, int]) -> dict[int, Decimal] | None:
        """Amounts by line id. ids: of the invoice's lines, by position. Raises ValidationError."""
        lines = self.validated_data["lines"]
        if lines is None:
            return None
        if unknown := [line["position"] for line in lines if line["position"] not in ids]:
            raise serializers.ValidationError({"lines": f"This invoice has no line {unknown[0]}."})
        return {ids[line["position"]]: line.get("amount", Decimal(0)) for line in lines}
