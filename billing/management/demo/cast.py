"""Who the demo is about: customers, their keys, limits and plans, the models they use, and the staff who bill them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum

from llm.enums import LimitMetric, LimitPer, Meter

UNPRICED = "orion-2-preview"

MONTHS = 12
"""How many months before the current one the first customers joined."""


@dataclass(frozen=True, slots=True)
class DemoModel:
    """rates: USD per million tokens; none: the model has no price. typical_*: tokens of an ordinary call."""

    provider: str
    name: str
    rates: tuple[tuple[Meter, str], ...] = ()
    typical_prompt: int = 2500
    typical_completion: int = 500
    cached_percent: int = 0

    @property
    def is_embedding(self) -> bool:
        return self.typical_completion == 0


@dataclass(frozen=True, slots=True)
class DemoLimit:
    """used_percent: how much of it is used when it is set. key: the name of a key; empty for the whole account."""

    metric: LimitMetric
    per: LimitPer
    used_percent: int
    key: str = ""
    soft_percent: int | None = 80


@dataclass(frozen=True, slots=True)
class DemoPlan:
    name: str
    currency: str = "USD"
    markup_percent: Decimal = Decimal(0)
    flat_fee: Decimal = Decimal(0)
    minimum_commitment: Decimal = Decimal(0)
    discount_percent: Decimal = Decimal(0)


class Stage(IntEnum):
    """How far an invoice is."""

    DRAFT = 0
    IN_REVIEW = 1
    APPROVED = 2
    ISSUED = 3
    VOID = 4


@dataclass(frozen=True, slots=True)
class Customer:
    """calls_a_day: on a working day of the first month; growth_percent: more of them in each later month.

    joined: how many months before the current one. models, keys: names, the most used first. stage: how far the last
    month's invoice is.
    """

    name: str
    calls_a_day: int
    models: tuple[str, ...]
    keys: tuple[str, ...] = ("production",)
    joined: int = MONTHS
    growth_percent: int = 4
    time_zone: str = "UTC"
    plan: str = "Pay as you go"
    country: str = "US"
    tax_percent: int = 0
    limits: tuple[DemoLimit, ...] = ()
    names_end_users: bool = False
    teams: tuple[str, ...] = ()
    weekends: bool = False
    stage: Stage = Stage.DRAFT


MODELS: dict[str, DemoModel] = {
    each.name: each
    for each in (
        DemoModel(
            "openai",
            "gpt-4.1",
            ((Meter.INPUT, "2"), (Meter.OUTPUT, "8"), (Meter.CACHE_READ, "0.5")),
            typical_prompt=80_000,
            typical_completion=3_000,
            cached_percent=35,
        ),
        DemoModel(
            "openai",
            "gpt-4.1-mini",
            ((Meter.INPUT, "0.4"), (Meter.OUTPUT, "1.6"), (Meter.CACHE_READ, "0.1")),
            typical_prompt=60_000,
            typical_completion=2_500,
            cached_percent=25,
        ),
        DemoModel(
            "openai", "text-embedding-3-small", ((Meter.INPUT, "0.02"),), typical_prompt=400_000, typical_completion=0
        ),
        DemoModel(
            "anthropic",
            "claude-sonnet-4-5",
            (
                (Meter.INPUT, "3"),
                (Meter.OUTPUT, "15"),
                (Meter.CACHE_READ, "0.3"),
                (Meter.CACHE_WRITE_5M, "3.75"),
            ),
            typical_prompt=130_000,
            typical_completion=4_000,
            cached_percent=60,
        ),
        DemoModel(
            "anthropic",
            "claude-haiku-4-5",
            ((Meter.INPUT, "1"), (Meter.OUTPUT, "5"), (Meter.CACHE_READ, "0.1"), (Meter.CACHE_WRITE_5M, "1.25")),
            typical_prompt=45_000,
            typical_completion=2_000,
            cached_percent=40,
        ),
        DemoModel("openai", UNPRICED, typical_prompt=70_000, typical_completion=3_000),
    )
}

PLANS = (
    DemoPlan("Pay as you go", markup_percent=Decimal(15)),
    DemoPlan("Team", markup_percent=Decimal(10), flat_fee=Decimal(19)),
    DemoPlan("Business", markup_percent=Decimal(8), minimum_commitment=Decimal(25)),
    DemoPlan("Business EUR", currency="EUR", markup_percent=Decimal(8), minimum_commitment=Decimal(20)),
    DemoPlan("Partner", discount_percent=Decimal(5), markup_percent=Decimal(12)),
)

_COST, _TOKENS, _REQUESTS = LimitMetric.COST, LimitMetric.TOKENS, LimitMetric.REQUESTS

CUSTOMERS: tuple[Customer, ...] = (
    Customer(
        "Northwind Logistics",
        calls_a_day=7,
        models=("gpt-4.1", "gpt-4.1-mini", "text-embedding-3-small"),
        keys=("production", "staging", "batch"),
        plan="Business",
        limits=(DemoLimit(_COST, LimitPer.TOTAL, 94), DemoLimit(_REQUESTS, LimitPer.TOTAL, 61, "staging")),
        teams=("search", "support"),
    ),
    Customer(
        "Contoso Bank",
        calls_a_day=6,
        models=("claude-sonnet-4-5", "claude-haiku-4-5"),
        keys=("production", "fraud-review"),
        plan="Business EUR",
        time_zone="Europe/Berlin",
        country="DE",
        tax_percent=19,
        limits=(DemoLimit(_COST, LimitPer.MONTH, 72),),
        names_end_users=True,
        stage=Stage.IN_REVIEW,
    ),
    Customer(
        "Fabrikam Robotics",
        calls_a_day=6,
        models=("claude-sonnet-4-5", "gpt-4.1"),
        keys=("production", "lab"),
        plan="Team",
        time_zone="America/Los_Angeles",
        growth_percent=9,
        limits=(DemoLimit(_TOKENS, LimitPer.TOTAL, 100, "lab"),),
        teams=("arm", "vision", "ops"),
        stage=Stage.DRAFT,
    ),
    Customer(
        "Alpine Ski School",
        calls_a_day=2,
        models=("gpt-4.1-mini",),
        time_zone="Europe/Vienna",
        country="AT",
        stage=Stage.ISSUED,
    ),
    Customer(
        "Bluebird Travel",
        calls_a_day=5,
        models=("gpt-4.1-mini", "claude-haiku-4-5"),
        keys=("website", "app"),
        plan="Team",
        time_zone="Europe/London",
        country="GB",
        weekends=True,
        names_end_users=True,
        limits=(DemoLimit(_REQUESTS, LimitPer.DAY, 40),),
        stage=Stage.IN_REVIEW,
    ),
    Customer("Carbon Ledger", calls_a_day=3, models=("gpt-4.1", UNPRICED), joined=8, plan="Partner"),
    Customer(
        "Delta Dental", calls_a_day=2, models=("gpt-4.1-mini",), time_zone="America/New_York", stage=Stage.IN_REVIEW
    ),
    Customer(
        "Evergreen Insurance",
        calls_a_day=5,
        models=("claude-haiku-4-5", "gpt-4.1-mini"),
        keys=("claims", "quotes"),
        plan="Business",
        time_zone="America/Chicago",
        limits=(DemoLimit(_COST, LimitPer.TOTAL, 83, "claims"),),
        stage=Stage.APPROVED,
    ),
    Customer(
        "Fjord Analytics",
        calls_a_day=4,
        models=("claude-sonnet-4-5",),
        time_zone="Europe/Oslo",
        country="NO",
        stage=Stage.ISSUED,
    ),
    Customer(
        "Gull Media", calls_a_day=3, models=("gpt-4.1-mini", "gpt-4.1"), joined=10, weekends=True, stage=Stage.APPROVED
    ),
    Customer("Harbour Foods", calls_a_day=2, models=("gpt-4.1-mini",), joined=9, country="IE"),
    Customer(
        "Iris Diagnostics",
        calls_a_day=3,
        models=("claude-sonnet-4-5", "text-embedding-3-small"),
        plan="Team",
        time_zone="Asia/Tokyo",
        country="JP",
        stage=Stage.IN_REVIEW,
    ),
    Customer(
        "Juniper Schools",
        calls_a_day=2,
        models=("claude-haiku-4-5",),
        joined=7,
        growth_percent=12,
        stage=Stage.APPROVED,
    ),
    Customer(
        "Kestrel Air", calls_a_day=3, models=("gpt-4.1", "gpt-4.1-mini"), joined=6, plan="Partner", stage=Stage.ISSUED
    ),
    Customer(
        "Lumen Energy",
        calls_a_day=3,
        models=("gpt-4.1-mini",),
        joined=5,
        time_zone="Australia/Sydney",
        stage=Stage.VOID,
    ),
    Customer("Marigold Hotels", calls_a_day=2, models=("claude-haiku-4-5",), joined=4, weekends=True),
    Customer(
        "مختبر النور",
        calls_a_day=2,
        models=("gpt-4.1",),
        joined=4,
        time_zone="Asia/Dubai",
        country="AE",
        stage=Stage.IN_REVIEW,
    ),
    Customer(
        "Arbeitsgemeinschaft der mittelständischen Wasserversorger",
        calls_a_day=2,
        models=("gpt-4.1-mini",),
        keys=("Beantwortung von Anfragen zu Hausanschlüssen",),
        joined=3,
        plan="Business EUR",
        time_zone="Europe/Berlin",
        country="DE",
        tax_percent=19,
        stage=Stage.APPROVED,
    ),
    Customer(
        "Osprey Legal", calls_a_day=4, models=("claude-sonnet-4-5",), joined=2, growth_percent=30, stage=Stage.ISSUED
    ),
    Customer("Pebble Games", calls_a_day=4, models=("gpt-4.1-mini", UNPRICED), joined=1, weekends=True),
)

PREPARER, APPROVER = "demo-paula", "demo-abel"
STAFF: Sequence[tuple[str, str]] = (
    ("demo-kim", "Key managers"),
    (PREPARER, "Billing preparers"),
    (APPROVER, "Billing approvers"),
    ("demo-audrey", "Auditors"),
)
"""Names and groups. They have no password: set one in the admin to try a role."""
