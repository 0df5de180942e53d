"""What version 0.1.0 left behind goes on working with the present code: nothing of it may be lost or changed.

Each test gets a migrated database and a folder of its own (README.md tells what is in them); to check another thing of
the upgrade, add a test.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoDbBlocker, Settings

from billing import tasks
from billing.documents import render_html, render_pdf
from billing.enums import InvoiceState, JobState, MonthJobKind
from billing.exports.script import script
from billing.invoices.drafting import draft_invoice
from billing.invoices.review import approve, issue, mark_paid, submit
from billing.jobs import exports as exporting
from billing.jobs import months as monthjobs
from billing.jobs.exports import export_month
from billing.models import ExportJob, Invoice, InvoiceLine, InvoiceSeries, MonthJob
from billing.periods import BillingPeriod
from billing.verification import verify_month
from llm.alerts.outbox import send_due
from llm.alerts.webhooks import ensure_webhook_secret
from llm.audit import verify
from llm.books.reaper import reap
from llm.books.spool.replay import replay_abandoned
from llm.digests import DIGEST_FIELDS, digest_hex
from llm.models import Account, Limit, LimitWindow, Outbox, RateSet, Usage, UsageAdjustment
from tests.billing.calls import make_call
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway
from tests.upgrade.restoring import Upgraded, connected_to, copy_of, drop_database, migrate, restore

pytestmark = [pytest.mark.slow, pytest.mark.own_database, pytest.mark.xdist_group("upgrade")]

VERSION = "b634e5a"
SEPTEMBER, OCTOBER = BillingPeriod.parse("2026-09"), BillingPeriod.parse("2026-10")
NOVEMBER = OCTOBER.following
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")

# Files of an export, or kinds of a document, that a later version means to write otherwise: name -> why.
CHANGED: Mapping[str, str] = {
    "focus-1.2.csv": "FOCUS 1.2 wants ids beside names of resources, meters beside prices, and corrections as such",
    "verify_export.py": "it compares more",
    "manifest.json": "it holds the hashes of both",
}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    folder = tmp_path_factory.mktemp("upgrade") / "var"
    upgraded = restore(VERSION, folder, name=f"test_llm_upgraded_{WORKER}")
    migrate(upgraded)
    yield upgraded
    if connection.vendor == "postgresql":
        drop_database(upgraded.name)


@pytest.fixture
def upgraded(
    migrated: Upgraded, tmp_path: Path, django_db_blocker: DjangoDbBlocker, settings: Settings
) -> Iterator[Upgraded]:
    """Django's connection and folders are those of the upgraded database."""
    copy = copy_of(migrated, tmp_path / "var", name=f"{migrated.name}_copy")
    settings.LLM_SPOOL_DIR = copy.folder / "spool"
    settings.BILLING_EXPORT_DIR = copy.folder / "exports"
    with django_db_blocker.unblock(), connected_to(copy):
        yield copy
    if connection.vendor == "postgresql":
        drop_database(copy.name)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def settle_open_calls(upgraded: Upgraded) -> None:
    """As the gateway and its reaper do it after the upgrade."""
    assert replay_abandoned(upgraded.folder / "spool") == 3
    assert reap(at_once=True).reaped == 2


# --- The books --------------------------------------------------------------------------------------------------------


def test_every_row_has_the_digest_that_it_was_written_with(upgraded: Upgraded) -> None:
    for model, name in ((Usage, "usage"), (UsageAdjustment, "adjustments")):
        rows = list(model._default_manager.exclude(digest_0=None))
        found = {str(row.pk): digest_hex(getattr(row, word) for word in DIGEST_FIELDS) for row in rows}
        assert found == upgraded.expected[name]
        assert [row.pk for row in rows if not row.is_as_written] == []


def test_the_books_are_in_order(upgraded: Upgraded) -> None:
    """But for calls that are open: their process died long ago."""
    open_calls = upgraded.expected["open"]
    sentences = verify().sentences
    assert [each for each in sentences if not any(call in each for call in open_calls)] == []

    settle_open_calls(upgraded)

    assert verify().sentences == []


@pytest.mark.parametrize("period", [SEPTEMBER, OCTOBER], ids=str)
def test_the_invoices_of_a_month_are_in_order(upgraded: Upgraded, period: BillingPeriod) -> None:
    assert verify_month(period).sentences == []


def test_sums_of_the_calls_stay(upgraded: Upgraded) -> None:
    sums: dict[str, list[Any]] = {}
    for row in Usage.objects.exclude(status="open"):
        calls, prompt, completion, cost = sums.get(row.status, (0, 0, 0, None))
        cost = cost if row.cost is None else (cost or 0) + row.cost
        sums[row.status] = [calls + 1, prompt + row.prompt_tokens, completion + row.completion_tokens, cost]
    found = [[status, *row[:3], None if row[3] is None else f"{row[3]:f}"] for status, row in sorted(sums.items())]

    assert found == [row for row in upgraded.expected["sums"] if row[0] != "open"]


# --- Limits -----------------------------------------------------------------------------------------------------------


def windows_by_id() -> dict[int, tuple[int, int]]:
    """used and held."""
    return {window.pk: (window.used, window.held) for window in LimitWindow.objects.all()}


def window_of(account: str, metric: str, per: str, *, is_of_key: bool = False) -> LimitWindow:
    limit = Limit.objects.get(account__name=account, metric=metric, per=per, api_key__isnull=not is_of_key)
    return LimitWindow.objects.get(limit=limit)


def test_windows_keep_what_is_used_and_held(upgraded: Upgraded) -> None:
    expected = upgraded.expected["windows"]

    assert windows_by_id() == {window["id"]: (window["used"], window["held"]) for window in expected}
    for window in LimitWindow.objects.select_related("limit"):
        then = next(each for each in expected if each["id"] == window.pk)
        assert (window.limit_id, window.governing_limit.per, window.is_announced) == (
            then["limit_id"],
            then["per"],
            then["is_announced"],
        )
        if window.governing_limit.per != "month":
            assert window.starts_at.isoformat() == then["starts_at"]


def test_what_the_spool_knows_is_settled_and_what_it_held_is_let_go(upgraded: Upgraded) -> None:
    """Acme had four open calls: a settled, an estimated and a void one in the spool, and one that nobody knows of."""
    requests = window_of("Acme", "requests", "month")
    tokens = window_of("Acme", "tokens", "month")
    used, used_tokens = requests.used, tokens.used
    assert requests.held == 4

    assert replay_abandoned(upgraded.folder / "spool") == 3

    for window in (requests, tokens):
        window.refresh_from_db()
    assert (requests.used, requests.held) == (used + 2, 1)
    assert tokens.used == used_tokens + 1_234 + 321 + 55 + 5
    known = [UUID(call) for call, is_in_spool in upgraded.expected["open"].items() if is_in_spool]
    rows = Usage.objects.filter(pk__in=known).order_by("pk")
    assert [(row.status, row.prompt_tokens, row.completion_tokens) for row in rows] == [
        ("settled", 1_234, 321),
        ("estimated", 55, 5),
        ("void", 0, 0),
    ]
    assert list((upgraded.folder / "spool").glob("*.spool")) == []


def test_calls_that_nobody_knows_of_are_lost_and_hold_nothing(upgraded: Upgraded) -> None:
    settle_open_calls(upgraded)

    unknown = [UUID(call) for call, is_in_spool in upgraded.expected["open"].items() if not is_in_spool]
    rows = Usage.objects.filter(pk__in=unknown)
    assert {(row.status, row.outcome, row.is_billable) for row in rows} == {("estimated", "lost", False)}
    assert len(rows) == 2
    assert {held for _, held in windows_by_id().values()} == {0}


# --- Invoices, documents, exports -------------------------------------------------------------------------------------


def test_invoices_say_what_they_said(upgraded: Upgraded) -> None:
    for invoice in Invoice.objects.all():
        expected = upgraded.expected["invoices"][str(invoice.pk)]
        amounts = {name: f"{getattr(invoice, name):f}" for name in ("subtotal", "tax", "total", "cost_usd")}
        facts = {name: getattr(invoice, name) for name in ("kind", "state", "label", "content_digest")}
        lines = [[line.description, line.quantity, f"{line.amount:f}"] for line in invoice.lines.order_by("position")]
        assert {**facts, **amounts, "account": invoice.account.name, "lines": lines} == expected
    assert Invoice.objects.count() == len(upgraded.expected["invoices"])


def page_of(invoice: Invoice) -> bytes:
    return render_html(invoice).encode()


@pytest.mark.parametrize("kind", ["pdf", "html"])
def test_documents_are_the_same_bytes(upgraded: Upgraded, kind: str) -> None:
    render = render_pdf if kind == "pdf" else page_of
    documents = {int(pk): digests[kind] for pk, digests in upgraded.expected["documents"].items()}
    found = {invoice.pk: sha256(render(invoice)) for invoice in Invoice.objects.filter(pk__in=documents)}

    assert (found == documents) is (kind not in CHANGED)


def test_a_stored_document_is_the_same_bytes(upgraded: Upgraded) -> None:
    [path] = (upgraded.folder / "documents").glob("*.pdf")

    assert (render_pdf(Invoice.objects.get(pk=int(path.stem))) == path.read_bytes()) is ("pdf" not in CHANGED)


def test_a_month_exports_to_the_same_bytes(upgraded: Upgraded, tmp_path: Path) -> None:
    for job in ExportJob.objects.filter(folder__in=upgraded.expected["exports"]):
        folder = tmp_path / job.folder
        export_month(job.period, folder, job.formats, account=job.account)
        assert_same_files(folder, upgraded.expected["exports"][job.folder])
        assert check_export(folder).startswith("No differences")


def test_exports_from_then_pass_the_present_check(upgraded: Upgraded) -> None:
    """Though not all of their columns are those of today."""
    for folder in upgraded.expected["exports"]:
        found = check_export(upgraded.folder / "exports" / folder)
        assert found.startswith("No differences"), found


def check_export(folder: Path) -> str:
    report = subprocess.run(
        [sys.executable, "-I", "-c", script().decode(), str(folder)], capture_output=True, text=True, check=False
    )
    assert report.stderr == ""
    return report.stdout


def assert_same_files(folder: Path, expected: Mapping[str, str]) -> None:
    found = {path.name: sha256(path.read_bytes()) for path in folder.iterdir()}
    assert sorted(found) == sorted(expected)
    changed = {name for name, digest in found.items() if digest != expected[name]}
    assert changed == CHANGED.keys() & expected.keys()


def test_invoices_go_on(upgraded: Upgraded) -> None:
    pat, alex = User.objects.get(username="pat"), User.objects.get(username="alex")
    [approved] = Invoice.objects.filter(state=InvoiceState.APPROVED)
    [in_review] = Invoice.objects.filter(state=InvoiceState.IN_REVIEW)
    [note] = Invoice.objects.filter(state=InvoiceState.DRAFT, kind="credit_note")
    digest = approved.content_digest
    numbers = dict(InvoiceSeries.objects.values_list("name", "last_number"))

    issued = issue(approved.pk, user=alex)
    approve(in_review.pk, user=alex)
    submit(note.pk, user=pat)
    approve(note.pk, user=alex)
    issued_note = issue(note.pk, user=alex)
    [former] = Invoice.objects.filter(account__name="Globex", period_start=SEPTEMBER.start, kind="regular")
    assert issued.issued_on is not None
    mark_paid(former.pk, user=alex, paid_on=issued.issued_on)

    for document in (issued, issued_note):
        assert document.number == numbers.get(str(document.series_id), 0) + 1
    assert f"{issued.total:f}" == upgraded.expected["invoices"][str(approved.pk)]["total"]
    assert digest == upgraded.expected["invoices"][str(approved.pk)]["content_digest"]
    assert (verify_month(SEPTEMBER).sentences, verify_month(OCTOBER).sentences) == ([], [])


def test_what_old_invoices_gave_back_is_not_charged_again(upgraded: Upgraded) -> None:
    """They gave reductions back whole, whatever had been credited before."""
    note = Invoice.objects.get(account__name="Globex", kind="credit_note", state=InvoiceState.ISSUED)
    line = InvoiceLine.objects.filter(invoice=note.original, key__startswith="usage|input|cost:", unit_price__gt=0)[0]
    make_call(
        note.account,
        day=SEPTEMBER.start,
        price=RateSet.objects.get(pk=int(line.key.split("|")[2].removeprefix("cost:"))).price,
        provider=line.provider,
        model=line.model,
        prompt_tokens=1_000_000,
        key=note.account.keys.first(),
    )

    assert line.unit_price is not None
    assert late_lines(draft_invoice(note.account, NOVEMBER), SEPTEMBER) == {line.key: (1_000_000, line.unit_price)}


def test_fees_of_earlier_months_become_flagged_drafts_and_nobody_is_mailed(upgraded: Upgraded) -> None:
    """The first run after the upgrade, by the task."""
    Account.objects.update(created_at=datetime(2026, 6, 15, 12, tzinfo=UTC))
    account = Account.objects.get(name="Acme")
    before, messages = set(Invoice.objects.values_list("pk", flat=True)), Outbox.objects.count()

    tasks.close_due_months()

    drafts = Invoice.objects.exclude(pk__in=before)
    assert set(drafts.values_list("state", flat=True)) == {InvoiceState.DRAFT}
    of_fees = drafts.filter(account=account, period_start__lt=SEPTEMBER.start).order_by("period_start")
    assert [(str(each.period), each.subtotal, "catch_up" in each.flags) for each in of_fees] == [
        (f"2026-0{month}", Decimal("9.99"), True) for month in (6, 7, 8)
    ]
    assert (Outbox.objects.count(), mail.outbox) == (messages, [])


# --- What waited ------------------------------------------------------------------------------------------------------


def test_jobs_that_waited_or_were_left_by_a_dead_worker_are_done(upgraded: Upgraded) -> None:
    exporting.run_waiting()
    monthjobs.run_waiting()

    exports = ExportJob.objects.filter(pk__in=upgraded.expected["jobs"]["ExportJob"]).order_by("pk")
    assert [job.state for job in exports] == [JobState.DONE, JobState.DONE]
    whole = exports[0]
    [expected] = [upgraded.expected["exports"][job.folder] for job in ExportJob.objects.filter(pk=1)]
    assert_same_files(upgraded.folder / "exports" / whole.folder, expected)
    months = MonthJob.objects.filter(pk__in=upgraded.expected["jobs"]["MonthJob"]).order_by("pk")
    assert [(job.kind, job.state, job.findings) for job in months] == [
        (MonthJobKind.CLOSE, JobState.DONE, []),
        (MonthJobKind.VERIFY, JobState.DONE, []),
    ]


def test_messages_that_waited_are_sent_and_others_not_again(upgraded: Upgraded) -> None:
    """One was tried before, and has lost its recipient since."""
    Account.objects.filter(name="Acme").update(webhook_url="")

    send_due(now=timezone.now() + timedelta(hours=1))

    assert [message.to for message in mail.outbox] == [["globex@example.com"]]
    assert list(upgraded.expected["messages"].values()).count(False) == 3
    assert not Outbox.objects.filter(sent_at=None, given_up_at=None).exists()


# --- Who has a secret -------------------------------------------------------------------------------------------------


@pytest.fixture
def running(upgraded: Upgraded, gateway_environment: dict[str, str], upstream: FakeUpstream) -> Iterator[Gateway]:
    """A gateway of the present code, once all that was open has ended."""
    settle_open_calls(upgraded)
    with Gateway({**gateway_environment, **upgraded.environment}) as gateway:
        yield gateway


def chat(gateway: Gateway, secret: str, model: str = "gpt-4o") -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hello there"}]}
    headers = {"authorization": f"Bearer {secret}"}
    return httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code


def test_a_call_counts_in_the_window_that_is_there(upgraded: Upgraded, running: Gateway) -> None:
    """Limits of a running period would be overspent once if there were a second, empty window."""
    names = [("month", False), ("month", True)]
    before = {name: window_of("Acme", "requests", name[0], is_of_key=name[1]) for name in names}
    total = window_of("Globex", "requests", "total")

    assert chat(running, upgraded.secrets["Acme"]) == 200
    assert chat(running, upgraded.secrets["Globex"]) == 200

    for (per, is_of_key), window in before.items():
        after = window_of("Acme", "requests", per, is_of_key=is_of_key)
        assert (after.pk, after.used, after.held) == (window.pk, window.used + 1, 0)
    assert window_of("Globex", "requests", "total").used == total.used + 1
    assert verify().sentences == []


def test_old_keys_are_what_they_were(upgraded: Upgraded, running: Gateway) -> None:
    found = {
        name: chat(running, upgraded.secrets[name])
        for name in ("Hooli", "successor", "rotated, in its grace", "revoked", "restricted")
    }

    assert found == {"Hooli": 200, "successor": 200, "rotated, in its grace": 200, "revoked": 401, "restricted": 403}
    assert chat(running, upgraded.secrets["restricted"], model="m-small") == 200
    assert chat(running, upgraded.secrets["Hooli"], model="house") == 200


def test_old_tokens_of_staff_and_their_files_work(upgraded: Upgraded, running: Gateway) -> None:
    def ask(path: str) -> httpx2.Response:
        headers = {"authorization": f"Token {upgraded.secrets['token of pat']}"}
        return httpx2.get(f"{running.url}/api/v1/{path}", headers=headers, timeout=30)

    invoices = ask("invoices/")
    assert invoices.status_code == 200
    exported = ask("exports/1/files/invoices.csv/")
    assert (exported.status_code, sha256(exported.content)) == (
        200,
        upgraded.expected["exports"]["2026-09-1"]["invoices.csv"],
    )


def test_an_old_session_is_let_in_or_asked_to_sign_in(upgraded: Upgraded, running: Gateway) -> None:
    cookies = {"sessionid": upgraded.secrets["session of pat"]}
    answer = httpx2.get(f"{running.url}/admin/", cookies=cookies, timeout=30)

    assert answer.status_code in (200, 302)


def test_passwords_and_webhook_secrets_stay(upgraded: Upgraded, settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]

    assert User.objects.get(username="pat").check_password(upgraded.secrets["password"])
    assert ensure_webhook_secret(Account.objects.get(name="Acme")) == upgraded.secrets["webhook"]


# --- What comes late --------------------------------------------------------------------------------------------------


def test_late_usage_of_a_month_that_was_billed_is_the_exact_difference(upgraded: Upgraded) -> None:
    """Lines of 0.1.0 stand for one rate set each; what comes late must be set against them, to the last digit."""
    settle_open_calls(upgraded)
    line = InvoiceLine.objects.filter(
        invoice__kind="regular",
        invoice__credit_notes=None,
        invoice__state__in=(InvoiceState.ISSUED, InvoiceState.PAID),
        key__startswith="usage|input|cost:",
        unit_price__gt=0,
    ).first()
    assert line is not None
    rate_set = RateSet.objects.get(pk=int(line.key.split("|")[2].removeprefix("cost:")))
    invoice = line.invoice
    former = draft_invoice(invoice.account, NOVEMBER)
    before = late_lines(former, invoice.period)
    found = [verify_month(period).sentences for period in (SEPTEMBER, OCTOBER)]

    make_call(
        invoice.account,
        day=invoice.period.start,
        price=rate_set.price,
        provider=line.provider,
        model=line.model,
        prompt_tokens=1_234_567,
        key=invoice.account.keys.first(),
    )
    after = late_lines(draft_invoice(invoice.account, NOVEMBER), invoice.period)

    assert line.unit_price is not None
    exact = 1_234_567 * line.unit_price / 10**6
    quantity, amount = before.pop(line.key, (0, Decimal(0)))
    assert after.pop(line.key) == ((quantity or 0) + 1_234_567, amount + exact)
    assert after == before
    assert [verify_month(period).sentences for period in (SEPTEMBER, OCTOBER)] == found


def late_lines(invoice: Invoice | None, period: BillingPeriod) -> dict[str, tuple[int | None, Decimal]]:
    lines = InvoiceLine.objects.none() if invoice is None else invoice.lines.filter(period_start=period.start)
    return {line.key: (line.quantity, line.exact_amount) for line in lines}
