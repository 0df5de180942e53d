"""Messages go out at least once, with one id, whoever dies meanwhile; and one that can't go holds up no other."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import structlog
from django.core import mail
from django.db import OperationalError, connection
from pytest_django import Settings
from structlog.testing import capture_logs

from llm.alerts import outbox, webhooks
from llm.alerts.outbox import KEPT, LEASE, PATIENCE, SendReport, pause_after, prune_sent, send_due
from llm.alerts.webhooks import sign
from llm.enums import OutboxKind
from llm.models import Account, Outbox
from llm.secretstore import seal, unseal
from tests.llm.payloads import THRESHOLD
from tests.llm.receivers import Receiver, running_mailbox, running_receiver, unused_port

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = "whsec_dGhpcnR5LXR3byBieXRlcyBvZiBhIHRlc3QsIHllcyE="
NOTHING = SendReport(sent=0, unaddressed=0, failed=0, given_up=0)


@pytest.fixture(autouse=True)
def _nobody_by_default(settings: Settings) -> None:
    settings.LLM_ALERT_EMAIL = settings.LLM_WEBHOOK_URL = settings.LLM_WEBHOOK_SECRET = ""


@pytest.fixture
def log() -> Any:
    with capture_logs() as entries:
        # Loggers keep what they were first bound with.
        outbox._log = structlog.get_logger("llm.outbox")
        yield entries
    outbox._log = structlog.get_logger("llm.outbox")


@pytest.fixture
def receiver() -> Any:
    with running_receiver() as receiver:
        yield receiver


def an_account(name: str = "acme", **changes: Any) -> Account:
    return Account.objects.get_or_create(name=name, defaults=changes)[0]


def a_message(kind: OutboxKind = OutboxKind.MAIL, **changes: Any) -> Outbox:
    values = {
        "kind": kind,
        "cause": f"limit:3:20261101T000000Z:{kind}",
        "event": "limit.threshold",
        "payload": THRESHOLD,
        "created_at": NOW,
        "due_at": NOW,
        **changes,
    }
    return Outbox.objects.create(**{"account": values.get("account") or an_account(), **values})


def sent(count: int = 1) -> SendReport:
    return SendReport(sent=count, unaddressed=0, failed=0, given_up=0)


def failed(count: int = 1) -> SendReport:
    return SendReport(sent=0, unaddressed=0, failed=count, given_up=0)


def reread(message: Outbox) -> Outbox:
    return Outbox.objects.get(pk=message.pk)


class Killed(BaseException):
    """What nothing in the sender catches, as nothing catches kill -9."""


def kill_the_next_sender(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    """One that has claimed a message and not sent it."""

    def die(message: Outbox, moment: datetime) -> str:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_send", die)
        with pytest.raises(Killed):
            send_due(now=now)


# --- Mail -------------------------------------------------------------------------------------------------------------


def test_a_mail_goes_to_the_address_of_the_account(settings: Settings) -> None:
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    settings.DEFAULT_FROM_EMAIL = "LLM gateway <llm@gateway.example.com>"
    message = a_message(account=an_account(alert_email="team@example.com"))

    assert send_due(now=NOW) == sent()

    [letter] = mail.outbox
    assert (letter.to, letter.from_email) == (["team@example.com"], "LLM gateway <llm@gateway.example.com>")
    assert letter.subject == "[LLM gateway] acme has used 82 % of 1,000,000 tokens per month"
    assert "Used:          823,456 tokens\n" in letter.body
    assert letter.extra_headers["Auto-Submitted"] == "auto-generated"
    message = reread(message)
    assert (message.sent_at, message.attempts, message.last_result) == (NOW, 1, "to team@example.com")


def test_an_account_without_an_address_leaves_its_mail_to_the_operator(settings: Settings) -> None:
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    a_message()
    assert send_due(now=NOW) == sent()
    assert [letter.to for letter in mail.outbox] == [["operator@example.com"]]


def test_a_mail_reaches_a_mail_server(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.DEFAULT_FROM_EMAIL = "llm@gateway.example.com"
    account = an_account("Zoë\nBcc: everybody@example.com", alert_email="team@example.com")
    message = a_message(account=account)
    with running_mailbox() as mailbox:
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", mailbox.port
        assert send_due(now=NOW) == sent()

    [letter] = mailbox.mails
    assert mailbox.recipients == ["team@example.com"]
    assert letter["Subject"].strip() == (
        "[LLM gateway] Zoë Bcc: everybody@example.com has used 82 % of 1,000,000 tokens per month"
    )
    assert (letter["From"], letter["To"], letter["Bcc"]) == ("llm@gateway.example.com", "team@example.com", None)
    assert letter["Message-ID"].endswith("@gateway.example.com>")
    assert "Used:          823,456 tokens" in letter.get_content().splitlines()
    assert reread(message).last_result == "to team@example.com"


def test_a_mail_that_the_server_refuses_is_tried_again_and_its_words_are_kept_nowhere(
    settings: Settings, log: list[dict[str, Any]]
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    message = a_message(account=an_account(alert_email="team@example.com"))
    with running_mailbox() as mailbox:
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", mailbox.port
        mailbox.refusal = "550 s3cret policy"
        assert send_due(now=NOW) == failed()
        assert mailbox.mails == []
        message = reread(message)
        assert (message.sent_at, message.last_result) == (None, "SMTPRecipientsRefused")
        assert "s3cret" not in str(log)

        mailbox.refusal = ""
        assert send_due(now=message.due_at) == sent()
    assert len(mailbox.mails) == 1


def test_a_mail_server_that_is_away_is_a_failure(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", unused_port()
    message = a_message(account=an_account(alert_email="team@example.com"))
    assert send_due(now=NOW) == failed()
    assert reread(message).last_result == "ConnectionRefusedError"


def test_a_mail_has_the_same_id_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    message = a_message(account=an_account(alert_email="team@example.com"))
    send_due(now=NOW)
    # As after a kill between the sending and its record.
    Outbox.objects.update(sent_at=None)
    send_due(now=reread(message).due_at)
    first, second = (letter.extra_headers["Message-ID"] for letter in mail.outbox)
    assert first == second


# --- Webhooks ---------------------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_with_the_secret_of_the_account(receiver: Receiver, settings: Settings) -> None:
    settings.LLM_WEBHOOK_URL, settings.LLM_WEBHOOK_SECRET = "http://127.0.0.1:9/", SECRET
    account = an_account(webhook_url=receiver.url)
    message = a_message(OutboxKind.WEBHOOK, account=account, created_at=NOW - timedelta(seconds=1.5))

    assert send_due(now=NOW) == sent()

    [received] = receiver.received
    account.refresh_from_db()
    assert json.loads(received.body) == {
        "type": "limit.threshold",
        "timestamp": "2026-11-20T11:59:58.500000Z",
        "data": {**THRESHOLD, "account": "acme", "key": None, "window_resets_at": "2026-12-01T00:00:00+00:00"},
    }
    assert received.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert received.headers["webhook-signature"] == sign(
        unseal(account.webhook_secret),
        message_id=received.headers["webhook-id"],
        timestamp=int(NOW.timestamp()),
        body=received.body,
    )
    assert unseal(account.webhook_secret).startswith("whsec_")
    assert unseal(account.webhook_secret) != SECRET
    assert reread(message).last_result == "answered 204"


def test_an_account_without_a_webhook_leaves_it_to_the_operators(receiver: Receiver, settings: Settings) -> None:
    settings.LLM_WEBHOOK_URL, settings.LLM_WEBHOOK_SECRET = receiver.url, SECRET
    account = an_account()
    a_message(OutboxKind.WEBHOOK, account=account)

    assert send_due(now=NOW) == sent()

    [received] = receiver.received
    account.refresh_from_db()
    assert account.webhook_secret == ""
    assert received.headers["webhook-signature"] == sign(
        SECRET, message_id=received.headers["webhook-id"], timestamp=int(NOW.timestamp()), body=received.body
    )


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "LLM_WEBHOOK_SECRET is not set, so nothing can be signed"),
        ("hunter2-hunter2", "its secret must be whsec_ followed by 24 to 64 bytes in base64"),
    ],
)
def test_nothing_goes_out_unsigned(
    receiver: Receiver, settings: Settings, log: list[dict[str, Any]], secret: str, reason: str
) -> None:
    settings.LLM_WEBHOOK_URL, settings.LLM_WEBHOOK_SECRET = receiver.url, secret
    message = a_message(OutboxKind.WEBHOOK)
    assert send_due(now=NOW) == failed()
    assert receiver.received == []
    assert reread(message).last_result == reason
    assert "hunter2" not in str(log)


def test_a_webhook_has_the_same_id_at_every_try_and_a_timestamp_of_its_own(receiver: Receiver) -> None:
    message = a_message(OutboxKind.WEBHOOK, account=an_account(webhook_url=receiver.url))
    for status in (500, 404, 302, 200):
        receiver.status = status
        send_due(now=reread(message).due_at)
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert len({received.body for received in receiver.received}) == 1
    timestamps = [int(received.headers["webhook-timestamp"]) for received in receiver.received]
    assert [moment - timestamps[0] for moment in timestamps] == [0, 60, 180, 420]
    assert (reread(message).attempts, reread(message).last_result) == (4, "answered 200")


def test_other_messages_have_other_ids_and_so_has_the_same_cause_in_another_gateway(receiver: Receiver) -> None:
    account = an_account(webhook_url=receiver.url)
    a_message(OutboxKind.WEBHOOK, account=account)
    a_message(OutboxKind.WEBHOOK, account=account, cause="limit:4")
    send_due(now=NOW)
    Outbox.objects.all().delete()
    a_message(OutboxKind.WEBHOOK, account=account, cause="limit:4", created_at=NOW - timedelta(microseconds=1))
    send_due(now=NOW)
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 3


def test_neither_the_address_nor_the_secret_is_logged_or_kept(receiver: Receiver, log: list[dict[str, Any]]) -> None:
    url = f"{receiver.url}/t0ken"
    receiver.status = 500
    account = an_account(webhook_url=url)
    message = a_message(OutboxKind.WEBHOOK, account=account)
    send_due(now=NOW)
    Account.objects.update(webhook_url=f"http://127.0.0.1:{unused_port()}/t0ken")
    send_due(now=reread(message).due_at)

    account.refresh_from_db()
    told = f"{log} {Outbox.objects.values().get()}"
    assert [entry["reason"] for entry in log] == ["answered 500", "no answer: ConnectError"]
    assert "t0ken" not in told
    assert unseal(account.webhook_secret).removeprefix("whsec_") not in told


# --- What fails -------------------------------------------------------------------------------------------------------


def test_a_message_that_fails_waits_longer_each_time(receiver: Receiver) -> None:
    receiver.status = 500
    message = a_message(OutboxKind.WEBHOOK, account=an_account(webhook_url=receiver.url))
    pauses = []
    for _ in range(4):
        now = reread(message).due_at
        assert send_due(now=now) == failed()
        pauses.append(reread(message).due_at - now)
        assert send_due(now=reread(message).due_at - timedelta(microseconds=1)) == NOTHING
    assert pauses == [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8)]
    assert len(receiver.received) == 4


@pytest.mark.parametrize(
    ("attempts", "pause"),
    [
        (1, timedelta(minutes=1)),
        (2, timedelta(minutes=2)),
        (9, timedelta(minutes=256)),
        (10, timedelta(hours=6)),
        (11, timedelta(hours=6)),
        (32_767, timedelta(hours=6)),
    ],
)
def test_pauses_double_up_to_six_hours(attempts: int, pause: timedelta) -> None:
    assert pause_after(attempts) == pause


@pytest.mark.slow
def test_a_message_is_given_up_after_three_days(receiver: Receiver, log: list[dict[str, Any]]) -> None:
    receiver.status = 503
    message = a_message(OutboxKind.WEBHOOK, account=an_account(webhook_url=receiver.url))
    reports: list[SendReport] = []
    while message.given_up_at is None and len(reports) < 100:
        reports.append(send_due(now=message.due_at))
        message = reread(message)

    assert message.given_up_at is not None
    assert reports == [*[failed()] * (len(reports) - 1), SendReport(sent=0, unaddressed=0, failed=0, given_up=1)]
    assert PATIENCE <= message.given_up_at - NOW <= PATIENCE + timedelta(hours=6)
    assert (message.sent_at, message.last_result) == (None, "answered 503")
    assert message.attempts == len(receiver.received) == len(reports)
    assert 15 <= message.attempts <= 25
    assert log[-1] == {
        "event": "outbox.message_failed",
        "log_level": "error",
        "cause": message.cause,
        "kind": "webhook",
        "attempt": message.attempts,
        "reason": "answered 503",
    }
    assert send_due(now=NOW + timedelta(days=365)) == NOTHING
    assert len(receiver.received) == len(reports)


def test_the_last_attempt_may_succeed(receiver: Receiver) -> None:
    receiver.status = 503
    message = a_message(OutboxKind.WEBHOOK, account=an_account(webhook_url=receiver.url))
    send_due(now=NOW)
    receiver.status = 200
    assert send_due(now=NOW + PATIENCE) == sent()
    message = reread(message)
    assert (message.sent_at, message.given_up_at, message.last_result) == (NOW + PATIENCE, None, "answered 200")


def test_a_message_that_nobody_has_tried_yet_is_never_too_old(receiver: Receiver) -> None:
    """No worker ran for a month."""
    receiver.status = 503
    message = a_message(OutboxKind.WEBHOOK, account=an_account(webhook_url=receiver.url))
    assert send_due(now=NOW + timedelta(days=30)) == failed()
    receiver.status = 200
    assert send_due(now=NOW + timedelta(days=30, minutes=1)) == sent()
    assert reread(message).given_up_at is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event": "nobody.knows"}, "KeyError"),
        ({"payload": {}}, "KeyError"),
        ({"payload": 0}, "TypeError"),
        ({"payload": ["a", "list"]}, "TypeError"),
        ({"payload": {**THRESHOLD, "per": "fortnight"}}, "ValueError"),
        ({"payload": {**THRESHOLD, "used": 10**400}}, "TypeError"),
    ],
)
def test_a_message_that_nobody_can_write_does_not_hold_up_the_others(
    receiver: Receiver, changes: dict[str, Any], reason: str
) -> None:
    account = an_account(webhook_url=receiver.url)
    poison = a_message(OutboxKind.WEBHOOK, account=account, cause="poison", **changes)
    good = a_message(OutboxKind.WEBHOOK, account=account, cause="good", due_at=NOW + timedelta(seconds=1))

    now = NOW + timedelta(seconds=1)
    assert send_due(now=now) == SendReport(sent=1, unaddressed=0, failed=1, given_up=0)

    assert reread(good).sent_at == now
    poison = reread(poison)
    assert (poison.sent_at, poison.last_result, poison.due_at) == (None, reason, now + timedelta(minutes=1))
    assert len(receiver.received) == 1


def test_a_foreign_failure_is_told_by_its_name_alone(
    monkeypatch: pytest.MonkeyPatch, log: list[dict[str, Any]]
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise RuntimeError("s3cret")

    monkeypatch.setattr(outbox, "_send_mail", fail)
    message = a_message(account=an_account(alert_email="team@example.com"))
    assert send_due(now=NOW) == failed()
    assert reread(message).last_result == "RuntimeError"
    assert [(entry["event"], entry["log_level"]) for entry in log] == [("outbox.attempt_failed", "warning")]
    assert "s3cret" not in str(log)


def test_a_failure_of_the_database_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(now: datetime) -> None:
        raise OperationalError

    monkeypatch.setattr(outbox, "_claim", fail)
    with pytest.raises(OperationalError):
        send_due(now=NOW)


@pytest.mark.slow
def test_a_receiver_that_hangs_does_not_hold_up_the_others(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 2.0)
    release = threading.Event()

    def hang_once(handler: BaseHTTPRequestHandler) -> None:
        if len(receiver.received) == 1:
            release.wait(30)
        handler.send_response(200)
        handler.end_headers()

    receiver.answer = hang_once
    account = an_account(webhook_url=receiver.url)
    hanging = a_message(OutboxKind.WEBHOOK, account=account, cause="first")
    good = a_message(OutboxKind.WEBHOOK, account=account, cause="second")

    assert send_due(now=NOW) == SendReport(sent=1, unaddressed=0, failed=1, given_up=0)
    release.set()
    assert reread(hanging).last_result == "no answer within 2 seconds"
    assert reread(good).last_result == "answered 200"


# --- Nobody to tell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OutboxKind)
def test_a_message_with_nobody_to_tell_is_done_and_says_so(kind: OutboxKind) -> None:
    message = a_message(kind)
    assert send_due(now=NOW) == SendReport(sent=0, unaddressed=1, failed=0, given_up=0)
    message = reread(message)
    assert (message.sent_at, message.last_result, message.attempts) == (NOW, "no recipient", 1)
    assert mail.outbox == []
    assert send_due(now=NOW + timedelta(days=1)) == NOTHING


# --- Which, and how many ----------------------------------------------------------------------------------------------


def test_the_oldest_go_first_and_no_more_than_asked_for(settings: Settings) -> None:
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    for name, minutes in (("c", 3), ("a", 9), ("b", 5), ("later", -1)):
        a_message(account=an_account(name), cause=name, due_at=NOW - timedelta(minutes=minutes))

    assert send_due(now=NOW, limit=2) == sent(2)
    assert [letter.subject.split()[2] for letter in mail.outbox] == ["a", "b"]
    assert send_due(now=NOW, limit=2) == sent()
    assert send_due(now=NOW) == NOTHING
    assert [letter.subject.split()[2] for letter in mail.outbox] == ["a", "b", "c"]


@pytest.mark.parametrize("bounds", [{"limit": 0}, {"seconds": 0}])
def test_no_message_is_touched_beyond_the_bounds(settings: Settings, bounds: dict[str, Any]) -> None:
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    message = a_message()
    assert send_due(now=NOW, **bounds) == NOTHING
    assert (reread(message).attempts, mail.outbox) == (0, [])


def test_what_was_sent_is_not_sent_again(settings: Settings) -> None:
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    a_message()
    assert send_due(now=NOW) == sent()
    assert send_due(now=NOW + timedelta(days=30)) == NOTHING
    assert len(mail.outbox) == 1


def test_without_a_moment_the_clock_counts(settings: Settings) -> None:
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    now = datetime.now(UTC)
    past = a_message(due_at=now)
    future = a_message(OutboxKind.WEBHOOK, due_at=now + timedelta(hours=1))
    assert send_due() == sent()
    assert (reread(past).sent_at or NOW) >= now
    assert reread(future).sent_at is None


# --- Senders that die, and several at once ----------------------------------------------------------------------------


def test_a_killed_senders_message_is_out_of_sight_for_a_lease_and_then_sent(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    message = a_message()
    kill_the_next_sender(monkeypatch, NOW)
    message = reread(message)
    assert (message.sent_at, message.attempts, message.due_at) == (None, 1, NOW + LEASE)

    assert send_due(now=NOW + LEASE - timedelta(microseconds=1)) == NOTHING
    assert send_due(now=NOW + LEASE) == sent()
    assert len(mail.outbox) == 1
    assert reread(message).attempts == 2


def test_a_sender_killed_before_it_could_record_its_success_repeats_itself_with_the_same_id(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = a_message(OutboxKind.WEBHOOK, account=an_account(webhook_url=receiver.url))
    post = webhooks.post_webhook

    def post_and_die(*arguments: Any, **named: Any) -> str:
        post(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "post_webhook", post_and_die)
        with pytest.raises(Killed):
            send_due(now=NOW)
    assert reread(message).sent_at is None

    assert send_due(now=NOW + LEASE) == sent()
    assert len(receiver.received) == 2
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1


def test_a_message_that_kills_its_senders_comes_to_an_end(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    message = a_message()
    while message.given_up_at is None and message.attempts < 100:
        kill_the_next_sender(monkeypatch, message.due_at)
        message = reread(message)

    assert message.given_up_at is not None
    assert message.attempts <= 25
    assert PATIENCE <= message.given_up_at - NOW <= PATIENCE + timedelta(hours=6)
    assert (message.sent_at, message.last_result) == (None, "sender process died")
    assert send_due(now=NOW + timedelta(days=365)) == NOTHING


def test_a_sender_that_is_too_late_does_not_undo_what_the_next_one_did(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """Its lease ran out while it hung; the next one has sent the message when it fails."""
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    message = a_message()
    send = outbox._send

    def hang_and_fail(message: Outbox, now: datetime) -> str:
        monkeypatch.setattr(outbox, "_send", send)
        assert send_due(now=NOW + LEASE) == sent()
        raise TimeoutError

    monkeypatch.setattr(outbox, "_send", hang_and_fail)
    assert send_due(now=NOW) == failed()
    message = reread(message)
    assert (message.sent_at, message.attempts) == (NOW + LEASE, 2)
    assert message.last_result == "to operator@example.com"


def test_a_sender_that_is_too_late_does_not_shorten_the_lease_of_the_next_one(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.LLM_ALERT_EMAIL = "operator@example.com"
    message = a_message()

    def hang_and_fail(message: Outbox, now: datetime) -> str:
        outbox._claim(NOW + LEASE)
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_send", hang_and_fail)
        send_due(now=NOW)
    message = reread(message)
    assert (message.attempts, message.due_at, message.last_result) == (2, NOW + 2 * LEASE, "")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_senders_at_once_send_each_message_once(receiver: Receiver) -> None:
    account = an_account(webhook_url=receiver.url, webhook_secret=seal(SECRET))
    for number in range(40):
        a_message(OutboxKind.WEBHOOK, account=account, cause=f"limit:{number}")
    begin = threading.Barrier(4)
    reports = []

    def run() -> None:
        begin.wait(10)
        reports.append(send_due(now=NOW, seconds=120))
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(report.sent for report in reports) == 40
    assert sum(report.failed for report in reports) == 0
    assert len(receiver.received) == 40
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 40
    assert set(Outbox.objects.values_list("attempts", "last_result")) == {(1, "answered 204")}


@pytest.mark.django_db(transaction=True)
def test_nothing_is_locked_while_a_message_is_on_its_way(receiver: Receiver) -> None:
    """Somebody else may write to the very row, and on SQLite to the database at all."""
    account = an_account(webhook_url=receiver.url, webhook_secret=seal(SECRET))
    message = a_message(OutboxKind.WEBHOOK, account=account)
    changed: list[int] = []

    def write_meanwhile(handler: BaseHTTPRequestHandler) -> None:
        changed.append(Outbox.objects.filter(pk=message.pk).update(event="limit.threshold"))
        connection.close()
        handler.send_response(200)
        handler.end_headers()

    receiver.answer = write_meanwhile
    assert send_due(now=NOW) == sent()
    assert changed == [1]


# --- Pruning ----------------------------------------------------------------------------------------------------------


def test_messages_that_ended_long_ago_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "DELETED_AT_ONCE", 2)
    ended = NOW - KEPT
    before = ended - timedelta(microseconds=1)
    for number in range(3):
        a_message(cause=f"sent {number}", created_at=before, sent_at=before)
    a_message(cause="given up", created_at=before, given_up_at=before)
    kept = [
        a_message(cause="sent later", created_at=before, sent_at=ended),
        a_message(cause="given up later", created_at=before, given_up_at=ended),
        a_message(cause="still to send", created_at=before),
    ]
    assert prune_sent(now=NOW) == 4
    assert list(Outbox.objects.order_by("id")) == kept
    assert prune_sent(now=NOW) == 0
