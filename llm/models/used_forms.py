"""Sent forms that create a secret, so that none creates a second one, in whichever process."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class UsedForm(models.Model):
    """One form that was sent. made_id: the id of the key or account that it created a secret for, once it has."""

    token = models.CharField(max_length=40, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    used_at = models.DateTimeField(default=timezone.now, db_index=True)
    made_id = models.BigIntegerField(null=True)

    def __str__(self) -> str:
        return self.token
