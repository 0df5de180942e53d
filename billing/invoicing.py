"""Drafts: made from a month's usage, and computed anew as often as one likes, until they are submitted.

Everything happens under the lock of the account's billing profile, so an account's invoices come one after the other,
and as of the cutoff of its rollups, which are locked too. Whoever locks several accounts does so by ascending id,
profiles before rollups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, transaction

from billing.blockers import Unsettled, unsettled_calls
from billing.content import issue_digest
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.errors import BillingError, InvoiceError
from billing.flags import accounts_with_new_keys
from billing.late import Others, changed_periods, invoices_of, others_of, regular_of
from billing.models import BilledUsage, BillingProfile, Invoice, InvoiceEvent, InvoiceLine
from billing.models.invoices import FINAL_STATES
from billing.periods import Period
from billing.plans import make_profiles
from billing.reckoning import Lookups, parts_of, rows_of, set_terms
from billing.rollup import lock_rollups, refresh, usage_sums_of
from billing.totals import set_comparison, set_estimates, set_totals
from billing.types import UsageSum
from llm.bulk import insert_rows
from llm.models import Account

if TYPE_CHECKING:
    from django.contrib.auth.models import User

Outcome = Invoice | BillingError | None
"""What came of an account: its invoice, why it can't be billed, or None where there is nothing to bill."""


def draft_invoice(
    account: Account,
    period: Period,
    *,
    user: User | None = None,
    kind: InvoiceKind = InvoiceKind.REGULAR,
) -> Invoice | None:
    """The account's draft of the period, made or computed anew; None where there is nothing to bill.

    One that was submitted already is returned as it is. kind: regular, or a supplement, which bills only what changed
    in a period since it was billed. Raises NotBillableError.
    """
    refresh(account_ids=[account.pk])
    return _result(draft_invoices([account], period, user=user, kind=kind)[account.pk])


def draft_invoices(
    accounts: Sequence[Account], period: Period, *, user: User | None = None, kind: InvoiceKind = InvoiceKind.REGULAR
) -> dict[int, Outcome]:
    """`draft_invoice` of each, in one transaction, by account id. Refresh the rollups first."""
    make_profiles(accounts)
    with transaction.atomic():
        profiles = lock_profiles([account.pk for account in accounts])
        invoices = invoices_of(profiles)
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
    """Compute a draft anew. Raises InvoiceError where it is no draft, or a credit note."""
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    refresh(account_ids=[account_id])
    with transaction.atomic():
        profile = lock_profile(account_id)
        invoice = Invoice.objects.select_for_update(of=("self",)).select_related("account").get(pk=invoice_id)
        if invoice.state != InvoiceState.DRAFT or invoice.kind == InvoiceKind.CREDIT_NOTE:
            raise InvoiceError("Only a draft can be computed anew: send the invoice back first.")
        compute(invoice, profile, user=user)
        return invoice


def lock_profile(account_id: int) -> BillingProfile:
    """Until the transaction ends nobody else makes or moves an invoice of the account."""
    return lock_profiles([account_id])[account_id]


def lock_profiles(account_ids: Collection[int]) -> dict[int, BillingProfile]:
    """`lock_profile` of each, by account id."""
    profiles = BillingProfile.objects.select_for_update(of=("self",)).select_related("account", "plan")
    return {profile.account_id: profile for profile in profiles.filter(account__in=account_ids).order_by("account")}


def compute(invoice: Invoice, profile: BillingProfile, *, user: User | None) -> None:
    """Fill a draft that is there already, under the profile's lock. Raises InvoiceError or NotBillableError."""
    account_id = invoice.account_id
    draft = _Draft.of(invoice, profile, invoices_of([account_id])[account_id])
    _result(_compute([draft], invoice.period, user=user)[account_id])


def note_event(
    invoice: Invoice, action: InvoiceAction, from_state: str, *, user: User | None, reason: str = ""
) -> None:
    event_of(invoice, action, from_state, user=user, reason=reason).save(force_insert=True)


def event_of(
    invoice: Invoice, action: InvoiceAction, from_state: str, *, user: User | None, reason: str = ""
) -> InvoiceEvent:
    """A line of the invoice's history, not saved yet."""
    return InvoiceEvent(
        invoice=invoice,
        action=action,
        from_state=from_state,
        to_state=invoice.state,
        user=user,
        reason=reason[:500],
        content_digest=invoice.content_digest,
        issue_digest=issue_digest(invoice) if invoice.state in FINAL_STATES else "",
    )


# --- Several at once --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draft:
    """invoices: of its account, those that are void left out. others: of these, what bills usage beside it."""

    invoice: Invoice
    profile: BillingProfile
    invoices: Sequence[Invoice]
    others: Others

    @classmethod
    def of(cls, invoice: Invoice, profile: BillingProfile, invoices: Sequence[Invoice]) -> _Draft:
        """In the profile's currency as it now is; a supplement in that of the invoice which it adds to."""
        invoice.currency = profile.currency
        if invoice.kind == InvoiceKind.SUPPLEMENT:
            frozen = [each for each in invoices if each.is_frozen]
            regular = regular_of(frozen, invoice.period)
            invoice.currency = profile.currency if regular is None else regular.currency
        return cls(invoice, profile, invoices, others_of(invoice, invoices))

    @property
    def account_id(self) -> int:
        return self.invoice.account_id


@dataclass(frozen=True, slots=True)
class _Books:
    """What drafts of one period are reckoned from, by account id: as of the cutoffs, until the transaction ends."""

    cutoffs: Mapping[int, datetime | None]
    usage: Mapping[int, Sequence[UsageSum]]
    late: Mapping[int, Sequence[Period]]
    unsettled: Mapping[int, Unsettled]
    with_new_keys: Collection[int]

    @classmethod
    def locked(cls, drafts: Sequence[_Draft], period: Period) -> _Books:
        """In as many queries for many accounts as for one."""
        ids = [draft.account_id for draft in drafts]
        cutoffs = lock_rollups(ids)
        usage = usage_sums_of(ids, period)
        late = changed_periods({draft.account_id: draft.others for draft in drafts}, period)
        return cls(cutoffs, usage, late, unsettled_calls(usage, period), accounts_with_new_keys(ids, period))


@dataclass(frozen=True, slots=True)
class _Reckoned:
    """What a draft holds from now on. action: what its history says of that, if anything."""

    invoice: Invoice
    lines: Sequence[InvoiceLine]
    usage: Sequence[BilledUsage]
    action: InvoiceAction | None


def _compute(drafts: Sequence[_Draft], period: Period, *, user: User | None) -> dict[int, Outcome]:
    """At most one draft an account: everything is read, then reckoned, then written."""
    if not drafts:
        return {}
    books, lookups = _Books.locked(drafts, period), Lookups()
    outcomes: dict[int, Outcome] = {}
    reckoned = []
    for draft in drafts:
        try:
            result = _reckon(draft, books, lookups)
        except BillingError as error:
            outcomes[draft.account_id] = error
            continue
        outcomes[draft.account_id] = None if result is None else draft.invoice
        if result is not None:
            reckoned.append(result)
    _write(reckoned, user=user)
    return outcomes


def _reckon(draft: _Draft, books: _Books, lookups: Lookups) -> _Reckoned | None:
    """None where a new draft would be empty. Raises BillingError."""
    invoice, account_id = draft.invoice, draft.account_id
    cutoff_at = books.cutoffs[account_id]
    if cutoff_at is None:
        raise InvoiceError(f"The usage of {invoice.account} is being summed up right now: try again in a minute.")
    set_terms(invoice, draft.profile, draft.others, lookups)
    late = books.late.get(account_id, ())
    parts = list(parts_of(invoice, books.usage[account_id], late, draft.others, lookups))
    lines = [line for part in parts for line in rows_of(invoice, part, cutoff_at)]
    usage = [row for part in parts for row in part.usage]
    is_new, before = invoice._state.adding, invoice.total
    if is_new and not lines:
        return None
    invoice.cutoff_at = cutoff_at
    set_totals(invoice, lines)
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
    return _Reckoned(invoice, lines, usage, action)


def _write(reckoned: Sequence[_Reckoned], *, user: User | None) -> None:
    """The invoices, with these lines and usage in the place of those that they had."""
    known = [each.invoice for each in reckoned if not each.invoice._state.adding]
    for invoice in known:
        invoice.save()
    if known:
        # Not delete(), which reads every line to see that no credit note cites it: the database sees that too.
        InvoiceLine.objects.filter(invoice__in=known)._raw_delete(DEFAULT_DB_ALIAS)
        BilledUsage.objects.filter(invoice__in=known)._raw_delete(DEFAULT_DB_ALIAS)
    Invoice.objects.bulk_create(each.invoice for each in reckoned if each.invoice._state.adding)
    for each in reckoned:
        for position, line in enumerate(each.lines, start=1):
            line.invoice_id, line.position = each.invoice.pk, position
        for row in each.usage:
            row.invoice_id = each.invoice.pk
    insert_rows(InvoiceLine, (line for each in reckoned for line in each.lines))
    insert_rows(BilledUsage, (row for each in reckoned for row in each.usage))
    InvoiceEvent.objects.bulk_create(
        event_of(each.invoice, each.action, "", user=user) for each in reckoned if each.action is not None
    )


def _found(invoices: Iterable[Invoice], period: Period, kind: InvoiceKind) -> Invoice | None:
    """The period's invoice of that kind, in whatever currency; of supplements only one that isn't submitted."""
    for invoice in invoices:
        if (invoice.period, invoice.kind) != (period, kind):
            continue
        if kind != InvoiceKind.SUPPLEMENT or invoice.state == InvoiceState.DRAFT:
            return invoice
    return None


def _result(outcome: Outcome) -> Invoice | None:
    if isinstance(outcome, BillingError):
        raise outcome
    return outcome
