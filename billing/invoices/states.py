"""From which states of the books a document's usage is made.

What a document bills for a month is the month's usage at its own cutoff, less what the documents that counted at that
moment had billed; a correction takes back what its invoice billed. A document counts from its submission until it is
sent back or voided, a correction from its issue. So what a document billed stays the same whatever became of others
since: their histories say which of them counted when.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from billing.enums import InvoiceAction, InvoiceState
from billing.models import Invoice, InvoiceEvent

_COMPUTED = (InvoiceAction.DRAFT, InvoiceAction.RECOMPUTE, InvoiceAction.SUBMIT)
_Place = tuple[int, float, int]
"""A point in the account's history: the id of an event or, if there is none, cutoff and document."""


@dataclass(frozen=True, slots=True)
class BookState:
    """The books as a document billed them: all that was recorded by the cutoff."""

    document_id: int
    cutoff_at: datetime


States = Mapping[BookState, int]
"""State -> how often it counts: 1, or -1 where it is subtracted."""


@dataclass(frozen=True, slots=True)
class _Stay:
    """The time in which a document counted: from its submission (a correction: its issue) until it was withdrawn."""

    document: Invoice
    state: BookState
    since: _Place
    until: InvoiceEvent | None = None

    @property
    def was_sent_back(self) -> bool:
        return self.until is not None and self.until.action == InvoiceAction.SEND_BACK

    def counted_at(self, place: _Place) -> bool:
        return self.since < place and (self.until is None or place < _place(self.until, self.state))


def count_states(invoice: Invoice, documents: Iterable[Invoice]) -> dict[BookState, int]:
    """invoice: one with a cutoff. documents: all of its account and currency that bill the same months, void too."""
    own = _own_stay(invoice)
    # Its own earlier submissions, which were sent back, affected what others billed meanwhile.
    stays = sorted(
        (each for each in _stays(documents) if each.document.pk != invoice.pk or each.was_sent_back),
        key=lambda stay: stay.since,
    )
    before = [stay for stay in stays if _counted_for(stay, own)]
    found: dict[_Stay, States] = {}
    for stay in (*stays, own):
        others = before if stay is own else [each for each in found if each.counted_at(stay.since)]
        found[stay] = _states(stay, {each: found[each] for each in others})
    return {state: times for state, times in found[own].items() if times}


def _states(stay: _Stay, others: Mapping[_Stay, States]) -> States:
    """others: those that counted when it was computed."""
    document = stay.document
    if document.is_correction:
        original_id = document.original_id
        taken_back = (each for each in others if original_id in (each.document.pk, each.document.original_id))
        return _negative_sum(others[each] for each in taken_back)
    own = _negative_sum(others.values())
    own[stay.state] = own.get(stay.state, 0) + 1
    return own


def _negative_sum(parts: Iterable[States]) -> dict[BookState, int]:
    total: dict[BookState, int] = defaultdict(int)
    for part in parts:
        for state, times in part.items():
            total[state] -= times
    return dict(total)


def _stays(documents: Iterable[Invoice]) -> Iterator[_Stay]:
    by_id = {each.pk: each for each in documents if each.cutoff_at is not None}
    histories = _histories(by_id)
    for pk, document in by_id.items():
        yield from _stays_of(document, histories[pk])


def _stays_of(document: Invoice, history: Sequence[InvoiceEvent]) -> Iterator[_Stay]:
    """A document's last submission has its current cutoff; earlier ones, which were sent back, have their events'."""
    begins = InvoiceAction.ISSUE if document.is_correction else InvoiceAction.SUBMIT
    open_since: InvoiceEvent | None = None
    for event in history:
        if event.action == begins:
            open_since = event
        elif open_since is not None and event.action == InvoiceAction.SEND_BACK:
            yield _stay(document, open_since, event.cutoff_at or open_since.cutoff_at or open_since.at, event)
            open_since = None
        elif open_since is not None and event.action == InvoiceAction.VOID:
            yield _stay(document, open_since, _cutoff(document), event)
            open_since = None
    if open_since is not None:
        yield _stay(document, open_since, _cutoff(document), None)
    elif document.is_frozen and not history and not document.is_correction:
        state = BookState(document.pk, _cutoff(document))
        yield _Stay(document, state, _place(None, state))


def _stay(document: Invoice, since: InvoiceEvent, cutoff_at: datetime, until: InvoiceEvent | None) -> _Stay:
    state = BookState(document.pk, cutoff_at)
    return _Stay(document, state, _place(since, state), until)


def _own_stay(invoice: Invoice) -> _Stay:
    """The document as it is now, draft or not. A correction counts what existed when it was made."""
    steps = (InvoiceAction.DRAFT,) if invoice.is_correction else _COMPUTED
    events = InvoiceEvent.objects.filter(invoice=invoice, action__in=steps).order_by("id")
    state = BookState(invoice.pk, _cutoff(invoice))
    return _Stay(invoice, state, _place(events.last(), state))


def _counted_for(stay: _Stay, own: _Stay) -> bool:
    """A draft can be recomputed without an entry in its history: then the cutoff decides too."""
    if own.document.state != InvoiceState.DRAFT or own.document.is_correction:
        return stay.counted_at(own.since)
    is_before = stay.since < own.since or stay.state.cutoff_at < own.state.cutoff_at
    return is_before and (stay.until is None or stay.until.at > own.state.cutoff_at)


def _histories(document_ids: Iterable[int]) -> Mapping[int, list[InvoiceEvent]]:
    found: defaultdict[int, list[InvoiceEvent]] = defaultdict(list)
    for event in InvoiceEvent.objects.filter(invoice__in=list(document_ids)).order_by("id"):
        found[event.invoice_id].append(event)
    return found


def _place(event: InvoiceEvent | None, state: BookState) -> _Place:
    return (0 if event is None else event.pk, state.cutoff_at.timestamp(), state.document_id)


def _cutoff(document: Invoice) -> datetime:
    return cast("datetime", document.cutoff_at)
