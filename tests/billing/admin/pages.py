"""People at the staff's pages of billing, and what they see there."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from billing.invoices.drafting import draft_invoice
from billing.invoices.review import approve, issue, submit
from billing.models import Invoice
from billing.periods import BillingPeriod
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_person

OCTOBER = BillingPeriod.parse("2026-10")

PREPARER = ("prepare_invoice", "view_invoice")
APPROVER = ("approve_invoice", "issue_invoice", "credit_invoice", "view_invoice")


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def sign_in(name: str, *permissions: str) -> Client:
    return client_of(make_person(name, *permissions))


def member_of(group: str) -> Client:
    user = User.objects.create_user(f"of {group}", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    return client_of(user)


def make_draft(name: str = "Acme", *, tokens: int = 1_000_000, **profile: Any) -> Invoice:
    """At 2 USD per million tokens in."""
    account = make_account(name)
    make_profile(account, **{"address": "1 Street", "email": "pay@acme.example", **profile})
    make_call(account, price=make_price(f"model of {name}"), model=f"model of {name}", prompt_tokens=tokens)
    invoice = draft_invoice(account, OCTOBER)
    assert invoice is not None
    return invoice


def make_submitted(name: str = "Acme", **values: Any) -> Invoice:
    return submit(make_draft(name, **values).pk, user=_person("pat", "prepare_invoice"))


def make_approved(name: str = "Acme", **values: Any) -> Invoice:
    return approve(make_submitted(name, **values).pk, user=_person("alex", *APPROVER))


def make_issued(name: str = "Acme", **values: Any) -> Invoice:
    return issue(make_approved(name, **values).pk, user=_person("alex", *APPROVER))


def _person(name: str, *permissions: str) -> User:
    return User.objects.filter(username=name).first() or make_person(name, *permissions)


def step_url(invoice: Invoice, step: str) -> str:
    return reverse("admin:billing_invoice_step", args=(invoice.pk, step))


def page_url(invoice: Invoice) -> str:
    return reverse("admin:billing_invoice_change", args=(invoice.pk,))


def text_of(response: Any) -> str:
    assert response.status_code == 200
    return str(response.content.decode())
