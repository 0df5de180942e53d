from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from llm.models import Outbox
from tests.llm.admin.factories import make_account, make_limit, make_message, messages_of, staff_with
from tests.pages import confirm, seen_on, send

pytestmark = pytest.mark.django_db

LIST = "/admin/llm/outbox/"
LONG_AGO = timezone.now() - timedelta(days=4)


def given_up(account: Any, cause: str = "given up") -> Outbox:
    return make_message(
        account,
        cause,
        created_at=LONG_AGO,
        due_at=LONG_AGO,
        given_up_at=LONG_AGO,
        attempts=9,
        last_result="answered 500",
    )


def test_messages_and_their_states(admin_client: Client) -> None:
    account, now = make_account(), timezone.now()
    rows = {
        "waiting": make_message(account, "waiting", payload={"note": "<b>"}),
        "sent": make_message(account, "sent", sent_at=now, attempts=1, last_result="to ops@example.com"),
        "unaddressed": make_message(account, "unaddressed", sent_at=now, attempts=1, last_result="no recipient"),
        "given_up": given_up(account),
    }

    page = admin_client.get(LIST).content.decode()
    found = {state: list(admin_client.get(LIST, {"state": state}).context["cl"].result_list) for state in rows}

    assert found == {state: [row] for state, row in rows.items()}
    assert page.count('gw-badge-good">sent<') == 1
    assert 'gw-badge-mute">no recipient<' in page
    for text in ("limit.threshold", "to ops@example.com", "answered 500", "failed"):
        assert text in page
    detail = admin_client.get(f"{LIST}{rows['waiting'].pk}/change/").content.decode()
    assert "&quot;note&quot;: &quot;&lt;b&gt;&quot;" in detail


def test_a_mail_is_shown_as_its_receiver_reads_it(admin_client: Client) -> None:
    account = make_account(alert_email="ops@acme.example")
    limit = make_limit(account)
    payload = {
        "limit_id": limit.pk,
        "api_key_id": None,
        "metric": "tokens",
        "per": "month",
        "amount": 1000,
        "used": 900,
        "percent": 80,
        "window_starts_at": "2026-11-01T00:00:00+00:00",
    }
    mail = make_message(account, payload=payload)
    webhook = make_message(account, "hook", kind="webhook", payload=payload)

    page = admin_client.get(f"{LIST}{mail.pk}/change/").content.decode()
    assert "To ops@acme.example." in page
    assert "You will get this alert once per period." in page
    assert "If it is sent, it reads like this." in page
    page = admin_client.get(f"{LIST}{webhook.pk}/change/").content.decode()
    assert "To no one: the account has no webhook" in page
    assert "&quot;used&quot;: 900" in page


def test_a_message_that_was_given_up_is_sent_again(admin_client: Client) -> None:
    message = given_up(make_account())
    url = f"{LIST}{message.pk}/action/send_again/"

    assert url in admin_client.get(f"{LIST}{message.pk}/change/").content.decode()
    assert "It is queued for immediate delivery." in admin_client.get(url).content.decode()
    assert Outbox.objects.filter(given_up_at__isnull=False).exists()

    response = send(admin_client, url)

    message.refresh_from_db()
    assert messages_of(response) == ["1 message queued again."]
    assert message.given_up_at is None
    assert timezone.now() - message.due_at < timedelta(minutes=1)
    assert message.attempts == 9
    assert LogEntry.objects.get().change_message == "Queued again."


def test_only_those_that_were_given_up_are_sent_again(admin_client: Client) -> None:
    account, now = make_account(), timezone.now()
    due_at = now + timedelta(hours=1)
    messages = [
        given_up(account),
        make_message(account, "waiting", due_at=due_at),
        make_message(account, "sent", due_at=due_at, sent_at=now),
    ]
    form: dict[str, Any] = {"action": "send_again", "_selected_action": [message.pk for message in messages]}

    response = confirm(admin_client, LIST, form)

    assert messages_of(response) == ["1 message queued again."]
    assert Outbox.objects.filter(due_at=due_at).count() == 2


def test_what_was_sent_meanwhile_is_not_sent_again(admin_client: Client) -> None:
    message = given_up(make_account())
    url = f"{LIST}{message.pk}/action/send_again/"
    seen = seen_on(admin_client, url)
    Outbox.objects.update(given_up_at=None, sent_at=timezone.now())

    response = admin_client.post(url, seen)

    assert messages_of(response) == [
        "1 message was changed since this page was opened, and was left as it is. Look at it and try again."
    ]
    assert Outbox.objects.get().due_at == LONG_AGO


def test_a_message_can_not_be_edited(admin_client: Client) -> None:
    message = given_up(make_account())

    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert admin_client.post(f"{LIST}{message.pk}/change/", {"cause": "x"}).status_code == 403
    assert admin_client.post(f"{LIST}{message.pk}/delete/", {"post": "yes"}).status_code == 403
    assert 'name="_save"' not in admin_client.get(f"{LIST}{message.pk}/change/").content.decode()


@pytest.mark.parametrize(
    ("permissions", "seen", "sent"),
    [((), 403, 403), (("view_outbox",), 200, 403), (("change_outbox",), 200, 302)],
)
def test_permissions_hold_in_every_view(permissions: tuple[str, ...], seen: int, sent: int) -> None:
    message = given_up(make_account())
    client, page = staff_with(*permissions), f"{LIST}{message.pk}/"

    assert [client.get(url).status_code for url in (LIST, f"{page}change/")] == [seen, seen]
    assert send(client, f"{page}action/send_again/").status_code == sent
    assert Outbox.objects.filter(given_up_at=None).exists() is (sent == 302)


def test_the_list_takes_as_many_queries_for_50_messages_as_for_one(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(50):
        make_message(make_account(f"account {number}"), f"cause {number}")

    with django_assert_max_num_queries(6):
        response = admin_client.get(LIST)

    assert len(response.context["cl"].result_list) == 50
