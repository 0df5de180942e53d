"""What people see instead of a page, and that programs get JSON."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from structlog.testing import capture_logs

from llm.errors import NotFound
from llmproject.refusals import refusal

pytestmark = pytest.mark.django_db


def member_of(*groups: str) -> Client:
    user = User.objects.create_user("kim", is_staff=True)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def text_of(response: Any) -> str:
    assert "default-src 'self'" in response["Content-Security-Policy"]
    text = unescape(response.content.decode())
    assert "<style" not in text
    assert " style=" not in text
    return text


def test_a_page_one_may_not_open_says_who_may() -> None:
    response = member_of("Key managers").get("/admin/billing/invoice/")

    assert response.status_code == 403
    text = text_of(response)
    assert "You are signed in as kim." in text
    assert "Members of these groups may open it: Auditors, Billing approvers, Billing preparers." in text
    assert 'href="/admin/"' in text


def test_an_unknown_page_leads_back() -> None:
    response = member_of("Auditors").get("/admin/llm/nothing/<b>/")

    assert response.status_code == 404
    text = text_of(response)
    assert "Page not found" in text
    assert "Nothing was found at /admin/llm/nothing/<b>/" in text
    assert b"<b>" not in response.content
    assert "The overview leads to every page" in text


def test_a_failed_page_has_a_reference_that_the_log_has_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("llm.templatetags.gateway.overview_for", fail)
    client = member_of("Auditors")
    with capture_logs() as logs:
        response = client.get("/admin/")

    assert response.status_code == 500
    text = text_of(response)
    assert "Something went wrong" in text
    assert "a fault of ours" not in text
    assert response["x-request-id"] in text
    assert response["x-request-id"] in [line.get("request_id") for line in logs if line["event"] == "page.failed"]


def test_a_form_of_another_session_says_what_to_do() -> None:
    client = Client(enforce_csrf_checks=True)

    response = client.post("/admin/login/", {"login": "kim", "password": "wrong"})

    assert response.status_code == 403
    assert "Go back, reload the page and send it again." in text_of(response)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/nothing/", {"detail"}),
        ("/v1/nothing", {"error"}),
        ("/somewhere", {"error"}),
    ],
)
def test_programs_get_json(client: Client, path: str, expected: set[str]) -> None:
    response = client.get(path)

    assert response.status_code == 404
    assert response["Content-Type"].startswith("application/json")
    assert set(response.json()) == expected


def test_the_page_needs_no_database(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        response = refusal("/admin/x/", NotFound("Nothing was found there."))

    assert "Nothing was found there." in text_of(response)
