"""Protected rows against writes that delete past a DELETE trigger, by whatever client, and against migrations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from hashlib import sha256

import pytest
from django.db import IntegrityError, connection, models, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from billing.enums import InvoiceKind, InvoiceState
from billing.invoices.numbering import next_number
from billing.models import ArchivedPdf, Invoice, InvoiceLine, PlanVersion
from llm.audit import verify_recent
from llm.db.triggers import install_triggers, make_way_for_migrations, missing_triggers, tables_that_lose_no_row
from llm.models import Redaction, Usage
from tests.billing.october import OCTOBER, make_october
from tests.databases import only_on_postgresql, only_on_sqlite

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

PROTECTED = sorted({*tables_that_lose_no_row(), "billing_invoiceline", "billing_billedusage", "billing_planversion"})
only_sqlite = only_on_sqlite("REPLACE is SQLite's")
only_postgresql = only_on_postgresql("SQLite has no TRUNCATE")


@pytest.fixture(autouse=True)
def _books() -> None:
    make_october()
    verify_recent()
    issued = Invoice.objects.filter(state=InvoiceState.ISSUED)[0]
    ArchivedPdf.objects.create(invoice=issued, content=b"%PDF", digest=sha256(b"%PDF").hexdigest())
    Redaction.objects.create(usage_id=Usage.objects.values_list("pk")[0][0], field="error", redacted_at=timezone.now())


@pytest.fixture
def other_client() -> Iterator[CursorWrapper]:
    """As `sqlite3` opens a database: where rows are replaced no DELETE trigger runs."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA recursive_triggers = OFF")
        yield cursor
        cursor.execute("PRAGMA recursive_triggers = ON")


def rows_of(*tables: str) -> list[object]:
    with connection.cursor() as cursor:
        found: list[object] = []
        for table in tables:
            cursor.execute(f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608
            found += cursor.fetchall()
    return found


def assert_refused(sql: str, *parameters: str | int | date) -> None:
    """With nothing changed."""
    before = rows_of(*PROTECTED)
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
    assert rows_of(*PROTECTED) == before


def copied(model: type[models.Model], values: Mapping[str, str]) -> tuple[str, str]:
    """The columns of a table, and what a row gets that is another one's but for these values."""
    columns = [str(field.column) for field in model._meta.concrete_fields]
    return ", ".join(columns), ", ".join(values.get(column, column) for column in columns)


@only_postgresql
def test_no_table_is_emptied_at_once() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    before = rows_of(*PROTECTED)
    # Without CASCADE a table that others point at is refused by the server itself.
    refused = pytest.raises(Exception, match=r"never removed|referenced in a foreign key")
    for sql in (f"TRUNCATE {table}{how}" for table in PROTECTED for how in ("", " CASCADE")):
        with refused, transaction.atomic():
            connection.cursor().execute(sql)
        assert rows_of(*PROTECTED) == before, sql


@only_sqlite
def test_no_row_is_replaced_by_itself(other_client: CursorWrapper) -> None:
    for table in PROTECTED:
        if table != "llm_bookscheck":
            assert_refused(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")  # noqa: S608


@only_sqlite
def test_a_draft_does_not_replace_the_issued_invoice_of_its_month(other_client: CursorWrapper) -> None:
    """They have the account and the month in common, not the id."""
    values = {"id": "NULL", "state": "'draft'", "series_id": "NULL", "number": "NULL", "issued_at": "NULL"}
    columns, picked = copied(Invoice, {**values, "paid_on": "NULL"})
    assert_refused(
        f"INSERT OR REPLACE INTO billing_invoice ({columns}) SELECT {picked} FROM billing_invoice "  # noqa: S608
        "WHERE kind = 'regular' LIMIT 1"
    )


@only_sqlite
def test_a_draft_is_not_moved_onto_an_issued_invoice(other_client: CursorWrapper) -> None:
    acme = Invoice.objects.get(account__name="Acme", kind="regular")
    draft = Invoice.objects.create(
        account=acme.account,
        period_start=OCTOBER.following.start,
        currency="EUR",
        plan_version=acme.plan_version,
    )
    assert_refused("UPDATE OR REPLACE billing_invoice SET period_start = %s WHERE id = %s", OCTOBER.start, draft.pk)
    assert_refused("UPDATE OR REPLACE billing_invoice SET id = %s WHERE id = %s", acme.pk, draft.pk)
    # A draft may go where nobody is.
    Invoice.objects.filter(pk=draft.pk).update(period_start=OCTOBER.following.following.start)


@only_sqlite
def test_a_line_of_an_issued_invoice_does_not_go_to_a_draft(other_client: CursorWrapper) -> None:
    line = InvoiceLine.objects.filter(invoice__state=InvoiceState.ISSUED)[0]
    draft = Invoice.objects.create(
        account=line.invoice.account,
        period_start=OCTOBER.following.start,
        currency="EUR",
        plan_version=line.plan_version,
    )
    columns, picked = copied(InvoiceLine, {"invoice_id": str(draft.pk)})
    assert_refused(
        f"INSERT OR REPLACE INTO billing_invoiceline ({columns}) SELECT {picked} FROM billing_invoiceline "  # noqa: S608
        "WHERE id = %s",
        line.pk,
    )


@only_sqlite
def test_a_call_is_not_replaced_by_its_hidden_row_number(other_client: CursorWrapper) -> None:
    columns, picked = copied(Usage, {"id": "'00000000000000000000000000000007'"})
    assert_refused(
        f"INSERT OR REPLACE INTO llm_usage (rowid, {columns}) SELECT rowid, {picked} FROM llm_usage LIMIT 1"  # noqa: S608
    )


def test_numbers_are_neither_taken_back_nor_deleted() -> None:
    assert_refused("UPDATE billing_invoiceseries SET last_number = last_number - 1")
    assert_refused("DELETE FROM billing_invoiceseries")
    [issued] = Invoice.objects.filter(state=InvoiceState.PAID)
    assert issued.issued_on is not None
    series, number, _ = next_number(InvoiceKind(issued.kind), issued.issued_on)
    assert number == series.last_number


def test_a_migration_may_make_a_table_anew() -> None:
    """SQLite does so for nearly every change, and refuses it where a trigger of another table names this one."""
    make_way_for_migrations(plan=["one"])
    assert bool(missing_triggers()) is (connection.vendor == "sqlite")

    install_triggers()
    make_way_for_migrations(plan=[])
    assert missing_triggers() == []
    assert PlanVersion.objects.exists()
