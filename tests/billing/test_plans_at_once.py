"""A plan's version doesn't change, and none is added before it, while an invoice is submitted under its terms."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.test import Client

from billing import plans
from billing.invoices.drafting import draft_invoice
from billing.invoices.review import submit
from billing.models import Invoice, Plan, PlanVersion
from billing.periods import BillingPeriod
from billing.plans import PlanVersionUsed, add_version, ensure_unused
from tests.billing.admin.plans.test_plan_admin import form
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_preparer
from tests.databases import only_on_postgresql
from tests.pages import seen_on, text_of

pytestmark = [
    pytest.mark.django_db(transaction=True),
    only_on_postgresql("SQLite has one writer at a time"),
]

OCTOBER = BillingPeriod.parse("2026-10")


@pytest.fixture
def version() -> PlanVersion:
    plan = Plan.objects.create(name="Markup")
    version = add_version(plan, effective_from=date(2026, 1, 1), markup_percent=Decimal(50))
    account = make_account()
    make_profile(account, plan=plan)
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    assert draft_invoice(account, OCTOBER) is not None
    return version


class Pause:
    """Stops who submits once the terms are read, until somebody else has tried what they want to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.terms_are_read = threading.Event()
        self.is_tried = threading.Event()
        self.is_tried.set()
        self.may_go_on = threading.Event()
        build_terms = plans.build_terms

        def read_and_wait(version: PlanVersion) -> object:
            terms = build_terms(version)
            self.terms_are_read.set()
            self.is_tried.wait(10)
            self.may_go_on.wait(0.5)
            return terms

        monkeypatch.setattr("billing.invoices.charges.build_terms", read_and_wait)


def submit_meanwhile(pause: Pause, change: Callable[[], object]) -> BaseException | None:
    """What the change ended in, which began while the invoice was being submitted."""
    preparer = make_preparer()

    def submitting() -> None:
        try:
            submit(Invoice.objects.get().pk, user=preparer)
        finally:
            connections.close_all()

    def changing() -> None:
        try:
            assert pause.terms_are_read.wait(10)
            with transaction.atomic():
                change()
                pause.may_go_on.set()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        submitted, changed = pool.submit(submitting), pool.submit(changing)
        submitted.result(30)
        return changed.exception(30)


def test_a_version_is_not_changed_under_a_submit(version: PlanVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    def change() -> None:
        ensure_unused(version)
        PlanVersion.objects.filter(pk=version.pk).update(markup_percent=Decimal(10))

    assert isinstance(submit_meanwhile(Pause(monkeypatch), change), PlanVersionUsed)
    version.refresh_from_db()
    assert (version.markup_percent, Invoice.objects.get().total) == (Decimal(50), Decimal(3))


def test_no_version_is_added_under_a_submit_of_its_month(version: PlanVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    def add() -> None:
        add_version(version.plan, effective_from=OCTOBER.start, markup_percent=Decimal(10))

    assert isinstance(submit_meanwhile(Pause(monkeypatch), add), ValidationError)
    assert PlanVersion.objects.filter(plan=version.plan).count() == 1
    assert Invoice.objects.get().plan_version == version


def test_no_version_is_moved_under_a_submit_of_its_month(
    version: PlanVersion, monkeypatch: pytest.MonkeyPatch, admin_client: Client
) -> None:
    """By the admin's form, whose own check sees no invoice yet."""
    later = add_version(version.plan, effective_from=date(2026, 12, 1), markup_percent=Decimal(10))
    page = f"/admin/billing/planversion/{later.pk}/change/"
    seen = seen_on(admin_client, page)
    answers, pause = [], Pause(monkeypatch)
    pause.is_tried.clear()

    def problems_before_the_lock(wanted: PlanVersion) -> list[str]:
        found = plans.problems_of_version(wanted)
        pause.is_tried.set()
        return found

    monkeypatch.setattr("billing.admin.plans.forms.problems_of_version", problems_before_the_lock)

    def move() -> None:
        data = form(version.plan, effective_from="2026-10-01", note="earlier")
        answers.append(text_of(admin_client.post(page, {**data, **seen})))

    assert submit_meanwhile(pause, move) is None
    later.refresh_from_db()
    assert (later.effective_from, later.note) == (date(2026, 12, 1), "")
    assert "2026-10 was already billed under this plan: start the version in a later month." in answers[0]
    assert Invoice.objects.get().plan_version == version
