"""Invoices: what an account owes for a month, how it was calculated, and who approved it.

Amounts are in the invoice's currency unless stated otherwise. From `in_review` on the content is frozen, and
`content_digest` is its digest; from `issued` on the database itself refuses changes.
"""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from billing.currencies import MAX_DECIMALS, validate_currency
from billing.enums import CreditKind, InvoiceAction, InvoiceKind, InvoiceState, LineKind
from billing.models.plans import PERCENT_DECIMALS, PlanVersion
from billing.models.profiles import RATE_DECIMALS, ExchangeRate
from billing.models.rollups import UsageSums
from billing.periods import BillingPeriod
from billing.types import EXACT_DECIMALS
from llm.fields import ExactDecimalField
from llm.models import Account, RateSet
from llm.money import PICO_DECIMALS

FROZEN_STATES = (InvoiceState.IN_REVIEW, InvoiceState.APPROVED, InvoiceState.ISSUED, InvoiceState.PAID)
"""States in which the content no longer follows the books."""

FINAL_STATES = (InvoiceState.ISSUED, InvoiceState.PAID)
CONTENT_VERSION = 2
"""The version of new drafts; see `billing.invoices.digests`. Rows of version 1 stay as they are."""

_APPROVED_STATES = (InvoiceState.APPROVED, *FINAL_STATES)


class InvoiceSeries(models.Model):
    """Gapless numbers: the next one is taken, under the row's lock, last in the transaction that issues."""

    name = models.CharField(max_length=30, primary_key=True, help_text="Such as INV-2026.")
    last_number = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name_plural = "invoice series"

    def __str__(self) -> str:
        return f"{self.name}: {self.last_number} used"


class InvoiceQuerySet(models.QuerySet["Invoice"]):
    def frozen(self) -> InvoiceQuerySet:
        return self.filter(state__in=FROZEN_STATES)

    def final(self) -> InvoiceQuerySet:
        return self.filter(state__in=FINAL_STATES)

    def charging(self) -> InvoiceQuerySet:
        """Documents that count in what was charged: frozen ones, but corrections only once issued.

        Until then a correction may still be withdrawn, and nothing may be billed again for it.
        """
        return self.frozen().exclude(Q(credit_kind=CreditKind.CORRECTION) & ~Q(state__in=FINAL_STATES))


class Invoice(models.Model):
    """One document: a month's invoice, a supplement, or a credit note, whose amounts are negative.

    period_start: first day of the month. number: of the series, once issued. cutoff_at: database clock; all usage
    recorded up to then is included, and nothing later. bill_to, seller: as printed on the document, frozen at submit.
    credit_kind: only of credit notes. taxes: by rate, see `billing.invoices.taxes`; tax_percent is the rate of the
    invoice's own month. exchange_rate, per_usd: where the currency isn't USD. cost_usd: what the providers charge us
    for the usage billed. previous_total, previous_cost_usd: of the previous month's invoice; None if there was none.
    estimated_permille: share of the cost from calls whose tokens are our estimate. flags: codes of what a reviewer
    should look at (see `billing.invoices.flags`). needs_second_person: frozen at submit. prepared_by, approved_by: None
    until then.
    """

    is_proven: ClassVar[bool] = True

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="invoices")
    kind = models.CharField(max_length=15, choices=InvoiceKind.choices, default=InvoiceKind.REGULAR)
    credit_kind = models.CharField(max_length=10, choices=CreditKind.choices, blank=True, default="")
    state = models.CharField(max_length=10, choices=InvoiceState.choices, default=InvoiceState.DRAFT)
    period_start = models.DateField()
    currency = models.CharField(max_length=3, validators=[validate_currency])
    series = models.ForeignKey(InvoiceSeries, null=True, blank=True, on_delete=models.PROTECT, related_name="invoices")
    number = models.PositiveIntegerField(null=True, blank=True)
    plan_version = models.ForeignKey(PlanVersion, on_delete=models.PROTECT, related_name="invoices")
    exchange_rate = models.ForeignKey(
        ExchangeRate, null=True, blank=True, on_delete=models.PROTECT, related_name="invoices"
    )
    per_usd = ExactDecimalField(decimals=RATE_DECIMALS, null=True, blank=True)
    original = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="credit_notes")
    credit_sequence = models.PositiveSmallIntegerField(null=True, blank=True)

    bill_to = models.JSONField(default=dict)
    seller = models.JSONField(default=dict)
    cutoff_at = models.DateTimeField(null=True, blank=True)
    subtotal = ExactDecimalField(decimals=MAX_DECIMALS, default=0)
    tax_percent = ExactDecimalField(decimals=PERCENT_DECIMALS, default=0)
    tax = ExactDecimalField(decimals=MAX_DECIMALS, default=0)
    taxes = models.JSONField(default=list, blank=True)
    total = ExactDecimalField(decimals=MAX_DECIMALS, default=0)
    cost_usd = ExactDecimalField(decimals=PICO_DECIMALS, default=0)
    previous_total = ExactDecimalField(decimals=MAX_DECIMALS, null=True, blank=True)
    previous_cost_usd = ExactDecimalField(decimals=PICO_DECIMALS, null=True, blank=True)
    estimated_permille = models.PositiveSmallIntegerField(default=0)
    flags = models.JSONField(default=list, blank=True)

    content_version = models.PositiveSmallIntegerField(default=CONTENT_VERSION, editable=False)
    content_digest = models.CharField(max_length=64, blank=True, default="", help_text="SHA-256, from submission on.")
    approved_digest = models.CharField(max_length=64, blank=True, default="", help_text="What the approver signed.")
    needs_second_person = models.BooleanField(default=True)
    prepared_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    submitted_at = models.DateTimeField(null=True, blank=True)
    approved_at = models.DateTimeField(null=True, blank=True)
    issued_at = models.DateTimeField(null=True, blank=True)
    issued_on = models.DateField(
        null=True, blank=True, help_text="The date on the document, in the seller's time zone."
    )
    due_on = models.DateField(null=True, blank=True)
    paid_on = models.DateField(null=True, blank=True)

    objects = InvoiceQuerySet.as_manager()

    class Meta:
        ordering = ("-period_start", "account", "-id")
        indexes = (
            models.Index(fields=["account", "period_start"], name="invoice_account"),
            models.Index(fields=["state", "-id"], name="invoice_state"),
        )
        permissions = (
            ("prepare_invoice", "Can draft, recalculate, submit and send back invoices"),
            ("approve_invoice", "Can approve invoices"),
            ("issue_invoice", "Can issue and void invoices and mark them as paid"),
            ("credit_invoice", "Can make credit notes"),
        )
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=InvoiceKind.values), name="invoice_kind_known"),
            models.CheckConstraint(condition=Q(state__in=InvoiceState.values), name="invoice_state_known"),
            models.UniqueConstraint(
                fields=["account", "period_start"],
                condition=Q(kind=InvoiceKind.REGULAR) & ~Q(state=InvoiceState.VOID),
                name="invoice_regular_once",
            ),
            models.UniqueConstraint(
                fields=["account", "period_start", "currency"],
                condition=Q(kind=InvoiceKind.SUPPLEMENT, state=InvoiceState.DRAFT),
                name="invoice_supplement_draft_once",
            ),
            models.UniqueConstraint(fields=["series", "number"], name="invoice_number_once"),
            models.UniqueConstraint(fields=["original", "credit_sequence"], name="invoice_credit_sequence_once"),
            models.CheckConstraint(
                condition=Q(state__in=FINAL_STATES, series__isnull=False, number__isnull=False, issued_at__isnull=False)
                | (~Q(state__in=FINAL_STATES) & Q(series=None, number=None, issued_at=None)),
                name="invoice_numbered_when_issued",
            ),
            models.CheckConstraint(
                condition=(Q(kind=InvoiceKind.CREDIT_NOTE, original__isnull=False, credit_sequence__isnull=False))
                | (~Q(kind=InvoiceKind.CREDIT_NOTE) & Q(original=None, credit_sequence=None)),
                name="invoice_credit_note_cites",
            ),
            models.CheckConstraint(
                condition=(Q(kind=InvoiceKind.CREDIT_NOTE, credit_kind__in=CreditKind.values))
                | (~Q(kind=InvoiceKind.CREDIT_NOTE) & Q(credit_kind="")),
                name="invoice_credit_note_says_why",
            ),
            # Version 1 had negative invoices: issued ones stay as they are.
            models.CheckConstraint(
                condition=Q(content_version__lt=CONTENT_VERSION)
                | Q(kind=InvoiceKind.CREDIT_NOTE)
                | Q(total__gte=Decimal(0)),
                name="invoice_never_negative",
            ),
            models.CheckConstraint(
                condition=Q(content_version__lt=CONTENT_VERSION)
                | ~Q(kind=InvoiceKind.CREDIT_NOTE)
                | Q(total__lte=Decimal(0)),
                name="invoice_credit_note_gives_back",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=FROZEN_STATES)
                | (Q(prepared_by__isnull=False, cutoff_at__isnull=False) & ~Q(content_digest="")),
                name="invoice_frozen_is_prepared",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=_APPROVED_STATES)
                | (
                    Q(approved_by__isnull=False, approved_digest=F("content_digest"))
                    & (Q(needs_second_person=False) | ~Q(prepared_by=F("approved_by")))
                ),
                name="invoice_four_eyes",
            ),
            models.CheckConstraint(
                condition=Q(state=InvoiceState.PAID, paid_on__isnull=False)
                | (~Q(state=InvoiceState.PAID) & Q(paid_on=None)),
                name="invoice_paid_on_a_day",
            ),
        )

    def __str__(self) -> str:
        return self.label or f"{self.get_kind_display()} {self.period} of {self.account}"

    @property
    def period(self) -> BillingPeriod:
        return BillingPeriod(self.period_start)

    @property
    def label(self) -> str:
        """Series and number, such as INV-2026-000017; "" before it is issued."""
        return "" if self.number is None else f"{self.series_id}-{self.number:06d}"

    @property
    def is_frozen(self) -> bool:
        return self.state in FROZEN_STATES

    @property
    def is_goodwill(self) -> bool:
        return self.credit_kind == CreditKind.GOODWILL

    @property
    def is_correction(self) -> bool:
        return self.credit_kind == CreditKind.CORRECTION

    @property
    def is_reduction(self) -> bool:
        return self.credit_kind == CreditKind.REDUCTION


class InvoiceLine(models.Model):
    """One line. Late usage of an earlier month is on lines of its own, whose `period_start` is that month.

    key: identifies the line among all lines of its period, so that it can be compared with what was billed before.
    quantity: tokens of the line's meter, or calls. unit_price: per million of them; None if there is none.
    exact_amount: unrounded. amount: as printed, rounded half away from zero to the currency's decimals.
    residual: exact_amount - amount. tax_percent: of the line's month; None on lines of version 1, which use their
    invoice's. per_usd: the exchange rate at which the line's month is charged. cost_usd: its share of our cost. calls,
    digest: of the calls that it stands for, as the sum of their rows' digests; a model's lines share them.
    """

    is_proven: ClassVar[bool] = True

    # No index of its own, here and on BilledUsage: another index already begins with this column.
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, db_index=False, related_name="lines")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=15, choices=LineKind.choices)
    key = models.CharField(max_length=500)
    period_start = models.DateField()
    plan_version = models.ForeignKey(PlanVersion, on_delete=models.PROTECT, related_name="+")
    description = models.CharField(max_length=300)
    provider = models.CharField(max_length=50, blank=True, default="")
    model = models.CharField(max_length=200, blank=True, default="")
    meter = models.CharField(max_length=50, blank=True, default="")
    quantity = models.BigIntegerField(null=True, blank=True)
    unit_price = ExactDecimalField(decimals=EXACT_DECIMALS, null=True, blank=True)
    exact_amount = ExactDecimalField(decimals=EXACT_DECIMALS)
    amount = ExactDecimalField(decimals=MAX_DECIMALS)
    residual = ExactDecimalField(decimals=EXACT_DECIMALS)
    tax_percent = ExactDecimalField(decimals=PERCENT_DECIMALS, null=True, blank=True)
    per_usd = ExactDecimalField(decimals=RATE_DECIMALS, null=True, blank=True)
    cost_usd = ExactDecimalField(decimals=PICO_DECIMALS, default=0)
    calls = models.BigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True, default="")
    cutoff_at = models.DateTimeField(null=True, blank=True)
    credited_line = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="credits")

    class Meta:
        ordering = ("invoice", "position")
        constraints = (
            models.UniqueConstraint(fields=["invoice", "position"], name="invoiceline_position_once"),
            # Not unique: a credit note may take the same key back from two lines of its invoice.
            models.UniqueConstraint(
                fields=["invoice", "period_start", "key"],
                condition=Q(credited_line=None),
                name="invoiceline_key_once",
            ),
            models.UniqueConstraint(
                fields=["invoice", "period_start", "key", "credited_line"], name="invoiceline_credited_key_once"
            ),
            models.CheckConstraint(condition=Q(kind__in=LineKind.values), name="invoiceline_kind_known"),
        )

    def __str__(self) -> str:
        return self.description


class BilledUsage(UsageSums):
    """The usage that an invoice bills, copied when it was computed: what was added since the invoices before it.

    The sums over all frozen invoices of a period are what has been billed for it. A figure may be negative: a
    correction took something back.
    """

    is_proven: ClassVar[bool] = True

    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, db_index=False, related_name="billed_usage")
    period_start = models.DateField()
    provider = models.CharField(max_length=50)
    model = models.CharField(max_length=200)
    rate_set = models.ForeignKey(RateSet, null=True, on_delete=models.PROTECT, db_index=False, related_name="+")

    class Meta:
        ordering = ("invoice", "period_start", "provider", "model", "rate_set")
        indexes = (models.Index(fields=["invoice", "period_start"], name="billedusage_period"),)

    def __str__(self) -> str:
        return f"{self.invoice_id}: {self.provider} {self.model}"


class InvoiceEvent(models.Model):
    """One step of an invoice: who did what, when and why. Append-only. user: None for the system.

    content_digest, issue_digest: the invoice's digests after the step (see `billing.invoices.digests`); "" before it
    had them, and for the issue of invoices older than that digest. cutoff_at: the invoice's at the time, since a later
    submit replaces it; None for events older than this field.
    """

    is_proven: ClassVar[bool] = True

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="events")
    action = models.CharField(max_length=15, choices=InvoiceAction.choices)
    from_state = models.CharField(max_length=10, blank=True, default="")
    to_state = models.CharField(max_length=10, choices=InvoiceState.choices)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    reason = models.CharField(max_length=500, blank=True, default="")
    content_digest = models.CharField(max_length=64, blank=True, default="")
    issue_digest = models.CharField(max_length=64, blank=True, default="", editable=False)
    cutoff_at = models.DateTimeField(null=True, blank=True, editable=False)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(condition=Q(action__in=InvoiceAction.values), name="invoiceevent_action_known"),
        )

    def __str__(self) -> str:
        return f"{self.get_action_display()} {self.at:%Y-%m-%d %H:%M} UTC"
