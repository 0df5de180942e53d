"""What an account was charged in all is what its usage costs under each month's terms, and fees, less goodwill.

So whatever happens in whatever order: late usage, decisions, new prices, credits, voids, new plans and versions of
them, taxes, and an account that closes. The reckoning here is its own: from rows of usage and adjustments, and from
what was done to the account. Tax too: each charge has the rate under which its month was signed last, and each credit
note that of what it credits. In some worlds all amounts are whole units, so that nothing is rounded; others have
decimals and all that a plan knows.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from billing.enums import InvoiceKind, InvoiceState, TierMode
from billing.errors import InvoiceError
from billing.invoices.closing import close_month
from billing.invoices.crediting import credit, credit_and_bill_again, creditable
from billing.invoices.line_calls import calls_of_line, has_calls
from billing.invoices.review import approve, issue, send_back, submit, void
from billing.jobs.exports import export_month
from billing.models import BillingProfile, Invoice, InvoiceLine, Plan, PlanRate
from billing.periods import BillingPeriod
from billing.plans import add_version, keep_former_plans
from llm.books.rerating import rerate
from llm.enums import AccountStatus, AdjustmentSource, Meter
from llm.models import Account, Price, Rate, Usage, UsageAdjustment
from llm.prices.staff import set_price
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.exports.months import verify
from tests.billing.factories import make_account, make_exchange_rate, make_profile
from tests.billing.months import SEPTEMBER, approver, findings, preparer, reprice

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

MODELS = ("gpt-4o", "gpt-mini")
STEPS = 20
LONG_AGO = BillingPeriod.parse("2020-01")
NOTHING = Decimal(0)
DECIMALS = {"USD": 2, "EUR": 2, "JPY": 0}
PER_USD = {
    "USD": [],
    "EUR": [(date(2025, 1, 1), Decimal("0.9137")), (date(2025, 10, 31), Decimal("0.852143"))],
    "JPY": [(date(2025, 1, 1), Decimal("151.373")), (date(2025, 11, 30), Decimal("148.09"))],
}
"""From when on, in order."""


@dataclass(frozen=True)
class Terms:
    """Of a plan. fixed: what a million tokens of `gpt-mini` cost, and those after the first million."""

    markup: Decimal
    fee: Decimal
    tokens: int = 0
    included: Decimal = NOTHING
    discount: Decimal = NOTHING
    commitment: Decimal = NOTHING
    fixed: tuple[Decimal, Decimal] | None = None


@dataclass(frozen=True)
class Signed:
    """What held when a document was submitted. plans: from which month on, in that order, the first for all before."""

    plans: tuple[tuple[BillingPeriod, Terms], ...]
    tax: int

    def plan_in(self, period: BillingPeriod) -> Terms:
        return [terms for since, terms in self.plans if since <= period or since == self.plans[0][0]][-1]


@dataclass
class World:
    """given: (amount, charged before it) of goodwill, by month, in order. signed: what held at submit, by document.

    is_whole: all amounts are whole units, and plans have a markup and a fee alone. closed: the account's last month.
    """

    account: Account
    random: random.Random
    terms: Signed
    currency: str = "USD"
    is_whole: bool = True
    closed: BillingPeriod | None = None
    last: BillingPeriod = SEPTEMBER
    signed: dict[int, Signed] = field(default_factory=dict)
    given: dict[BillingPeriod, list[tuple[Decimal, Decimal]]] = field(default_factory=lambda: defaultdict(list))
    prices: dict[str, Price] = field(default_factory=dict)

    @property
    def months(self) -> list[BillingPeriod]:
        months = [SEPTEMBER]
        while months[-1] < self.last:
            months.append(months[-1].following)
        return months

    @property
    def unit(self) -> Decimal:
        return Decimal(1).scaleb(-DECIMALS[self.currency])

    def a_month(self) -> BillingPeriod:
        return self.random.choice([each for each in self.months if self.closed is None or each <= self.closed])

    def one_of(self, *amounts: str) -> Decimal:
        return Decimal(self.random.choice(amounts))

    def rounded(self, amount: Decimal) -> Decimal:
        return amount.quantize(self.unit, ROUND_HALF_UP)


def some_terms(world: World) -> Terms:
    if world.is_whole:
        return Terms(world.one_of("0", "10", "50"), world.one_of("0", "7"))
    return Terms(
        world.one_of("0", "12.5", "33.3333"),
        world.one_of("0", "7.25"),
        world.random.choice([0, 0, 700_001, 2_000_000]),
        world.one_of("0", "0", "1.495"),
        world.one_of("0", "0", "7.5"),
        world.one_of("0", "0", "9.99"),
        world.random.choice([None, None, (Decimal("1.2345"), Decimal("0.7"))]),
    )


def make_version(world: World, plan: Plan, terms: Terms, *, since: date) -> None:
    fixed = [
        PlanRate(
            model_pattern="gpt-mini",
            meter=meter,
            from_tokens=start,
            tier_mode=TierMode.GRADUATED,
            price_per_million=price,
        )
        for meter in (Meter.INPUT, Meter.OUTPUT)
        for start, price in zip((0, 10**6), terms.fixed or (), strict=False)
    ]
    add_version(
        plan,
        effective_from=since,
        currency=world.currency,
        markup_percent=terms.markup,
        flat_fee=terms.fee,
        allowance_tokens=terms.tokens,
        allowance_amount=terms.included,
        discount_percent=terms.discount,
        minimum_commitment=terms.commitment,
        rates=fixed,
    )


def new_version(world: World) -> None:
    """The present plan has other terms from a month on that it didn't bill yet."""
    period, terms = world.a_month().following, some_terms(world)
    if period <= world.terms.plans[-1][0]:
        return
    try:
        make_version(world, BillingProfile.objects.get(account=world.account).plan, terms, since=period.start)
    except ValidationError:
        return
    world.terms = Signed((*world.terms.plans, (period, terms)), world.terms.tax)


def new_terms(world: World) -> None:
    """Another tax, and another plan: in every month, or from one of them on."""
    terms = some_terms(world)
    plan = Plan.objects.create(name=f"Plan {Plan.objects.count()}")
    make_version(world, plan, terms, since=date(2025, 1, 1))
    since = world.a_month() if world.terms.plans and world.random.random() < 0.5 else None
    before, after = (BillingProfile.objects.get(account=world.account) for _ in range(2))
    after.plan, after.tax_percent = plan, Decimal(world.random.choice([0, 10, 20]))
    after.plan_from = None if since is None else since.start
    after.save()
    keep_former_plans(before, after)
    kept = [] if since is None else [each for each in world.terms.plans if each[0] < since]
    world.terms = Signed((*kept, (since or LONG_AGO, terms)), int(after.tax_percent))
    world.account.refresh_from_db()


def a_call(world: World) -> None:
    model = world.random.choice(MODELS)
    whole = world.random.choice([1, 3]) * 10**6
    make_call(
        world.account,
        day=world.a_month().start.replace(day=15 if world.is_whole else world.random.choice([5, 15, 25])),
        price=world.prices[model],
        model=model,
        prompt_tokens=whole if world.is_whole else world.random.randrange(1, 1_500_000),
        completion_tokens=0 if world.is_whole else world.random.choice([0, 12_345]),
    )


def a_decision(world: World) -> None:
    """A call costs somewhat more or less than it did."""
    undecided = Usage.objects.exclude(adjustments__source=AdjustmentSource.PROVIDER).order_by("opened_at", "id")
    if not (calls := list(undecided)):
        return
    call = world.random.choice(calls)
    more = (Decimal(10) if world.is_whole else Decimal("0.0131")) * world.random.choice([1, -1])
    if cost_of(call) + more >= (0 if world.is_whole else Decimal("0.01")):
        adjust_call(call, AdjustmentSource.PROVIDER, cost=more)


def a_price(world: World) -> None:
    period, model = world.a_month(), world.random.choice(MODELS)
    if world.is_whole:
        reprice(world.random.choice(["0", "60", "100", "140"]), period=period, model=model)
    elif world.random.random() < 0.5:
        reprice(world.random.choice(["0", "0.333333", "1.7", "1.70001"]), period=period, model=model)
    else:
        free_from_the_middle(period, model)


def free_from_the_middle(period: BillingPeriod, model: str) -> None:
    since = period.start.replace(day=15)
    moment = datetime.combine(since, time(0, Price.objects.count()), UTC)
    set_price("openai", model, effective_from=moment, is_free=True)
    rerate("openai", model, first_day=since, last_day=period.last_day, reason="free from the middle on")


def close_account(world: World) -> None:
    """On the last day of the last month."""
    world.closed = world.last
    closed_at = datetime.combine(world.closed.last_day, time(12), UTC)
    Account.objects.filter(pk=world.account.pk).update(status=AccountStatus.CLOSED, closed_at=closed_at)
    world.account.refresh_from_db()


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
    amount = Decimal(10) if world.is_whole else 37 * world.unit
    lines = [line for line, left in creditable(invoice).items() if left >= amount]
    amounts = {world.random.choice(lines): amount} if lines and world.random.random() < 0.7 else None
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


def by_month(lines: Any) -> dict[BillingPeriod, Decimal]:
    amounts: dict[BillingPeriod, Decimal] = defaultdict(Decimal)
    for start, amount in lines.values_list("period_start", "amount"):
        amounts[BillingPeriod(start)] += amount
    return amounts


def charged_by_month(world: World) -> dict[BillingPeriod, Decimal]:
    return by_month(InvoiceLine.objects.filter(invoice__in=Invoice.objects.final()))


def signed_for(world: World, period: BillingPeriod) -> Signed:
    """What the month's invoice was signed under; of what billed it again, once it was corrected."""
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


@dataclass(frozen=True)
class Charge:
    """Of one model and meter at one price a million; without tokens, of what its prices leave of its cost."""

    model: str
    amount: Decimal
    tokens: int = 0
    price: Decimal = NOTHING


def charges_at_cost(world: World, model: str, calls: list[Usage], per_cost: Decimal) -> list[Charge]:
    """per_cost: what a USD of it is charged at. A call that costs nothing is free, whatever it was priced at before."""
    tokens: Counter[tuple[int, Decimal]] = Counter()
    rest = NOTHING
    for call in calls:
        rates, cost = rates_of(call) if cost_of(call) else {}, cost_of(call)
        for order, (meter, used) in enumerate(tokens_of(call).items()):
            price = rates.get(meter, NOTHING)
            tokens[order, price] += used
            cost -= used * price / 10**6
        rest += cost
    found = [
        Charge(model, world.rounded(used * price * per_cost / 10**6), used, price * per_cost)
        for (_, price), used in sorted(tokens.items(), key=lambda item: item[0][0])
    ]
    return [*found, Charge(model, world.rounded(rest * per_cost))]


def charges_at_fixed_prices(world: World, calls: list[Usage], prices: tuple[Decimal, Decimal]) -> list[Charge]:
    found = []
    for meter in ("input", "output"):
        used = sum(tokens_of(call)[meter] for call in calls)
        for tokens, price in zip((min(used, 10**6), max(used - 10**6, 0)), prices, strict=True):
            found.append(Charge("gpt-mini", world.rounded(tokens * price / 10**6), tokens, price))
    return found


def tokens_of(call: Usage) -> dict[str, int]:
    return {"input": call.prompt_tokens, "output": call.completion_tokens}


def rates_of(call: Usage) -> dict[str, Decimal]:
    """A million tokens of each meter, at what priced the call last."""
    rated = call.adjustments.exclude(rate_set=None).order_by("-id").first()
    rate_set = call.rate_set_id if rated is None else rated.rate_set_id
    return dict(Rate.objects.filter(rate_set=rate_set).values_list("meter", "amount"))


def covered_by_tokens(charges: list[Charge], tokens: int) -> Decimal:
    """The dearest; of a model no more than it costs."""
    worth: Counter[str] = Counter()
    for each in charges:
        worth[each.model] += each.amount  # type: ignore[assignment]  # a Counter adds up decimals too
    covered = NOTHING
    for each in sorted((each for each in charges if each.tokens and each.price), key=lambda each: -each.price):
        taken = min(tokens, each.tokens)
        amount = each.amount if taken == each.tokens else taken * each.price / 10**6
        amount = min(amount, max(Decimal(worth[each.model]), NOTHING))
        worth[each.model] -= amount  # type: ignore[assignment]
        covered += amount
        tokens -= taken
    return covered


def due_for(world: World, period: BillingPeriod, terms: Terms) -> Decimal:
    """What the month's usage comes to under these terms, each line of it rounded."""
    rates = [rate for since, rate in PER_USD[world.currency] if since <= period.last_day]
    per_cost = (100 + terms.markup) / 100 * (rates[-1] if rates else 1)
    usage: dict[str, list[Usage]] = defaultdict(list)
    for call in Usage.objects.filter(local_day__gte=period.start, local_day__lt=period.end):
        usage[call.model].append(call)
    charges: list[Charge] = []
    for model, calls in sorted(usage.items()):
        if model == "gpt-mini" and terms.fixed:
            charges += charges_at_fixed_prices(world, calls, terms.fixed)
        else:
            charges += charges_at_cost(world, model, calls, per_cost)
    left = sum((each.amount for each in charges), NOTHING)
    left -= world.rounded(covered_by_tokens(charges, terms.tokens))
    left -= world.rounded(max(min(terms.included, left), NOTHING))
    left -= world.rounded(left * terms.discount / 100)
    top_up = world.rounded(max(terms.commitment - left, NOTHING))
    return left + top_up + world.rounded(terms.fee)


def expected(world: World, period: BillingPeriod) -> Decimal:
    left = due_for(world, period, signed_for(world, period).plan_in(period))
    for amount, charged in world.given[period]:
        left = left - amount if left >= charged else min(left, charged - amount)
    return left


@dataclass
class Taxes:
    """The rate that each line should have, as documents come one after the other.

    by_month: under which a month is charged; not there before it is billed, and after a correction.
    """

    by_month: dict[BillingPeriod, int] = field(default_factory=dict)
    corrected: set[BillingPeriod] = field(default_factory=set)
    of_line: dict[int, int] = field(default_factory=dict)

    def add(self, document: Invoice, signed: Signed) -> None:
        lines = list(document.lines.order_by("position"))
        if document.kind == InvoiceKind.CREDIT_NOTE:
            self._credit(document, lines)
            return
        charged = {BillingPeriod(line.period_start) for line in lines if line.kind != "goodwill"}
        own = document.period
        if document.kind == InvoiceKind.REGULAR and (own in charged or own not in self.corrected):
            self.by_month[own] = signed.tax
        for period in {BillingPeriod(line.period_start) for line in lines}:
            self.by_month.setdefault(period, signed.tax)
        self.of_line.update({line.pk: self.by_month[BillingPeriod(line.period_start)] for line in lines})

    def _credit(self, note: Invoice, lines: list[InvoiceLine]) -> None:
        for line in lines:
            assert line.credited_line_id is not None
            self.of_line[line.pk] = self.of_line[line.credited_line_id]
            period = BillingPeriod(line.period_start)
            if note.is_correction:
                self.by_month.pop(period, None)
                self.corrected.add(period)
            elif note.is_reduction and line.kind != "goodwill":
                # Where nothing else has billed a corrected month again, what is late has the rate of this note.
                self.by_month.setdefault(period, self.of_line[line.pk])


def taxed(world: World) -> Taxes:
    taxes = Taxes()
    for document in Invoice.objects.final().order_by("submitted_at", "id"):
        taxes.add(document, world.signed[document.pk])
    return taxes


def check_taxes(world: World, due: dict[BillingPeriod, Decimal]) -> None:
    """due: what each month comes to without tax."""
    taxes = taxed(world)
    nets: dict[tuple[BillingPeriod, int], Decimal] = defaultdict(Decimal)
    for invoice in Invoice.objects.final():
        tax = Decimal(0)
        for line in invoice.lines.all():
            percent = taxes.of_line[line.pk]
            tax += line.amount * percent / 100
            nets[BillingPeriod(line.period_start), percent] += line.amount
        assert invoice.total == invoice.subtotal + invoice.tax, invoice
        # A credit note takes what is left of a tax, which others may have rounded.
        may_differ = 0 if world.is_whole else world.unit * (1 + invoice_count(invoice))
        assert abs(invoice.tax - tax) <= may_differ, invoice
    in_all = sum(due.values(), Decimal(0)) + sum((net * rate / 100 for (_, rate), net in nets.items()), Decimal(0))
    may_differ = 0 if world.is_whole else world.unit * Invoice.objects.final().count()
    assert abs(sum(Invoice.objects.final().values_list("total", flat=True), Decimal(0)) - in_all) <= may_differ
    for period, amount in due.items():
        rates = {rate: net for (month, rate), net in nets.items() if month == period and net}
        assert sum(rates.values(), Decimal(0)) == amount
        # No tax is left on nothing, nor given back that wasn't charged.
        assert all(net > 0 for net in rates.values()), (period, rates)


def invoice_count(invoice: Invoice) -> int:
    """With its notes, or those of what it credits."""
    return Invoice.objects.final().filter(original=invoice.original or invoice).count()


def check_nothing_is_left_of_what_was_credited() -> None:
    """Not a cent of tax, once all else was given back."""
    for original in Invoice.objects.final().exclude(kind=InvoiceKind.CREDIT_NOTE):
        documents = [original, *original.credit_notes.final()]
        if sum(each.subtotal for each in documents) == 0:
            assert sum(each.tax for each in documents) == 0, original


def live(world: World, steps: Counter[Any], *, closes: bool = False) -> dict[BillingPeriod, Decimal]:
    """Some months of it, and then until nothing is left to bill. What each month should have come to.

    closes: the account does, before the last steps.
    """
    new_terms(world)
    for model in MODELS:
        make_call(world.account, day=date(2025, 9, 15), price=world.prices[model], model=model, prompt_tokens=10**6)
    close_month(SEPTEMBER, account=world.account)
    for step in range(STEPS):
        if closes and step == STEPS - 5:
            close_account(world)
        world.random.choice(list(steps.elements()))(world)
    settle(world)
    months = {*charged_by_month(world), SEPTEMBER}
    return {period: expected(world, period) for period in months}


def check_links(world: World) -> None:
    """The page of each line shows the calls that make up what it says, whatever became of other documents."""
    lines = InvoiceLine.objects.filter(invoice__account=world.account).select_related("invoice", "plan_version")
    for line in (each for each in lines.order_by("id") if has_calls(each)):
        found = calls_of_line(line)
        assert found.agrees, (line.invoice, line, found.counted, found.said)
        assert found.calls.count() >= abs(line.calls)


def check(world: World, due: dict[BillingPeriod, Decimal]) -> None:
    charged = charged_by_month(world)
    assert {period: charged[period] for period in due} == due
    assert all(invoice.total >= 0 or invoice.kind == InvoiceKind.CREDIT_NOTE for invoice in Invoice.objects.final())
    check_taxes(world, due)
    check_nothing_is_left_of_what_was_credited()
    check_links(world)
    assert findings(*sorted(due)) == []


@pytest.mark.parametrize("seed", range(2))
def test_what_was_charged_in_all_is_what_it_costs(seed: int) -> None:
    account = make_account()
    make_profile(account)
    world = World(account, random.Random(seed), Signed((), 0))
    world.prices = {model: make_price(model, input="100") for model in MODELS}
    check(world, live(world, OFTEN))


@pytest.mark.parametrize(("seed", "currency"), [(0, "USD"), (1, "EUR"), (2, "JPY"), (3, "USD"), (4, "EUR"), (5, "JPY")])
def test_so_it_is_with_decimals_and_all_that_a_plan_knows(seed: int, currency: str, tmp_path: Path) -> None:
    for on, per_usd in PER_USD[currency]:
        make_exchange_rate(currency, str(per_usd), on=on)
    plan = Plan.objects.create(name="Cost")
    add_version(plan, effective_from=date(2025, 1, 1), currency=currency)
    account = make_account()
    make_profile(account, plan=plan, currency=currency)
    world = World(account, random.Random(seed), Signed((), 0), currency, is_whole=False)
    world.prices = {
        "gpt-4o": make_price("gpt-4o", input="2.503", output="10.0009"),
        "gpt-mini": make_price("gpt-mini", input="0.15", output="0.600001"),
    }
    due = live(world, OFTEN + Counter({new_version: 1, a_call: 3, a_review: 2}), closes=seed % 2 == 1)
    check(world, due)
    for period in sorted(due):
        if Invoice.objects.final().filter(period_start=period.start).exists():
            export_month(period, tmp_path / str(period), ("csv", "focus"))
            assert verify(tmp_path / str(period))[0] == 0, period
