"""Changes to billing's tables that the database refuses: of what was submitted or issued, or is used by an invoice."""

from __future__ import annotations

from collections.abc import Iterator

from billing.models import BilledUsage, Invoice, InvoiceLine, OneOffLine, PlanVersion
from billing.models.invoices import CONTENT_VERSION
from llm.db.triggers import Trigger

_ISSUED = "('issued', 'paid')"
_PAID_FIELDS = ("state", "paid_on")

# From submit on, content and submitter are fixed: only the state may still move on.
_COURSE_FIELDS = frozenset(
    {
        *("state", "series_id", "number", "content_digest", "approved_digest", "approved_by_id", "approved_at"),
        *("issued_at", "issued_on", "due_on", "paid_on"),
    }
)


def _changes(names: Iterator[str]) -> str:
    return " OR ".join(f"OLD.{name} {{is_not}} NEW.{name}" for name in names)


def _columns(model: type[Invoice | OneOffLine | PlanVersion]) -> list[str]:
    return [str(field.column) for field in model._meta.concrete_fields]


_CONTENT = _changes(name for name in _columns(Invoice) if name not in _COURSE_FIELDS)
_ALL_BUT_PAID = _changes(name for name in _columns(Invoice) if name not in _PAID_FIELDS)


def triggers() -> Iterator[Trigger]:
    yield from _of_invoices()
    for model in (InvoiceLine, BilledUsage):
        yield from _of_content(model._meta.db_table)
    yield from _of_plans()
    for table, text in (
        ("billing_invoiceevent", "what was done to an invoice is never changed: more can be added"),
        ("billing_exchangerate", "a rate of exchange is never changed: add another"),
        ("billing_archivedpdf", "a document that was sent is never changed"),
        ("billing_payment", "a payment is never changed: undo it, and record another"),
    ):
        yield from (Trigger(table, event, text) for event in ("UPDATE", "DELETE"))
    yield from _of_one_offs()
    numbers = "numbers of invoices are given once, one after the other"
    yield Trigger(
        "billing_invoiceseries", "UPDATE", numbers, "NEW.last_number <= OLD.last_number OR NEW.name <> OLD.name"
    )
    yield Trigger("billing_invoiceseries", "DELETE", numbers)


def _of_invoices() -> Iterator[Trigger]:
    yield Trigger(
        "billing_invoice",
        "UPDATE",
        "an issued invoice is never changed: make a credit note",
        f"OLD.state IN {_ISSUED} AND (NEW.state NOT IN {_ISSUED} OR NEW.state = OLD.state OR {_ALL_BUT_PAID})",
    )
    yield Trigger(
        "billing_invoice",
        "UPDATE",
        "a paid invoice stays paid: undo its payment",
        "OLD.state = 'paid' AND NEW.state = 'issued'",
        lookup="NOT EXISTS (SELECT 1 FROM billing_payment WHERE invoice_id = OLD.id AND reverses_id IS NOT NULL)",
    )
    yield Trigger(
        "billing_invoice",
        "UPDATE",
        "an invoice under review is not changed: send it back first",
        f"OLD.state IN ('in_review', 'approved') AND NEW.state <> 'draft' AND ({_CONTENT})",
    )
    yield Trigger("billing_invoice", "UPDATE", "a void invoice stays void", "OLD.state = 'void'")
    # Or a version's check could be avoided by making it a former one.
    yield Trigger(
        "billing_invoice",
        "UPDATE",
        "the version of what an invoice says is never lowered",
        "NEW.content_version < OLD.content_version",
    )
    yield Trigger(
        "billing_invoice",
        "INSERT",
        "a new invoice has the present version of what it says",
        f"NEW.content_version <> {CONTENT_VERSION}",
    )
    yield Trigger("billing_invoice", "DELETE", "an invoice is never deleted: void it")


def _of_one_offs() -> Iterator[Trigger]:
    content = _changes(name for name in _columns(OneOffLine) if name not in ("removed_at", "removed_by_id"))
    text = "a one-off line is never changed: remove it, and add another"
    yield Trigger("billing_oneoffline", "UPDATE", text, f"OLD.removed_at IS NOT NULL OR {content}")
    yield Trigger("billing_oneoffline", "DELETE", text)


def _of_content(table: str) -> Iterator[Trigger]:
    """Rows that belong to an invoice change only while it is a draft, and never move to another invoice."""
    for event, rows in (("INSERT", ("NEW",)), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD",))):
        invoices = ", ".join(f"{row}.invoice_id" for row in rows)
        yield Trigger(
            table,
            event,
            "what an invoice says changes only while it is a draft",
            lookup=f"EXISTS (SELECT 1 FROM billing_invoice WHERE id IN ({invoices}) AND state <> 'draft')",  # noqa: S608
        )


def _of_plans() -> Iterator[Trigger]:
    """Like `billing.plans.is_used`: late usage, and what was billed again, refers to its version only on lines."""
    text = "invoices stand on this version of the plan: add a version"
    for event in ("UPDATE", "DELETE"):
        yield Trigger("billing_planversion", event, text, lookup=_is_used("OLD.id"))
    for event, rows in (("INSERT", ("NEW",)), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD",))):
        versions = ", ".join(f"{row}.version_id" for row in rows)
        yield Trigger("billing_planrate", event, text, lookup=_is_used(versions))


def _is_used(versions: str) -> str:
    frozen = "state NOT IN ('draft', 'void')"
    invoices = f"SELECT 1 FROM billing_invoice WHERE plan_version_id IN ({versions}) AND {frozen}"  # noqa: S608
    lines = (
        "SELECT 1 FROM billing_invoiceline JOIN billing_invoice ON billing_invoice.id = invoice_id "  # noqa: S608
        f"WHERE billing_invoiceline.plan_version_id IN ({versions}) AND {frozen}"
    )
    return f"EXISTS ({invoices}) OR EXISTS ({lines})"
