"""Groups whose members need a second factor to sign in."""

from __future__ import annotations

from django.contrib.auth.models import Group
from django.db import models
from django.utils import timezone


class SecondFactorGroup(models.Model):
    """since: users who existed then may still sign in without one for LLM_SECOND_FACTOR_GRACE_DAYS."""

    group = models.OneToOneField(Group, on_delete=models.CASCADE, related_name="second_factor")
    since = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "second factor of a group"
        verbose_name_plural = "second factors of groups"
        default_permissions = ()

    def __str__(self) -> str:
        return f"second factor of {self.group}"
