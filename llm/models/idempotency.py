"""Which request has claimed an idempotency key."""

from __future__ import annotations

from django.db import models

from llm.models.accounts import ApiKey


class IdempotencyKey(models.Model):
    """Written with the open row of its call, and deleted if that call certainly did nothing.

    The call's own row says what became of it. key_hash, content_hash: see `llm.books.operations.Claim`.
    """

    # Calls prevent the deletion of their API key, and no claim exists without a call.
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="+", db_index=False)
    key_hash = models.CharField(max_length=64)
    content_hash = models.CharField(max_length=64)
    call_id = models.UUIDField(unique=True)
    claimed_at = models.DateTimeField(db_index=True, help_text="Database clock.")

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("api_key", "key_hash"), name="idempotencykey_once"),)

    def __str__(self) -> str:
        return str(self.call_id)


class KeptReply(models.Model):
    """A whole reply to a request with an idempotency key, for a while, where that is switched on.

    sealed: its headers and body under LLM_SECRETS_KEY, see `llm.calls.kept_replies`.
    """

    request_id = models.UUIDField(primary_key=True, editable=False)
    sealed = models.BinaryField(editable=False)
    kept_at = models.DateTimeField(db_index=True, editable=False)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.request_id)
