from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client

from billing.models import Invoice
from billing.staff.roles import GROUPS, make_groups, name_permissions
from tests.billing.admin.pages import make_draft, make_submitted, member_of, step_url
from tests.pages import send

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

PAGES = {
    "queue": "/admin/billing/invoice/",
    "close": "/admin/billing/invoice/close/",
    "export": "/admin/billing/exportjob/run/",
    "exports": "/admin/billing/exportjob/",
    "profiles": "/admin/billing/billingprofile/",
    "add profile": "/admin/billing/billingprofile/add/",
    "rates": "/admin/billing/exchangerate/",
    "add rate": "/admin/billing/exchangerate/add/",
    "plans": "/admin/billing/plan/",
    "add plan": "/admin/billing/plan/add/",
    "versions": "/admin/billing/planversion/",
    "days": "/admin/billing/dailyusage/",
    "imports": "/admin/billing/costimport/",
    "usage": "/admin/llm/usage/",
    "keys": "/admin/llm/apikey/",
    "add key": "/admin/llm/apikey/add/",
    "limits": "/admin/llm/limit/",
    "add limit": "/admin/llm/limit/add/",
    "routes": "/admin/llm/modelroute/",
    "checks": "/admin/llm/bookscheck/",
    "prices": "/admin/llm/price/",
    "add price": "/admin/llm/price/add/",
    "jobs": "/admin/billing/booksjob/",
    "users": "/admin/auth/user/",
}
OPEN = {
    "Key managers": {"usage", "keys", "add key", "limits", "add limit", "routes"},
    "Billing preparers": {
        *("queue", "close", "export", "exports", "profiles", "add profile", "rates", "add rate"),
        *("plans", "add plan", "versions", "days", "imports", "usage", "keys", "jobs"),
    },
    "Billing approvers": {
        *("queue", "exports", "profiles", "rates", "plans", "versions", "days", "imports", "usage", "keys"),
        "jobs",
    },
    "Price managers": {"imports", "usage", "keys", "prices", "add price", "jobs"},
    "Auditors": {
        *("jobs", "queue", "exports", "profiles", "rates", "plans", "versions", "days", "imports"),
        *("usage", "keys", "limits", "routes", "checks", "prices"),
    },
}


@pytest.mark.parametrize("group", list(OPEN))
def test_what_each_group_may_open(group: str) -> None:
    client = member_of(group)

    found = {name for name, url in PAGES.items() if client.get(url).status_code == 200}

    assert found == OPEN[group]


def press(client: Client, invoice: Invoice, step: str) -> int:
    status: int = send(client, step_url(invoice, step), {"reason": "tested"}).status_code
    return status


def test_preparers_prepare_and_approvers_approve() -> None:
    preparer, approver = member_of("Billing preparers"), member_of("Billing approvers")
    draft = make_draft()

    assert press(approver, draft, "submit") == 403
    assert press(preparer, draft, "submit") == 302
    assert press(preparer, draft, "approve") == 403
    assert press(approver, draft, "approve") == 302
    assert press(preparer, draft, "issue") == 403
    assert press(approver, draft, "issue") == 302
    draft.refresh_from_db()
    assert draft.state == "issued"


@pytest.mark.parametrize("group", ["Auditors", "Key managers"])
def test_others_press_nothing(group: str) -> None:
    invoice = make_submitted()
    client = member_of(group)

    for step in ("submit", "approve", "issue", "void", "send_back", "credit", "bill_again", "recompute", "pay"):
        assert press(client, invoice, step) == 403

    invoice.refresh_from_db()
    assert invoice.state == "in_review"


def test_auditors_change_nothing_at_all() -> None:
    permissions = set(Group.objects.get(name="Auditors").permissions.values_list("codename", flat=True))

    assert {codename.partition("_")[0] for codename in permissions} == {"view"}


def test_groups_are_made_once_and_what_was_changed_of_them_stays() -> None:
    auditors = Group.objects.get(name="Auditors")
    auditors.permissions.clear()
    Group.objects.get(name="Key managers").delete()

    make_groups()
    make_groups()

    assert auditors.permissions.count() == 0
    assert Group.objects.get(name="Key managers").permissions.count() == 16
    assert set(Group.objects.values_list("name", flat=True)) == set(GROUPS)


def test_permissions_are_called_what_they_are_called_now_and_people_keep_them(
    django_assert_num_queries: Any,
) -> None:
    ours = Permission.objects.filter(content_type__app_label__in=("llm", "billing"))
    names = dict(ours.values_list("pk", "name"))
    with django_assert_num_queries(1):
        name_permissions()
    assert dict(ours.values_list("pk", "name")) == names
    prepares = Permission.objects.get(codename="prepare_invoice")
    group = Group.objects.get(name="Billing preparers")
    ours.filter(codename__in=("prepare_invoice", "view_usage", "run_export")).update(name="Can recompute")
    name_permissions()
    assert dict(ours.values_list("pk", "name")) == names
    assert names[prepares.pk] == "Can draft, recalculate, submit and send back invoices"
    assert prepares in group.permissions.all()
