"""From a month's usage to a draft: lines, totals, and what of the usage they bill.

A draft is computed anew as often as one likes, from the account's rollups as of their cutoff; submitting it freezes it.
Everything happens under the lock of the account's billing profile, so an account's invoices come one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import transaction

from billing.blockers import unsettled_of
from billing.currencies import COST_CURRENCY, DECIMALS
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.errors import InvoiceError, NotBillableError
from billing.exchange import rate_on
from billing.flags import flags_of, has_new_key
from billing.late import billed_lines, billed_usage, changed_periods, regular_of
from billing.models import BilledUsage, BillingProfile, ExchangeRate, Invoice, InvoiceEvent, InvoiceLine, PlanVersion
from billing.models.rollups import SUM_FIELDS
from billing.periods import Period
from billing.plans import profile_of, terms_of, version_in_force
from billing.rating import difference, rate
from billing.rollup import lock_rollups, refresh, usage_sums
from billing.types import ChargeLine, UsageSum
from llm.digests import DIGEST_FIELDS, digest_hex
from llm.models import Account
from llm.money import exact_sum, pico_to_usd, round_half_away
from llm.types import TOKEN_FIELDS

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_MOST_DESCRIPTION = 300


def draft_invoice(
    account: Account,
    period: Period,
    *,
    user: User | None = None,
    kind: InvoiceKind = InvoiceKind.REGULAR,
    is_fresh: bool = False,
) -> Invoice | None:
    """The account's draft of the period, made or computed anew; None where there is nothing to bill.

    One that was submitted already is returned as it is. kind: regular, or a supplement, which bills only what changed
    in a period since it was billed. is_fresh: the rollups were refreshed just now. Raises NotBillableError.
    """
    profile_of(account)
    if not is_fresh:
        refresh(account_ids=[account.pk])
    with transaction.atomic():
        profile = lock_profile(account.pk)
        invoice = _current(account, period, profile.currency, kind)
        if invoice is not None and invoice.state != InvoiceState.DRAFT:
            return invoice
        return compute(invoice or _new(account, period, profile, kind), profile, user=user)


def recompute(invoice_id: int, *, user: User | None = None) -> Invoice:
    """Compute a draft anew. Raises InvoiceError where it is no draft, or a credit note."""
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    refresh(account_ids=[account_id])
    with transaction.atomic():
        profile = lock_profile(account_id)
        invoice = Invoice.objects.select_for_update(of=("self",)).select_related("account").get(pk=invoice_id)
        if invoice.state != InvoiceState.DRAFT or invoice.kind == InvoiceKind.CREDIT_NOTE:
            raise InvoiceError("Only a draft can be computed anew: send the invoice back first.")
        return compute(invoice, profile, user=user) or invoice


def lock_profile(account_id: int) -> BillingProfile:
    """Until the transaction ends nobody else makes or moves an invoice of the account."""
    return (
        BillingProfile.objects.select_for_update(of=("self",)).select_related("account", "plan").get(account=account_id)
    )


def compute(invoice: Invoice, profile: BillingProfile, *, user: User | None) -> Invoice | None:
    """Fill a draft under the profile's lock. None, and nothing is written, where a new one would be empty."""
    cutoff_at = lock_rollups(invoice.account_id)
    if cutoff_at is None:
        raise InvoiceError(f"The usage of {invoice.account} is being summed up right now: try again in a minute.")
    _set_terms(invoice, profile)
    parts = list(_parts(invoice))
    lines = [line for part in parts for line in _rows_of(invoice, part, cutoff_at)]
    for position, line in enumerate(lines, start=1):
        line.position = position
    is_new = invoice._state.adding
    if not lines and is_new:
        return None
    before = invoice.total
    invoice.cutoff_at = cutoff_at
    _set_totals(invoice, lines)
    _set_estimates(invoice, parts)
    _set_comparison(invoice, lines, profile)
    _write(invoice, lines, parts)
    if is_new or before != invoice.total:
        note_event(invoice, InvoiceAction.DRAFT if is_new else InvoiceAction.RECOMPUTE, "", user=user)
    return invoice


def note_event(
    invoice: Invoice, action: InvoiceAction, from_state: str, *, user: User | None, reason: str = ""
) -> None:
    InvoiceEvent.objects.create(
        invoice=invoice,
        action=action,
        from_state=from_state,
        to_state=invoice.state,
        user=user,
        reason=reason[:500],
        content_digest=invoice.content_digest,
    )


# --- Which invoice, under which terms ---------------------------------------------------------------------------------


def _current(account: Account, period: Period, currency: str, kind: InvoiceKind) -> Invoice | None:
    found = Invoice.objects.filter(account=account, period_start=period.start, currency=currency, kind=kind)
    if kind == InvoiceKind.SUPPLEMENT:
        found = found.filter(state=InvoiceState.DRAFT)
    return found.exclude(state=InvoiceState.VOID).select_related("account").first()


def _new(account: Account, period: Period, profile: BillingProfile, kind: InvoiceKind) -> Invoice:
    return Invoice(account=account, period_start=period.start, currency=profile.currency, kind=kind)


def _set_terms(invoice: Invoice, profile: BillingProfile) -> None:
    """Plan, rate of exchange and tax as they hold now for the period. Raises NotBillableError."""
    invoice.tax_percent = profile.tax_percent
    if (regular := regular_of(invoice)) is not None:
        invoice.plan_version = regular.plan_version
        invoice.exchange_rate, invoice.per_usd = regular.exchange_rate, regular.per_usd
        return
    version = version_in_force(profile.plan, invoice.period)
    if version.currency != invoice.currency:
        raise NotBillableError(
            f"The plan “{profile.plan}” has prices in {version.currency}, the profile bills in {invoice.currency}: "
            "give the plan a version in that currency, or change the profile."
        )
    invoice.plan_version = version
    invoice.exchange_rate = _exchange_rate(invoice)
    invoice.per_usd = None if invoice.exchange_rate is None else invoice.exchange_rate.per_usd


def _exchange_rate(invoice: Invoice) -> ExchangeRate | None:
    return None if invoice.currency == COST_CURRENCY else rate_on(invoice.currency, invoice.period.last_day)


# --- What it bills ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """What the invoice bills of one period: the difference to what others billed of it."""

    period: Period
    version: PlanVersion
    lines: Sequence[ChargeLine]
    usage: Sequence[BilledUsage]


def _parts(invoice: Invoice) -> Iterator[_Part]:
    """The invoice's own period first, then earlier ones that have changed since they were billed."""
    yield _part(invoice, invoice.period, invoice.plan_version, invoice.per_usd)
    if invoice.kind == InvoiceKind.REGULAR:
        for period, regular in changed_periods(invoice):
            yield _part(invoice, period, regular.plan_version, regular.per_usd)


def _part(invoice: Invoice, period: Period, version: PlanVersion, per_usd: Decimal | None) -> _Part:
    decimals = DECIMALS[invoice.currency]
    usage = usage_sums(invoice.account_id, period)
    try:
        lines = rate(usage, terms_of(version), per_usd=per_usd, decimals=decimals)
    except ValueError as error:
        raise NotBillableError(f"The plan “{version}” doesn't fit what was used: {error}.") from error
    if billed := billed_lines(invoice, period):
        lines = difference(lines, billed, decimals=decimals)
    return _Part(period, version, lines, _unbilled(invoice, period, usage))


def _unbilled(invoice: Invoice, period: Period, usage: Iterable[UsageSum]) -> list[BilledUsage]:
    """Rows of the usage that no other invoice bills; negative where others billed what is gone."""
    billed = billed_usage(invoice, period)
    now = {(each.provider, each.model, each.rate_set_id): _sums(each) for each in usage}
    rows = []
    for key in sorted({*now, *billed}, key=lambda key: (key[0], key[1], key[2] or 0)):
        sums = _subtracted(now.get(key), billed.get(key))
        if any(sums.values()):
            provider, model, rate_set_id = key
            rows.append(
                BilledUsage(period_start=period.start, provider=provider, model=model, rate_set_id=rate_set_id, **sums)
            )
    return rows


def _sums(usage: UsageSum) -> dict[str, Any]:
    return {
        "calls": usage.calls,
        "estimated_calls": usage.estimated_calls,
        "unpriced_calls": usage.unpriced_calls,
        **{name: getattr(usage.counts, name) for name in TOKEN_FIELDS},
        "cost": pico_to_usd(usage.cost_pico),
        "estimated_cost": pico_to_usd(usage.estimated_cost_pico),
        **dict(zip(DIGEST_FIELDS, usage.digest, strict=True)),
    }


def _subtracted(now: dict[str, Any] | None, billed: dict[str, Any] | None) -> dict[str, Any]:
    """Digests are sums modulo 2**32: what is left of one is a digest again."""
    nothing = dict.fromkeys(SUM_FIELDS, Decimal(0))
    now, billed = now or nothing, billed or nothing
    left = {name: now[name] - billed[name] for name in SUM_FIELDS}
    for name in SUM_FIELDS:
        if name in DIGEST_FIELDS:
            left[name] = int(left[name]) % 2**32
        elif not name.endswith("cost"):
            left[name] = int(left[name])
    return left


def _rows_of(invoice: Invoice, part: _Part, cutoff_at: datetime) -> Iterator[InvoiceLine]:
    is_late = part.period != invoice.period
    for line in part.lines:
        description = f"{part.period}: {line.description}" if is_late else line.description
        yield InvoiceLine(
            kind=line.kind,
            key=line.key,
            period_start=part.period.start,
            plan_version=part.version,
            description=description[:_MOST_DESCRIPTION],
            provider=line.provider,
            model=line.model,
            meter=line.meter,
            quantity=line.quantity,
            unit_price=line.unit_price,
            exact_amount=line.exact_amount,
            amount=line.amount,
            residual=line.residual,
            cost_usd=pico_to_usd(line.cost_pico),
            calls=line.calls,
            digest=digest_hex(line.digest) if any(line.digest) else "",
            cutoff_at=cutoff_at,
        )


# --- What it comes to -------------------------------------------------------------------------------------------------


def _set_totals(invoice: Invoice, lines: Iterable[InvoiceLine]) -> None:
    lines = list(lines)
    invoice.subtotal = exact_sum(line.amount for line in lines)
    invoice.tax = tax_of(invoice.subtotal, invoice.tax_percent, invoice.currency)
    invoice.total = invoice.subtotal + invoice.tax
    invoice.cost_usd = exact_sum(line.cost_usd for line in lines)


def tax_of(subtotal: Decimal, percent: Decimal, currency: str) -> Decimal:
    """On the sum of rounded lines, rounded half away from zero to the currency's decimals."""
    return round_half_away(subtotal * percent / 100, DECIMALS[currency])


def _set_estimates(invoice: Invoice, parts: Iterable[_Part]) -> None:
    rows = [row for part in parts for row in part.usage]
    cost = exact_sum(row.cost for row in rows)
    estimated = exact_sum(row.estimated_cost for row in rows)
    # With free models there is no cost to take a share of: calls stand in for it.
    if cost <= 0:
        cost, estimated = (Decimal(sum(getattr(row, name) for row in rows)) for name in ("calls", "estimated_calls"))
    share = int(estimated * 1000 / cost) if cost > 0 else 0
    invoice.estimated_permille = min(1000, max(0, share))


def _set_comparison(invoice: Invoice, lines: Sequence[InvoiceLine], profile: BillingProfile) -> None:
    earlier = Invoice.objects.filter(account=invoice.account_id, kind=InvoiceKind.REGULAR, currency=invoice.currency)
    earlier = earlier.filter(period_start__lt=invoice.period_start).exclude(state=InvoiceState.VOID)
    previous = earlier.filter(period_start=invoice.period.previous.start).first()
    invoice.previous_total = None if previous is None else previous.total
    invoice.flags = flags_of(
        invoice,
        lines,
        profile=profile,
        unsettled=unsettled_of(invoice.account_id, invoice.period),
        is_first=not earlier.exists(),
        is_key_new=has_new_key(invoice.account_id, invoice.period),
    )


def _write(invoice: Invoice, lines: Sequence[InvoiceLine], parts: Iterable[_Part]) -> None:
    is_new = invoice._state.adding
    invoice.save(force_insert=is_new)
    if not is_new:
        invoice.lines.all().delete()
        invoice.billed_usage.all().delete()
    usage = [row for part in parts for row in part.usage]
    for line in lines:
        line.invoice = invoice
    for row in usage:
        row.invoice = invoice
    InvoiceLine.objects.bulk_create(lines)
    BilledUsage.objects.bulk_create(usage)
