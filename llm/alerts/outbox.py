"""Sends the messages of the outbox: at least once, with any number of concurrent senders, holding no transaction.

A sender claims a message by moving it into the future and commits that, so no transaction is open while it talks to a
server. If it is killed in between, another sender takes the message once the lease runs out: it may then arrive twice,
with the same id.
"""

from __future__ import annotations

import hashlib
import smtplib
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parseaddr
from typing import Literal

import orjson
import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from llm.alerts.messages import MAILED, Notice, build_notice
from llm.alerts.webhooks import WebhookError, ensure_webhook_secret, post_webhook
from llm.enums import OutboxKind
from llm.models import Account, Outbox

LEASE = timedelta(minutes=5)
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=6)
PATIENCE = timedelta(days=3)
KEPT = timedelta(days=90)
"""Longer than any period in a message's cause, so a deleted message isn't queued again."""
DELETED_AT_ONCE = 1000
PAUSE_SECONDS = 0.05
NOBODY = "no recipient"
LOST = "sender process died"
_RESULT_LENGTH = 200

_log = structlog.get_logger("llm.outbox")

_Fate = Literal["sent", "unaddressed", "failed", "given_up"]


@dataclass(frozen=True, slots=True)
class SendReport:
    """How many messages were sent, had no recipient, failed and will be retried, and failed for good."""

    sent: int
    unaddressed: int
    failed: int
    given_up: int


class _NobodyError(Exception):
    """The message has no address."""


def send_due(*, now: datetime | None = None, limit: int = 100, seconds: float = 10.0) -> SendReport:
    """Send due messages, oldest first. A failing message raises nothing; only failures of the database do.

    now: instead of the current time. seconds: none is started after this time, whatever is still due, so that receivers
    that hang don't keep a worker from its other jobs.
    """
    fates: Counter[_Fate] = Counter()
    deadline = time.monotonic() + seconds
    while fates.total() < limit and time.monotonic() < deadline:
        message = _claim(now or timezone.now())
        if message is None:
            break
        fates[_deliver(message, now or timezone.now())] += 1
    return SendReport(fates["sent"], fates["unaddressed"], fates["failed"], fates["given_up"])


def _claim(now: datetime) -> Outbox | None:
    """The message that has been due the longest, hidden from other senders for the length of a lease.

    The last attempt is recorded as such before it begins: a message that kills its senders must come to an end too.
    """
    with transaction.atomic(durable=True):
        due = Outbox.objects.filter(sent_at=None, given_up_at=None, due_at__lte=now)
        # SQLite has no row locks, and needs none: its transactions run one after another.
        message = due.select_for_update(skip_locked=True, of=("self",)).order_by("due_at", "id").first()
        if message is not None:
            if message.attempts and now - message.created_at >= PATIENCE:
                message.given_up_at, message.last_result = now, LOST
            message.attempts += 1
            message.due_at = now + max(LEASE, pause_after(message.attempts))
            message.save(update_fields=["attempts", "due_at", "given_up_at", "last_result"])
    return message


def _deliver(message: Outbox, now: datetime) -> _Fate:
    fate: _Fate = "sent"
    try:
        result = _send(message, now)
    except _NobodyError:
        fate, result = "unaddressed", NOBODY
    except Exception as error:  # noqa: BLE001 - one message's edge: whatever is wrong with it, the others go out
        return _record_failure(message, _reason(error), now)
    unsent = Outbox.objects.filter(pk=message.pk, sent_at=None)
    unsent.update(sent_at=now, given_up_at=None, last_result=result[:_RESULT_LENGTH])
    return fate


def _record_failure(message: Outbox, reason: str, now: datetime) -> _Fate:
    """Only for the latest attempt: if the lease ran out, another sender has the message now."""
    mine = Outbox.objects.filter(pk=message.pk, attempts=message.attempts, sent_at=None)
    mine.update(last_result=reason[:_RESULT_LENGTH], due_at=now + pause_after(message.attempts))
    is_over = message.given_up_at is not None
    fields = {"cause": message.cause, "kind": message.kind, "attempt": message.attempts, "reason": reason}
    if is_over:
        _log.error("outbox.message_failed", **fields)
    else:
        _log.warning("outbox.attempt_failed", **fields)
    return "given_up" if is_over else "failed"


def prune_sent(*, now: datetime | None = None) -> int:
    """Delete messages that were sent, had no recipient or failed for good 90 days ago; returns how many."""
    before = (now or timezone.now()) - KEPT
    old = Outbox.objects.filter(Q(sent_at__lt=before) | Q(given_up_at__lt=before)).order_by("id")
    deleted = 0
    while ids := list(old.values_list("id", flat=True)[:DELETED_AT_ONCE]):
        deleted += Outbox.objects.filter(id__in=ids).delete()[0]
        # SQLite has one writer at a time: the ledger must get its turn.
        time.sleep(PAUSE_SECONDS)
    return deleted


def pause_after(attempts: int) -> timedelta:
    """1, 2, 4 ... minutes after the first, second, third failure, and never more than 6 hours."""
    doublings = min(attempts - 1, 10)
    return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << doublings))


def _send(message: Outbox, now: datetime) -> str:
    """Returns its fate. Raises _NobodyError, or any error that prevents sending."""
    address, notice = compose(message)
    if not address:
        raise _NobodyError
    if message.kind == OutboxKind.MAIL:
        return _send_mail(message, notice, address)
    return _send_webhook(message, notice, address, now)


def compose(message: Outbox) -> tuple[str, Notice]:
    """The address and the words of a message, as it would be sent now; "" if no one would get it."""
    account = message.account
    is_mail = message.kind == OutboxKind.MAIL
    if is_mail and message.event in MAILED:
        notice = build_notice(message.event, account, message.payload)
        return notice.mail.to or "", notice
    own = "" if account is None else account.alert_email if is_mail else account.webhook_url
    address = own or (settings.LLM_ALERT_EMAIL if is_mail else settings.LLM_WEBHOOK_URL)
    # What is sent to an account's own address is for its people; what is sent to ours is for staff.
    shows_cost = account is None or not own or account.shows_cost
    return address, build_notice(message.event, account, message.payload, shows_cost=shows_cost)


def _send_mail(message: Outbox, notice: Notice, address: str) -> str:
    """The same message id each time, so that mail programs can detect duplicates."""
    _, _, domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")
    headers = {"Message-ID": f"<{_digest(message)}@{domain or 'localhost'}>", "Auto-Submitted": "auto-generated"}
    mail = notice.mail
    email = EmailMessage(
        mail.subject,
        mail.text,
        from_email=mail.sender or None,
        to=[address],
        reply_to=[mail.reply_to] if mail.reply_to else None,
        headers=headers,
    )
    for each in mail.attachments:
        email.attach(each.name, each.content, each.content_type)
    email.send()
    return f"to {address}"


def _send_webhook(message: Outbox, notice: Notice, url: str, now: datetime) -> str:
    document = {"type": message.event, "timestamp": message.created_at, "data": dict(notice.facts)}
    body = orjson.dumps(document, option=orjson.OPT_UTC_Z)
    return post_webhook(url, body, secret=_secret(message.account), message_id=f"msg_{_digest(message)}", moment=now)


def _secret(account: Account | None) -> str:
    """The secret of the owner of the address: the account's or ours."""
    if account is not None and account.webhook_url:
        return ensure_webhook_secret(account)
    if not settings.LLM_WEBHOOK_SECRET:
        raise WebhookError("LLM_WEBHOOK_SECRET is not set, so nothing can be signed")
    secret: str = settings.LLM_WEBHOOK_SECRET
    return secret


def _digest(message: Outbox) -> str:
    """The same for each attempt, and different for the same cause from another gateway with the same receiver."""
    return hashlib.sha256(f"{message.cause} {message.created_at.isoformat()}".encode()).hexdigest()[:32]


def _reason(error: Exception) -> str:
    """Never a foreign error's text, which may contain an address, a password or anything a server invents."""
    if isinstance(error, WebhookError):
        return str(error)
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {error.smtp_code}"
    return type(error).__name__
