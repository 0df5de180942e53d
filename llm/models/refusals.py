"""Requests that were refused before a call was opened: counted, since none of them has a row in the books."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from django.db import models
from django.db.models import Max, Min, Q, Sum

OTHER_MODELS = "*"
"""In place of a model's name, where a key named too many. No model is called that."""


@dataclass(frozen=True, slots=True)
class RefusedGroup:
    """Refused requests of a period. keys: values of the columns that they are grouped by. last: the latest example."""

    keys: tuple[Any, ...]
    requests: int
    first_minute: datetime
    last: RefusedRequests


class RefusedRequestsQuerySet(models.QuerySet["RefusedRequests"]):
    def of_limit(self, limit_id: int) -> Self:
        # The index's own condition, without which SQLite doesn't use it.
        return self.filter(limit_id=limit_id).exclude(limit_id=0)

    def between(self, start: datetime, end: datetime) -> Self:
        return self.filter(minute__gte=start, minute__lt=end)

    def grouped(self, *columns: str, limit: int) -> list[RefusedGroup]:
        """The largest groups, in two queries."""
        totals = (
            self.order_by()
            .values_list(*columns)
            .annotate(total=Sum("requests"), first=Min("minute"), last=Max("last_at"))
            .order_by("-total", *columns)[:limit]
        )
        found = [(tuple(keys), requests, first, last) for *keys, requests, first, last in totals]
        latest = self.filter(last_at__in={last for _, _, _, last in found})
        examples = {(tuple(getattr(row, name) for name in columns), row.last_at): row for row in latest}
        # Counts may be pruned, or be counted on, in between.
        return [
            RefusedGroup(keys, requests, first, examples[keys, last])
            for keys, requests, first, last in found
            if (keys, last) in examples
        ]


class RefusedRequests(models.Model):
    """Those of one minute of one key, for one model and for one reason, with the last of them as an example.

    account_id, api_key_id: 0 for requests without a key that is known; all of those are together. limit_id: 0 where no
    limit was the reason. They have no foreign keys: a count must not fail, nor wait, for another row.
    model: as requested; empty if unknown. code: of `GatewayError`. last_message: what the caller was told.
    """

    minute = models.DateTimeField(help_text="Clock of the gateway process.")
    account_id = models.BigIntegerField(default=0)
    api_key_id = models.BigIntegerField(default=0)
    model = models.CharField(max_length=200, blank=True, default="")
    code = models.CharField(max_length=50)
    limit_id = models.BigIntegerField(default=0)
    requests = models.BigIntegerField()
    last_at = models.DateTimeField(help_text="Clock of the gateway process.")
    last_message = models.CharField(max_length=300, blank=True, default="")
    last_request_id = models.CharField(max_length=40, blank=True, default="")

    objects = RefusedRequestsQuerySet.as_manager()

    class Meta:
        verbose_name = "minute of refused requests"
        verbose_name_plural = "refused requests"
        # Whoever may see calls sees these.
        default_permissions = ()
        ordering = ("-minute", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=("minute", "account_id", "api_key_id", "model", "code", "limit_id"), name="refusedrequests_once"
            ),
            models.CheckConstraint(condition=Q(requests__gt=0), name="refusedrequests_some"),
        )
        indexes = (
            models.Index(fields=("account_id", "minute"), name="refusedrequests_account"),
            models.Index(fields=("api_key_id", "minute"), name="refusedrequests_key"),
            models.Index(fields=("limit_id", "minute"), condition=~Q(limit_id=0), name="refusedrequests_limit"),
        )

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M} {self.code}"
