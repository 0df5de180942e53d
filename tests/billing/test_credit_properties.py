"""What an account was charged in all is what its usage costs under each month's terms, and fees, less goodwill.

So whatever happens in whatever order: late usage, decisions, new prices, credits, voids, new plans and taxes. The
reckoning here is its own: from rows of usage and adjustments, and from what was done to the account. All amounts are
whole units, so that nothing is rounded.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from billing.closing import close_month
from billing.crediting import credit, credit_and_bill_again, creditable
from billing.enums import InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.models import BillingProfile, Invoice, InvoiceLine, Plan
from billing.periods import Period
from billing.plans import add_version
from billing.review import approve, issue, send_back, submit, void
from llm.enums import AdjustmentSource
from llm.models import Account, Price, Usage, UsageAdjustment
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.months import SEPTEMBER, approver, findings, preparer, reprice

pytestmark = pytest.mark.django_db

MODELS = ("gpt-4o", "gpt-mini")
STEPS = 24


@dataclass(frozen=True)
class Terms:
    markup: int
    fee: int
    tax: int


@dataclass
class World:
    """given: (amount, charged before it) of goodwill, by month, in order. signed: terms at submit, by document."""

    account: Account
    random: random.Random
    terms: Terms
    last: Period = SEPTEMBER
    signed: dict[int, Terms] = field(default_factory=dict)
    given: dict[Period, list[tuple[Decimal, Decimal]]] = field(default_factory=lambda: defaultdict(list))
    prices: dict[str, Price] = field(default_factory=dict)

    @property
    def months(self) -> list[Period]:
        months = [SEPTEMBER]
        while months[-1] < self.last:
            months.append(months[-1].following)
        return months

    def a_month(self) -> Period:
        return self.random.choice(self.months)


def new_terms(world: World) -> None:
    world.terms = Terms(world.random.choice([0, 10, 50]), world.random.choice([0, 7]), world.random.choice([0, 10, 20]))
    plan = Plan.objects.create(name=f"Plan {Plan.objects.count()}")
    add_version(
        plan,
        effective_from=date(2025, 1, 1),
        markup_percent=Decimal(world.terms.markup),
        flat_fee=Decimal(world.terms.fee),
    )
    BillingProfile.objects.filter(account=world.account).update(plan=plan, tax_percent=Decimal(world.terms.tax))
    world.account.refresh_from_db()


def a_call(world: World) -> None:
    model = world.random.choice(MODELS)
    day = world.a_month().start.replace(day=15)
    make_call(
        world.account,
        day=day,
        price=world.prices[model],
        model=model,
        prompt_tokens=world.random.choice([1, 3]) * 10**6,
    )


def a_decision(world: World) -> None:
    """A call costs 10 more or less than it did."""
    undecided = Usage.objects.exclude(adjustments__source=AdjustmentSource.PROVIDER).order_by("opened_at", "id")
    if not (calls := list(undecided)):
        return
    call = world.random.choice(calls)
    more = Decimal(10) * world.random.choice([1, -1])
    if cost_of(call) + more >= 0:
        adjust_call(call, AdjustmentSource.PROVIDER, cost=more)


def a_price(world: World) -> None:
    period = world.a_month()
    reprice(str(world.random.choice([0, 60, 100, 140])), period=period, model=world.random.choice(MODELS))


def a_closing(world: World) -> None:
    if world.random.random() < 0.3:
        world.last = world.last.following
    close_month(world.last, account=world.account)


def a_review(world: World) -> None:
    for draft in Invoice.objects.filter(state=InvoiceState.DRAFT).order_by("id"):
        if world.random.random() < 0.7:
            through(world, draft)


def a_void(world: World) -> None:
    draft = Invoice.objects.filter(state=InvoiceState.DRAFT).order_by("id").first()
    if draft is None:
        return
    try:
        submitted(world, draft)
    except InvoiceError:
        return
    if world.random.random() < 0.5:
        send_back(draft.pk, user=preparer(), reason="look again")
    else:
        void(draft.pk, user=approver(), reason="not this one")


def some_goodwill(world: World) -> None:
    invoice = an_issued(world)
    if invoice is None:
        return
    lines = [(line, left) for line, left in creditable(invoice).items() if left >= 10]
    amounts = {world.random.choice(lines)[0]: Decimal(10)} if lines and world.random.random() < 0.7 else None
    try:
        note = credit(invoice.pk, user=approver(), reason="an outage", amounts=amounts)
    except InvoiceError:
        return
    charged = charged_by_month(world)
    through(world, note)
    for period, amount in by_month(InvoiceLine.objects.filter(invoice=note)).items():
        if amount:
            world.given[period].append((-amount, charged[period]))


def a_correction(world: World) -> None:
    invoice = an_issued(world)
    if invoice is None:
        return
    lines = [line for line, left in creditable(invoice).items() if left > 0]
    some = [world.random.choice(lines)] if lines and world.random.random() < 0.4 else None
    try:
        note = credit_and_bill_again(invoice.pk, user=approver(), reason="wrong", line_ids=some)
    except InvoiceError:
        return
    if world.random.random() < 0.8:
        through(world, note)


def an_issued(world: World) -> Invoice | None:
    found = list(Invoice.objects.final().exclude(kind=InvoiceKind.CREDIT_NOTE).order_by("id"))
    return world.random.choice(found) if found else None


def submitted(world: World, draft: Invoice) -> None:
    submit(draft.pk, user=preparer())
    world.signed[draft.pk] = world.terms


def through(world: World, draft: Invoice) -> None:
    try:
        submitted(world, draft)
    except InvoiceError:
        return
    approve(draft.pk, user=approver())
    issue(draft.pk, user=approver())


def settle(world: World) -> None:
    """Until nothing is left to bill or to give back."""
    for _ in range(8):
        for period in world.months:
            close_month(period, account=world.account)
        drafts = list(Invoice.objects.filter(state=InvoiceState.DRAFT).order_by("id"))
        if not drafts:
            world.last = world.last.following
            if not close_month(world.last, account=world.account).drafted:
                return
            continue
        for draft in drafts:
            draft.refresh_from_db()
            if draft.state != InvoiceState.DRAFT:
                continue
            if draft.kind != InvoiceKind.CREDIT_NOTE and not draft.lines.exists():
                void(draft.pk, user=approver(), reason="nothing on it")
            else:
                through(world, draft)


OFTEN = Counter(
    {
        a_closing: 5,
        a_review: 4,
        a_price: 3,
        a_call: 2,
        a_decision: 2,
        some_goodwill: 2,
        a_correction: 1,
        a_void: 1,
        new_terms: 1,
    }
)


# --- What it should come to -------------------------------------------------------------------------------------------


def cost_of(call: Usage) -> Decimal:
    adjustments = UsageAdjustment.objects.filter(usage=call)
    return (call.cost or Decimal(0)) + sum((each.cost or Decimal(0) for each in adjustments), Decimal(0))


def by_month(lines: Any) -> dict[Period, Decimal]:
    amounts: dict[Period, Decimal] = defaultdict(Decimal)
    for start, amount in lines.values_list("period_start", "amount"):
        amounts[Period(start)] += amount
    return amounts


def charged_by_month(world: World) -> dict[Period, Decimal]:
    return by_month(InvoiceLine.objects.filter(invoice__in=Invoice.objects.final()))


def terms_of(world: World, period: Period) -> Terms:
    """Those of the month's invoice; of what billed it again, once it was corrected."""
    documents = Invoice.objects.final().filter(lines__period_start=period.start).distinct()
    corrections = [each for each in documents if each.is_correction]
    others = [each for each in documents if not each.is_correction and not each.is_goodwill]
    if corrections:
        since = max(each.issued_at for each in corrections if each.issued_at)
        others = [each for each in others if each.submitted_at and each.submitted_at >= since]
        others = [each for each in others if each.lines.filter(period_start=period.start).exclude(kind="goodwill")]
        invoices = [each for each in others if not each.is_reduction]
        newest = max(invoices or others, key=lambda each: each.submitted_at, default=None)  # type: ignore[arg-type,return-value]
    else:
        newest = Invoice.objects.final().filter(kind=InvoiceKind.REGULAR, period_start=period.start).first()
    return world.terms if newest is None else world.signed[newest.pk]


def expected(world: World, period: Period) -> Decimal:
    terms = terms_of(world, period)
    calls = Usage.objects.filter(local_day__gte=period.start, local_day__lt=period.end)
    cost = sum((cost_of(call) for call in calls), Decimal(0))
    left = cost * (100 + terms.markup) / 100 + terms.fee
    for amount, charged in world.given[period]:
        left = left - amount if left >= charged else min(left, charged - amount)
    return left


@pytest.mark.parametrize("seed", range(8))
def test_what_was_charged_in_all_is_what_it_costs(seed: int) -> None:
    account = make_account()
    make_profile(account)
    world = World(account, random.Random(seed), Terms(0, 0, 0))
    world.prices = {model: make_price(model, input="100") for model in MODELS}
    new_terms(world)
    for model in MODELS:
        make_call(account, day=date(2025, 9, 15), price=world.prices[model], model=model, prompt_tokens=10**6)
    close_month(SEPTEMBER, account=account)
    for _ in range(STEPS):
        world.random.choice(list(OFTEN.elements()))(world)
    settle(world)

    charged = charged_by_month(world)
    months = {*charged, SEPTEMBER}
    assert {period: charged[period] for period in months} == {period: expected(world, period) for period in months}
    for invoice in Invoice.objects.final():
        assert invoice.total >= 0 or invoice.kind == InvoiceKind.CREDIT_NOTE
        assert invoice.tax == sum(
            (line.amount * (line.tax_percent or 0) / 100 for line in invoice.lines.all()), Decimal(0)
        )
    assert findings(*sorted(months)) == []
