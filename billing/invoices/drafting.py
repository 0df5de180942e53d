"""Drafts: made from a month's usage, and recomputed any number of times until they are submitted.

Everything happens under the lock of the account's billing profile, so an account's invoices are made one at a time, and
as of the cutoff of its rollups, which are locked too. To lock several accounts, lock by ascending id, profiles before
rollups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, transaction

from billing.currencies import format_money
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.errors import BillingError, InvoiceError, NotBillableError
from billing.invoices.blockers import Unsettled, unsettled_calls
from billing.invoices.bulk_insert import insert_rows
from billing.invoices.charges import Lookups, build_rows, rate_parts, set_terms
from billing.invoices.digests import issue_digest
from billing.invoices.flags import accounts_with_new_keys, find_flags
from billing.invoices.late_usage import (
    PriorInvoices,
    changed_periods,
    currency_of_month,
    find_prior_invoices,
    load_invoices,
)
from billing.invoices.one_offs import load_one_offs
from billing.invoices.taxes import set_taxes, taxes_due
from billing.models import BilledUsage, BillingProfile, Invoice, InvoiceEvent, InvoiceLine
from billing.models.invoices import CONTENT_VERSION, FINAL_STATES
from billing.periods import BillingPeriod
from billing.plans import make_profiles
from billing.rollup import load_usage_sums, lock_rollups, refresh
from billing.types import UsageSum
from llm.models import Account
from llm.money import exact_sum

if TYPE_CHECKING:
    from django.contrib.auth.models import User

DraftResult = Invoice | BillingError | None
"""The result for an account: its invoice, why it can't be billed, or None if there is nothing to bill."""


def draft_invoice(
    account: Account,
    period: BillingPeriod,
    *,
    user: User | None = None,
    kind: InvoiceKind = InvoiceKind.REGULAR,
) -> Invoice | None:
    """The account's draft of the period, made or recomputed; None if there is nothing to bill.

    An invoice that was already submitted is returned unchanged. kind: regular, or a supplement, which bills only what
    changed in a period since it was billed. Raises NotBillableError.
    """
    refresh(account_ids=[account.pk])
    return _result(draft_invoices([account], period, user=user, kind=kind)[account.pk])


def draft_invoices(
    accounts: Sequence[Account],
    period: BillingPeriod,
    *,
    user: User | None = None,
    kind: InvoiceKind = InvoiceKind.REGULAR,
) -> dict[int, DraftResult]:
    """`draft_invoice` for each account, in one transaction, by account id. Refresh the rollups first."""
    make_profiles(accounts)
    with transaction.atomic():
        profiles = lock_profiles([account.pk for account in accounts])
        invoices = load_invoices(profiles)
        found = {
            account_id: _found(invoices[account_id], period, kind)
            or Invoice(account=profile.account, period_start=period.start, kind=kind)
            for account_id, profile in profiles.items()
        }
        kept = {account_id: invoice for account_id, invoice in found.items() if invoice.state != InvoiceState.DRAFT}
        drafts = [
            _Draft.of(invoice, profiles[account_id], invoices[account_id])
            for account_id, invoice in found.items()
            if account_id not in kept
        ]
        return {**kept, **_compute(drafts, period, user=user)}


def recompute(invoice_id: int, *, user: User | None = None) -> Invoice:
    """Recompute a draft. Raises InvoiceError if it isn't a draft, or is a credit note."""
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    refresh(account_ids=[account_id])
    with transaction.atomic():
        profile = lock_profile(account_id)
        invoice = Invoice.objects.select_for_update().get(pk=invoice_id)
        if invoice.kind == InvoiceKind.CREDIT_NOTE:
            raise InvoiceError("Credit notes can't be recalculated by hand: reductions are updated every hour.")
        if invoice.state != InvoiceState.DRAFT:
            raise InvoiceError("Only drafts can be recalculated: send the invoice back first.")
        compute(invoice, profile, user=user)
        return invoice


def lock_profile(account_id: int) -> BillingProfile:
    """Until the transaction ends, no other process makes or moves an invoice of the account."""
    return lock_profiles([account_id])[account_id]


def lock_profiles(account_ids: Collection[int]) -> dict[int, BillingProfile]:
    """`lock_profile` for each account, by account id.

    Accounts and plans are read in separate statements after the lock: a join would return them as they were before the
    wait, and drop a profile whose plan was changed meanwhile.
    """
    profiles = BillingProfile.objects.select_for_update().filter(account__in=account_ids).order_by("account_id")
    found = profiles.prefetch_related("account", "plan", "former_plans__plan")
    return {profile.account_id: profile for profile in found}


def compute(invoice: Invoice, profile: BillingProfile, *, user: User | None) -> None:
    """Compute an existing draft, under the profile's lock. Raises InvoiceError or NotBillableError."""
    account_id = invoice.account_id
    draft = _Draft.of(invoice, profile, load_invoices([account_id])[account_id])
    _result(_compute([draft], invoice.period, user=user)[account_id])


def note_event(
    invoice: Invoice, action: InvoiceAction, from_state: str, *, user: User | None, reason: str = ""
) -> InvoiceEvent:
    event = build_event(invoice, action, from_state, user=user, reason=reason)
    event.save(force_insert=True)
    return event


def build_event(
    invoice: Invoice, action: InvoiceAction, from_state: str, *, user: User | None, reason: str = ""
) -> InvoiceEvent:
    """An entry of the invoice's history, unsaved."""
    return InvoiceEvent(
        invoice=invoice,
        action=action,
        from_state=from_state,
        to_state=invoice.state,
        user=user,
        reason=reason[:500],
        content_digest=invoice.content_digest,
        issue_digest=issue_digest(invoice) if invoice.state in FINAL_STATES else "",
        cutoff_at=invoice.cutoff_at,
    )


# --- Several at once --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draft:
    """invoices: the account's, without void ones. others: those among them that count beside this draft."""

    invoice: Invoice
    profile: BillingProfile
    invoices: Sequence[Invoice]
    others: PriorInvoices

    @classmethod
    def of(cls, invoice: Invoice, profile: BillingProfile, invoices: Sequence[Invoice]) -> _Draft:
        """In the profile's currency for that month; a supplement in the currency of the invoice that it adds to."""
        invoice.currency = profile.currency_in(invoice.period)
        if invoice.kind == InvoiceKind.SUPPLEMENT:
            invoice.currency = currency_of_month(invoice.period, invoices, profile)
        return cls(invoice, profile, invoices, find_prior_invoices(invoice, invoices, profile=profile))

    @property
    def account_id(self) -> int:
        return self.invoice.account_id


@dataclass(frozen=True, slots=True)
class _Books:
    """What drafts of one period are computed from, by account id, as of the cutoffs and locked with them."""

    cutoffs: Mapping[int, datetime | None]
    usage: Mapping[int, Sequence[UsageSum]]
    late: Mapping[int, Sequence[BillingPeriod]]
    unsettled: Mapping[int, Unsettled]
    with_new_keys: Collection[int]

    @classmethod
    def locked(cls, drafts: Sequence[_Draft], period: BillingPeriod) -> _Books:
        """The number of queries doesn't depend on the number of accounts."""
        ids = [draft.account_id for draft in drafts]
        cutoffs = lock_rollups(ids)
        usage = load_usage_sums(ids, period)
        late = changed_periods({draft.account_id: draft.others for draft in drafts}, period)
        return cls(cutoffs, usage, late, unsettled_calls(usage, period), accounts_with_new_keys(ids, period))


@dataclass(frozen=True, slots=True)
class _ComputedDraft:
    """The new content of a draft. action: what to add to its history, if anything."""

    invoice: Invoice
    lines: Sequence[InvoiceLine]
    usage: Sequence[BilledUsage]
    action: InvoiceAction | None


def _compute(drafts: Sequence[_Draft], period: BillingPeriod, *, user: User | None) -> dict[int, DraftResult]:
    """At most one draft per account: everything is read, then computed, then written."""
    if not drafts:
        return {}
    ids = [draft.account_id for draft in drafts]
    books, lookups = _Books.locked(drafts, period), Lookups(load_one_offs(ids))
    outcomes: dict[int, DraftResult] = {}
    computed = []
    for draft in drafts:
        try:
            result = _reckon(draft, books, lookups)
        except BillingError as error:
            outcomes[draft.account_id] = error
            continue
        outcomes[draft.account_id] = None if result is None else draft.invoice
        if result is not None:
            computed.append(result)
    _write(computed, user=user)
    return outcomes


def _reckon(draft: _Draft, books: _Books, lookups: Lookups) -> _ComputedDraft | None:
    """None if a new draft would be empty. Raises BillingError."""
    invoice, account_id = draft.invoice, draft.account_id
    cutoff_at = books.cutoffs[account_id]
    if cutoff_at is None:
        raise InvoiceError(f"The usage of {invoice.account} is being summed up right now. Try again in a minute.")
    set_terms(invoice, draft.profile, draft.others, lookups)
    late = books.late.get(account_id, ())
    parts = list(rate_parts(invoice, books.usage[account_id], late, draft.others, draft.profile, lookups))
    lines = [line for part in parts for line in build_rows(invoice, part, cutoff_at)]
    usage = [row for part in parts for row in part.usage]
    is_new, before = invoice._state.adding, invoice.total
    if is_new and not lines:
        return None
    invoice.cutoff_at, invoice.content_version = cutoff_at, CONTENT_VERSION
    set_totals(invoice, lines)
    _require_positive(invoice)
    set_estimates(invoice, usage)
    set_comparison(
        invoice,
        lines,
        draft.invoices,
        profile=draft.profile,
        unsettled=books.unsettled[account_id],
        is_key_new=account_id in books.with_new_keys,
    )
    action = InvoiceAction.DRAFT if is_new else InvoiceAction.RECOMPUTE if before != invoice.total else None
    return _ComputedDraft(invoice, lines, usage, action)


def _require_positive(invoice: Invoice) -> None:
    """A month's lines aren't negative, but one-off lines may have another tax rate. Raises NotBillableError."""
    if invoice.total < 0:
        raise NotBillableError(
            f"It comes to {format_money(invoice.total, invoice.currency)} {invoice.currency}, which is negative: "
            "remove one-off lines that have a tax rate of their own."
        )


def _write(computed: Sequence[_ComputedDraft], *, user: User | None) -> None:
    """Write the invoices, replacing their lines and usage."""
    known = [each.invoice for each in computed if not each.invoice._state.adding]
    for invoice in known:
        invoice.save()
    if known:
        # Not delete(), which reads every line to check that no credit note cites it: the database checks that too.
        InvoiceLine.objects.filter(invoice__in=known)._raw_delete(DEFAULT_DB_ALIAS)
        BilledUsage.objects.filter(invoice__in=known)._raw_delete(DEFAULT_DB_ALIAS)
    Invoice.objects.bulk_create(each.invoice for each in computed if each.invoice._state.adding)
    for each in computed:
        for position, line in enumerate(each.lines, start=1):
            line.invoice_id, line.position = each.invoice.pk, position
        for row in each.usage:
            row.invoice_id = each.invoice.pk
    insert_rows(InvoiceLine, (line for each in computed for line in each.lines))
    insert_rows(BilledUsage, (row for each in computed for row in each.usage))
    InvoiceEvent.objects.bulk_create(
        build_event(each.invoice, each.action, "", user=user) for each in computed if each.action is not None
    )


def _found(invoices: Iterable[Invoice], period: BillingPeriod, kind: InvoiceKind) -> Invoice | None:
    """The period's invoice of that kind, in any currency; a supplement only if it isn't submitted."""
    for invoice in invoices:
        if (invoice.period, invoice.kind) != (period, kind):
            continue
        if kind != InvoiceKind.SUPPLEMENT or invoice.state == InvoiceState.DRAFT:
            return invoice
    return None


def _result(outcome: DraftResult) -> Invoice | None:
    if isinstance(outcome, BillingError):
        raise outcome
    return outcome


# --- What an invoice comes to, and how that compares with what it should be -------------------------------------------


def set_totals(invoice: Invoice, lines: Sequence[InvoiceLine]) -> None:
    set_taxes(invoice, taxes_due(invoice, lines))
    invoice.cost_usd = exact_sum(line.cost_usd for line in lines)


def set_estimates(invoice: Invoice, usage: Sequence[BilledUsage]) -> None:
    cost = exact_sum(row.cost for row in usage)
    estimated = exact_sum(row.estimated_cost for row in usage)
    # With free models there is no cost to take a share of, so calls are used instead.
    if cost <= 0:
        cost, estimated = (Decimal(sum(getattr(row, name) for row in usage)) for name in ("calls", "estimated_calls"))
    share = int(estimated * 1000 / cost) if cost > 0 else 0
    invoice.estimated_permille = min(1000, max(0, share))


def set_comparison(
    invoice: Invoice,
    lines: Sequence[InvoiceLine],
    invoices: Iterable[Invoice],
    *,
    profile: BillingProfile,
    unsettled: Unsettled,
    is_key_new: bool,
) -> None:
    """invoices: the account's, without void ones."""
    earlier = {
        each.period: each
        for each in invoices
        if each.kind == InvoiceKind.REGULAR and each.currency == invoice.currency and each.period < invoice.period
    }
    previous = earlier.get(invoice.period.previous)
    invoice.previous_total = None if previous is None else previous.total
    invoice.previous_cost_usd = None if previous is None else previous.cost_usd
    invoice.flags = find_flags(
        invoice, lines, profile=profile, unsettled=unsettled, is_first=not earlier, is_key_new=is_key_new
    )
