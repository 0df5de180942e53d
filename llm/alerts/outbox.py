"""Sends what stands in the outbox: at least once, by any number of senders at a time, with nothing held meanwhile.

A sender claims a message by moving it into the future and commits that, so no transaction is open while it talks to
somebody. One that is killed in between leaves the message to the next, once its lease is over: it may then arrive
twice, with the same id.
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

from llm.alerts.messages import Notice, build_notice
from llm.alerts.webhooks import WebhookError, ensure_webhook_secret, post_webhook
from llm.enums import OutboxKind
from llm.models import Account, Outbox

LEASE = timedelta(minutes=5)
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=6)
PATIENCE = timedelta(days=3)
KEPT = timedelta(days=90)
"""Longer than any period that a message's cause names, so a message that was deleted is not caused again."""
DELETED_AT_ONCE = 1000
PAUSE_SECONDS = 0.05
NOBODY = "no recipient"
LOST = "sender process died"
_RESULT_LENGTH = 200

_log = structlog.get_logger("llm.outbox")

_Fate = Literal["sent", "unaddressed", "failed", "given_up"]


@dataclass(frozen=True, slots=True)
class SendReport:
    """How many messages were sent, had nobody to go to, failed and will be tried again, failed and won't."""

    sent: int
    unaddressed: int
    failed: int
    given_up: int


class _NobodyError(Exception):
    """There is no address for the message."""


def send_due(*, now: datetime | None = None, limit: int = 100, seconds: float = 10.0) -> SendReport:
    """Send what is due, the oldest first. No failure of a message reaches the caller, only those of the database.

    now: taken for the present in place of the clock. seconds: none is begun after so many, whatever is still due;
    receivers that hang must not keep a worker from its other jobs.
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
    """The message that is due first, out of every other sender's sight for the length of a lease.

    Its last attempt is written down as one before it begins: a message that kills its senders must come to an end too.
    """
    with transaction.atomic(durable=True):
        due = Outbox.objects.filter(sent_at=None, given_up_at=None, due_at__lte=now)
        # SQLite has no row locks, and needs none: its transactions come one after another.
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
    """Only of the latest attempt: where the lease ran out, somebody else has the message by now."""
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
    """Delete the messages that were sent, had no recipient or failed for good 90 days ago; returns how many."""
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
    """What became of it. Raises _NobodyError, or whatever else stands in the way."""
    account = message.account
    is_mail = message.kind == OutboxKind.MAIL
    own = "" if account is None else account.alert_email if is_mail else account.webhook_url
    address = own or (settings.LLM_ALERT_EMAIL if is_mail else settings.LLM_WEBHOOK_URL)
    if not address:
        raise _NobodyError
    # What goes to an account's own address is for its people, what goes to ours is for staff.
    shows_cost = account is None or not own or account.shows_cost
    notice = build_notice(message.event, account, message.payload, shows_cost=shows_cost)
    return _send_mail(message, notice, address) if is_mail else _send_webhook(message, notice, address, now)


def _send_mail(message: Outbox, notice: Notice, address: str) -> str:
    """The id is the same each time, so that mail programs fold a repetition into one."""
    _, _, domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")
    headers = {"Message-ID": f"<{_digest(message)}@{domain or 'localhost'}>", "Auto-Submitted": "auto-generated"}
    EmailMessage(notice.mail.subject, notice.mail.text, to=[address], headers=headers).send()
    return f"to {address}"


def _send_webhook(message: Outbox, notice: Notice, url: str, now: datetime) -> str:
    document = {"type": message.event, "timestamp": message.created_at, "data": dict(notice.facts)}
    body = orjson.dumps(document, option=orjson.OPT_UTC_Z)
    return post_webhook(url, body, secret=_secret(message.account), message_id=f"msg_{_digest(message)}", moment=now)


def _secret(account: Account | None) -> str:
    """Whose address it is, that one's secret."""
    if account is not None and account.webhook_url:
        return ensure_webhook_secret(account)
    if not settings.LLM_WEBHOOK_SECRET:
        raise WebhookError("LLM_WEBHOOK_SECRET is not set, so nothing can be signed")
    secret: str = settings.LLM_WEBHOOK_SECRET
    return secret


def _digest(message: Outbox) -> str:
    """The same for each attempt, and another one for the same cause in another gateway that tells the same receiver."""
    return hashlib.sha256(f"{message.cause} {message.created_at.isoformat()}".encode()).hexdigest()[:32]


def _reason(error: Exception) -> str:
    """Never a foreign error's text: it may hold an address, a password or what a server made up."""
    if isinstance(error, WebhookError):
        return str(error)
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {error.smtp_code}"
    return type(error).__name__
