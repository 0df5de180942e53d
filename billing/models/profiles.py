"""Who is billed, and at which exchange rates."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from billing.countries import validate_country
from billing.currencies import COST_CURRENCY, validate_currency
from billing.models.plans import PERCENT_DECIMALS, Plan
from billing.periods import BillingPeriod
from llm.fields import ExactDecimalField
from llm.models import Account
from llm.models.accounts import validate_time_zone

RATE_DECIMALS = 6
MAX_PER_USD = 10_000_000
"""A larger rate is a typing error: ten times the weakest currency's."""
MAX_PAYMENT_DAYS = 3650


class BillingProfile(models.Model):
    """How an account is billed. What an invoice shows of it is copied there when it is submitted.

    Its row is the lock under which the account's invoices are made and moved through their states.
    time_zone: applies from `time_zone_from` on, the first of a month; until then, the account's own does.
    former_time_zones: the zone before each change, by the day of the change; see `billing.timezones`.
    billed_from: the first month that is invoiced. plan_from: the first whose fees and commitment are due by this plan;
    earlier ones are charged by `former_plans`, if any.
    """

    account = models.OneToOneField(Account, on_delete=models.PROTECT, related_name="billing_profile")
    legal_name = models.CharField(max_length=200)
    address = models.TextField(blank=True, default="", help_text="As printed on the invoice, several lines.")
    country = models.CharField(max_length=2, blank=True, default="", validators=[validate_country])
    email = models.EmailField(blank=True, default="", help_text="The address invoices are sent to.")
    tax_id = models.CharField("tax ID", max_length=50, blank=True, default="")
    tax_percent = ExactDecimalField(
        decimals=PERCENT_DECIMALS,
        default=Decimal(0),
        validators=[MinValueValidator(Decimal(0)), MaxValueValidator(Decimal(100))],
    )
    tax_note = models.CharField(
        max_length=200, blank=True, default="", help_text="Printed beside the tax, such as “Reverse charge”."
    )
    po_number = models.CharField("PO number", max_length=100, blank=True, default="")
    currency = models.CharField(max_length=3, default="USD", validators=[validate_currency])
    payment_days = models.PositiveSmallIntegerField(
        "payment terms", default=30, help_text="Days from issue until the invoice is due."
    )
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="profiles")
    time_zone = models.CharField(max_length=64, validators=[validate_time_zone], default="UTC")
    time_zone_from = models.DateField(null=True, blank=True, editable=False)
    former_time_zones = models.JSONField(default=dict, blank=True, editable=False)
    billed_from = models.DateField(null=True, blank=True, help_text="First day of the first month to be invoiced.")
    plan_from = models.DateField(
        "plan in force from",
        null=True,
        blank=True,
        help_text="First day of the first month whose fee and minimum commitment are due. Empty: since the account was "
        "created. A change of plan sets it to the current month.",
    )
    mails_invoices = models.BooleanField(
        "invoices by mail",
        default=False,
        db_default=False,
        help_text="Later invoices and credit notes are mailed to the address above when they are issued, with "
        "reminders if they are overdue.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("account__name",)
        constraints = (models.CheckConstraint(condition=~Q(legal_name=""), name="billingprofile_has_name"),)

    def __str__(self) -> str:
        return self.legal_name

    def clean(self) -> None:
        if self.mails_invoices and not self.email:
            raise ValidationError({"mails_invoices": "Invoices can only be mailed to an address: give an email above."})
        if self.payment_days > MAX_PAYMENT_DAYS:
            raise ValidationError({"payment_days": f"Give at most {MAX_PAYMENT_DAYS} days."})
        if self.plan_id and self.plan.versions.exclude(currency=self.currency).exists():
            raise ValidationError({"currency": f"The plan “{self.plan}” has prices in another currency."})

    def plan_in(self, period: BillingPeriod) -> Plan:
        """The plan that applies to the account in that month."""
        former = self._former_in(period)
        return self.plan if former is None else former.plan

    def currency_in(self, period: BillingPeriod) -> str:
        """The currency in which the month is billed, unless it was already billed in another one."""
        former = self._former_in(period)
        return self.currency if former is None else former.currency

    def _former_in(self, period: BillingPeriod) -> FormerPlan | None:
        later = [each for each in self.former_plans.all() if period.start < each.until]
        return min(later, key=lambda each: each.until, default=None)


class FormerPlan(models.Model):
    """A plan that an account had before its current one; see `billing.plans.keep_former_plans`.

    until: the first day of the first month to which it no longer applies. since: the value of `plan_from` at the time.
    """

    profile = models.ForeignKey(BillingProfile, on_delete=models.CASCADE, db_index=False, related_name="former_plans")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="former_profiles")
    currency = models.CharField(max_length=3, validators=[validate_currency])
    since = models.DateField(null=True, blank=True)
    until = models.DateField()

    class Meta:
        ordering = ("profile", "until")
        constraints = (models.UniqueConstraint(fields=["profile", "until"], name="formerplan_one_until"),)

    def __str__(self) -> str:
        return f"{self.plan} until {self.until:%Y-%m}"


class ExchangeRate(models.Model):
    """Units of `currency` for one USD, as a source gave it for a day. Written once; a correction is a later row."""

    currency = models.CharField(max_length=3, validators=[validate_currency])
    on = models.DateField()
    per_usd = ExactDecimalField(decimals=RATE_DECIMALS, validators=[MinValueValidator(Decimal("0.000001"))])
    source = models.CharField(max_length=200, help_text="Who published it, such as “ECB reference rate”.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        ordering = (F("on").desc(), "currency", F("id").desc())
        indexes = (models.Index(fields=["currency", "-on", "-id"], name="exchangerate_latest"),)
        constraints = (models.CheckConstraint(condition=~Q(source=""), name="exchangerate_has_source"),)

    def __str__(self) -> str:
        return f"1 USD = {self.per_usd:f} {self.currency} ({self.source}, {self.on})"

    def clean(self) -> None:
        if self.currency == COST_CURRENCY:
            raise ValidationError({"currency": f"{COST_CURRENCY} is the base currency: it has no rate itself."})
        # Empty if a form was filled in wrongly.
        per_usd = Decimal(self.per_usd or 0)
        if not per_usd.is_nan() and per_usd > MAX_PER_USD:
            raise ValidationError({"per_usd": f"This rate is implausibly high: give at most {MAX_PER_USD:,}."})
