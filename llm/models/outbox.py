"""Mails and webhooks waiting to be sent, written in the transaction of what caused them."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from llm.enums import OutboxKind
from llm.models.accounts import Account


class Outbox(models.Model):
    """One message. cause: identifies its subject, so that the same thing is never sent twice.

    account: the one it is about; None for messages to staff only. due_at: not to be sent before. A sender moves it into
    the future before it begins, and sets sent_at when it is done: if the sender dies in between, the message becomes
    due again.
    given_up_at: there are no more attempts.
    """

    kind = models.CharField(max_length=10, choices=OutboxKind.choices)
    cause = models.CharField(max_length=200, unique=True)
    event = models.CharField(max_length=50)
    account = models.ForeignKey(
        Account,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="Empty: the message is for staff.",
    )
    payload = models.JSONField()
    created_at = models.DateTimeField()
    due_at = models.DateTimeField()
    attempts = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True, blank=True)
    given_up_at = models.DateTimeField(null=True, blank=True)
    last_result = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        verbose_name = "message"
        ordering = ("-id",)
        constraints = (models.CheckConstraint(condition=Q(kind__in=OutboxKind.values), name="outbox_kind_known"),)
        indexes = (models.Index(F("due_at"), condition=Q(sent_at=None, given_up_at=None), name="outbox_due"),)

    def __str__(self) -> str:
        return self.cause
