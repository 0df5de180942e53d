"""Prices imported and applied to past calls, reports uploaded and the ledger audited: without a console."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from billing.admin.jobs import books_admin
from billing.enums import JobState
from billing.jobs import books
from billing.models import BooksJob, CostImport
from llm.models import BooksCheck, Price, ReratingRun, UsageAdjustment
from tests.billing.admin.pages import member_of, sign_in, text_of
from tests.billing.calls import make_call
from tests.billing.factories import make_account

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

JOBS = "/admin/billing/booksjob/"
MANAGER = ("rerate_calls", "import_prices", "view_booksjob", "view_price", "add_price", "view_usage")
REPORTS = Path(__file__).parents[2] / "reports"


def run(client: Client) -> str:
    """What the page of the latest job says once a worker has done it."""
    job = books.run_books_job(BooksJob.objects.latest("id").pk)
    return text_of(client.get(reverse("admin:billing_booksjob_change", args=(job.pk,))))


def test_a_model_is_priced_and_its_past_calls_too() -> None:
    """From the list of models without a price, without leaving the browser."""
    client = sign_in("mia", *MANAGER)
    for _ in range(2):
        make_call(make_account(), model="new-model", prompt_tokens=1_000_000)
    listed = text_of(client.get("/admin/llm/price/unpriced/"))
    assert "effective_from=2026-10-15" in listed

    price = {
        "provider": "openai",
        "model": "new-model",
        "rate_input": "2",
        "effective_from_0": "",
        "effective_from": "2026-10-01T00:00",
    }
    answer = client.post("/admin/llm/price/add/", price)
    assert answer.status_code == 302, text_of(answer)
    location = answer.headers["Location"]
    assert location.startswith(f"{JOBS}rerate/?provider=openai&model=new-model&first=2026-10-1")

    form = text_of(client.get(location))
    assert 'value="new-model"' in form
    asked = {"provider": "openai", "model": "new-model", "first": "2026-10-01", "last": "2026-10-31", "reason": "none"}
    assert client.post(location, asked).status_code == 302
    preview = run(client)
    assert "2 calls, 2,000,000 tokens, would cost 4.00 USD instead of 0.00 USD." in preview
    assert "Apply to these calls" in preview
    assert not UsageAdjustment.objects.exists()

    job = BooksJob.objects.get()
    assert (job.progress, job.total) == (2, 2)
    apply = reverse("admin:billing_booksjob_apply", args=(job.pk,))
    assert client.post(apply).status_code == 302
    assert "2 calls, 2,000,000 tokens, now cost 4.00 USD instead of 0.00 USD." in run(client)
    assert client.post(apply).status_code == 302
    done = run(client)
    assert "Nothing changes: 2 calls examined." in done
    assert "Apply to these calls" not in done
    assert UsageAdjustment.objects.count() == 2
    assert ReratingRun.objects.get().started_by.username == "mia"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "asked",
    [
        {"last": "2026-09-01"},
        {"first": "2020-01-01"},
        {"first": "yesterday"},
        {"provider": "nobody"},
        {"model": ""},
        {"model": "x" * 201},
        {"reason": ""},
    ],
)
def test_a_wrong_form_asks_for_nothing(asked: dict[str, str]) -> None:
    client = sign_in("mia", *MANAGER)
    right = {"provider": "openai", "model": "m", "first": "2026-10-01", "last": "2026-10-31", "reason": "none"}
    assert "errorlist" in text_of(client.post(f"{JOBS}rerate/", {**right, **asked}))
    assert not BooksJob.objects.exists()


def test_only_a_finished_preview_is_applied() -> None:
    client = sign_in("mia", *MANAGER)
    given = {"provider": "openai", "model": "m", "first_day": "2026-10-01", "last_day": "2026-10-01", "reason": "x"}
    waiting = BooksJob.objects.create(kind="rerate", parameters={**given, "is_dry": True})
    done = BooksJob.objects.create(kind="rerate", parameters={**given, "is_dry": False}, state=JobState.DONE)
    for job in (waiting, done):
        assert client.post(reverse("admin:billing_booksjob_apply", args=(job.pk,))).status_code == 404
    assert BooksJob.objects.count() == 2


def test_the_price_list_is_imported() -> None:
    client = sign_in("mia", *MANAGER)
    assert "Import the price list" in text_of(client.get("/admin/llm/price/"))
    assert client.post(f"{JOBS}import-prices/", {"providers": ["anthropic"]}).status_code == 302
    page = run(client)
    assert "new prices" in page
    assert Price.objects.filter(provider="anthropic").exists()
    assert not Price.objects.filter(provider="openai").exists()
    assert "errorlist" in text_of(client.post(f"{JOBS}import-prices/", {"providers": []}))


def test_a_providers_report_is_uploaded() -> None:
    client = sign_in("mia", "import_costs", "view_booksjob", "view_costimport")
    assert "Import a report" in text_of(client.get("/admin/billing/costimport/"))
    for said in ("rows of", "already imported"):
        file = SimpleUploadedFile("costs.json", (REPORTS / "openai_costs.json").read_bytes())
        assert client.post(f"{JOBS}import-costs/", {"provider": "openai", "file": file}).status_code == 302
        assert said in run(client)
    assert CostImport.objects.get().file_name == "costs.json"
    broken = SimpleUploadedFile("broken.json", b'{"data": [')
    client.post(f"{JOBS}import-costs/", {"provider": "openai", "file": broken})
    assert "broken.json was not imported." in run(client)
    assert {bytes(job.content) for job in BooksJob.objects.all()} == {b""}


def test_a_report_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books_admin, "MAX_REPORT_BYTES", 1024**2)
    client = sign_in("mia", "import_costs", "view_booksjob", "view_costimport")
    file = SimpleUploadedFile("large.json", b" " * (1024**2 + 1))
    assert "larger than 1 MB" in text_of(client.post(f"{JOBS}import-costs/", {"provider": "openai", "file": file}))
    assert not BooksJob.objects.exists()


def test_the_ledger_is_audited() -> None:
    client = sign_in("mia", "audit_books", "view_booksjob", "view_bookscheck")
    make_call(make_account(), prompt_tokens=5)
    assert "Audit the ledger" in text_of(client.get("/admin/llm/bookscheck/"))
    assert client.post(f"{JOBS}audit/").status_code == 302
    page = run(client)
    assert "1 call and" in page
    assert BooksCheck.objects.count() == 1
    assert "Ledger audit" in text_of(client.get(JOBS))


@pytest.mark.parametrize(
    ("group", "pages"),
    [
        ("Price managers", {"rerate", "import-prices", "import-costs"}),
        ("Billing preparers", {"import-costs", "audit"}),
        ("Auditors", set()),
        ("Key managers", set()),
    ],
)
def test_each_page_needs_its_permission(group: str, pages: set[str]) -> None:
    client = member_of(group)
    every = ("rerate", "import-prices", "import-costs", "audit")
    assert {name for name in every if client.get(f"{JOBS}{name}/").status_code == 200} == pages
    assert client.get(JOBS).status_code == (403 if group == "Key managers" else 200)
