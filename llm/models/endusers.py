"""The end users behind an account's calls, by name: outside the books, their digests and exports, so names can be
deleted.
"""

from __future__ import annotations

from django.db import models

from llm.models.accounts import Account
from llm.types import END_USER_LENGTH, MAX_END_USER_CHARACTERS


class EndUserKey(models.Model):
    """Key for hashing an account's end users, together with LLM_KEY_PEPPER. Without it, a hash on the books can no
    longer be traced to a name.
    """

    account = models.OneToOneField(Account, on_delete=models.PROTECT, primary_key=True, related_name="+")
    key = models.BinaryField(max_length=32, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"end users of {self.account_id}"


class EndUser(models.Model):
    """The readable name of a hash, as the caller gave it."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="end_users")
    end_user = models.CharField(max_length=END_USER_LENGTH, help_text="As in the calls' rows.")
    name = models.CharField(max_length=MAX_END_USER_CHARACTERS)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("account", "name")
        constraints = (models.UniqueConstraint(fields=["account", "end_user"], name="enduser_once"),)
        # The oldest of an account go first.
        indexes = (models.Index(fields=["account", "id"], name="enduser_oldest"),)

    def __str__(self) -> str:
        return self.name
