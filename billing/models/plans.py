"""What accounts are charged: plans, their dated versions, and fixed prices with tiers.

A version used by an invoice never changes; a new price is a new version from a later month on.
"""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from billing.currencies import validate_currency
from billing.enums import TierMode
from llm.enums import Meter
from llm.fields import ExactDecimalField

PERCENT_DECIMALS = 4
MONEY_DECIMALS = 6
"""Of fees and of prices per million tokens, in the plan's currency."""


def validate_month_start(day: object) -> None:
    if getattr(day, "day", 1) != 1:
        raise ValidationError("A version starts on the first of a month.")


class Plan(models.Model):
    """The name under which versions follow one another."""

    name = models.CharField(max_length=100, unique=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("name",)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="plan_has_name"),)

    def __str__(self) -> str:
        return self.name


class PlanVersion(models.Model):
    """A plan's terms from the month `effective_from` on, until its next version. All amounts are per month.

    markup_percent: on the cost of models without a fixed price here; 0 passes the cost on. If the plan's currency isn't
    USD, the markup is on the cost at the exchange rate of the period.
    """

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="versions")
    effective_from = models.DateField(validators=[validate_month_start])
    currency = models.CharField(max_length=3, default="USD", validators=[validate_currency])
    markup_percent = ExactDecimalField(
        decimals=PERCENT_DECIMALS,
        default=Decimal(0),
        validators=[MinValueValidator(Decimal(-100)), MaxValueValidator(Decimal(100_000))],
        help_text="On our cost, for models without a fixed price below.",
    )
    flat_fee = ExactDecimalField(
        decimals=MONEY_DECIMALS, default=Decimal(0), validators=[MinValueValidator(Decimal(0))]
    )
    minimum_commitment = ExactDecimalField(
        decimals=MONEY_DECIMALS,
        default=Decimal(0),
        validators=[MinValueValidator(Decimal(0))],
        help_text="Usage is topped up to this amount, after allowance and discount; the flat fee comes on top.",
    )
    allowance_tokens = models.PositiveBigIntegerField(
        default=0, help_text="This many tokens per month are included: the most expensive ones."
    )
    allowance_amount = ExactDecimalField(
        decimals=MONEY_DECIMALS,
        default=Decimal(0),
        validators=[MinValueValidator(Decimal(0))],
        help_text="Usage up to this amount is included.",
    )
    discount_percent = ExactDecimalField(
        decimals=PERCENT_DECIMALS,
        default=Decimal(0),
        validators=[MinValueValidator(Decimal(0)), MaxValueValidator(Decimal(100))],
        help_text="On usage not covered by the allowance.",
    )
    note = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        ordering = ("plan", "-effective_from")
        constraints = (models.UniqueConstraint(fields=["plan", "effective_from"], name="planversion_once_a_month"),)

    def __str__(self) -> str:
        return f"{self.plan} from {self.effective_from:%Y-%m}"


class PlanRate(models.Model):
    """One tier of a fixed price. Rows of the same pattern and meter are the tiers of one price.

    model_pattern: a public model name, in which `*` stands for any text. The first matching pattern by `position`
    prices a model. Tiers count the tokens of one model and meter over the month.
    """

    version = models.ForeignKey(PlanVersion, on_delete=models.CASCADE, related_name="rates")
    position = models.PositiveSmallIntegerField(default=0)
    model_pattern = models.CharField(max_length=200, help_text="A model's name; * stands for any text.")
    meter = models.CharField(max_length=50, choices=Meter.choices)
    tier_mode = models.CharField(max_length=10, choices=TierMode.choices, default=TierMode.GRADUATED)
    from_tokens = models.PositiveBigIntegerField(default=0, help_text="The tier starts after this many tokens.")
    price_per_million = ExactDecimalField(
        decimals=MONEY_DECIMALS,
        validators=[MinValueValidator(Decimal(0))],
        help_text="Per million tokens, in the plan's currency.",
    )

    class Meta:
        verbose_name = "fixed price"
        ordering = ("version", "position", "model_pattern", "meter", "from_tokens")
        constraints = (
            models.UniqueConstraint(
                fields=["version", "model_pattern", "meter", "from_tokens"], name="planrate_once_a_tier"
            ),
            models.CheckConstraint(condition=Q(meter__in=Meter.values), name="planrate_meter_known"),
            models.CheckConstraint(condition=Q(tier_mode__in=TierMode.values), name="planrate_mode_known"),
            models.CheckConstraint(condition=~Q(model_pattern=""), name="planrate_names_a_model"),
        )

    def __str__(self) -> str:
        return f"{self.model_pattern} {self.get_meter_display()} from {self.from_tokens:,}"
