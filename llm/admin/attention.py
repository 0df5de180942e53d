"""What waits for staff or is wrong: a sentence each, with a link, for users who may see its subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser, PermissionsMixin
from django.db.models import Max, QuerySet
from django.urls import reverse

from llm.admin import usage_summaries
from llm.admin.limits.standing import NEARLY_FULL_PERCENT, nearly_full
from llm.admin.outbox import GIVEN_UP
from llm.admin.usage.decisions import queue_url
from llm.alerts import staff_alerts
from llm.books.heartbeat import MISSED_BEATS, beat_interval_s
from llm.ids import first_id_at
from llm.models import BooksCheck, Outbox, Process, RefusedWrite, ScheduledTask, Usage
from llm.models.processes import MAX_STARTS
from llm.money import plural

MAX_COUNTED = 100
REFUSALS_WITHIN = timedelta(days=7)
CHECKED_WITHIN = timedelta(hours=48)
TOLD_FOR = timedelta(hours=24)
MAX_NAMED = 5
WORKER_SILENT_FOR = timedelta(minutes=15)
UNPRICED_LOOKED_AT = 2000
"""Of each kind: the index page is opened often."""


@dataclass(frozen=True, slots=True)
class Attention:
    """text: a sentence without its full stop. link: where to look."""

    text: str
    url: str
    link: str


Look = Callable[[datetime], Attention | None]


def attention_for(user: PermissionsMixin | AnonymousUser, now: datetime) -> tuple[Attention, ...]:
    found = [look(now) for look, permissions in _LOOKS.items() if user.has_perms(permissions)]
    return tuple(attention for attention in found if attention is not None)


def look_too(look: Look, *permissions: str) -> None:
    """For apps on top of this one: add a check, after ours, for users with all of these permissions."""
    _LOOKS[look] = permissions


def _undecided_calls(now: datetime) -> Attention | None:
    number = counted(Usage.objects.undecided())
    if not number:
        return None
    text = f"{things(number, 'lost or disputed call')} {'waits' if number == 1 else 'wait'} for a decision"
    return Attention(text, queue_url(), "Decide")


def _unpriced_models(now: datetime) -> Attention | None:
    """Calls of models that have a price now stay unpriced until they are priced again: they count too."""
    models = usage_summaries.unpriced_models(looked_at=UNPRICED_LOOKED_AT)
    if not models:
        return None
    calls = sum(model.calls for model in models)
    many = "over " if calls >= UNPRICED_LOOKED_AT else ""
    names = [f"{model.model} ({model.provider})" for model in models]
    text = f"{many}{plural(calls, 'call')} {'has' if calls == 1 else 'have'} no price: {_named(names)}"
    return Attention(text, reverse("admin:llm_price_unpriced"), "Price them")


def _refused_writes(now: datetime) -> Attention | None:
    number = counted(RefusedWrite.objects.filter(recorded_at__gte=now - REFUSALS_WITHIN))
    if not number:
        return None
    text = f"The books rejected {things(number, 'write')} in the last {REFUSALS_WITHIN.days} days"
    return Attention(text, reverse("admin:llm_refusedwrite_changelist"), "Rejected ledger entries")


def _books_check(now: datetime) -> Attention | None:
    """No finding for a gateway too young to need a check yet."""
    latest = BooksCheck.objects.order_by("-id").first()
    url = reverse("admin:llm_bookscheck_changelist")
    if latest is not None and latest.problems:
        url = reverse("admin:llm_bookscheck_change", args=(latest.pk,))
        return Attention(f"The last ledger audit found {things(latest.problems, 'problem')}", url, "Findings")
    since = now - CHECKED_WITHIN
    is_checked = latest is not None and latest.ended_at >= since
    if is_checked or not Usage.objects.filter(id__lt=first_id_at(since)).exists():
        return None
    hours = CHECKED_WITHIN // timedelta(hours=1)
    return Attention(f"No ledger audit has run in the last {hours} hours", url, "Earlier audits")


def _unfinished_tasks(now: datetime) -> Attention | None:
    names = [task.name.rpartition(".")[2] for task in ScheduledTask.objects.filter(attempts__gte=MAX_STARTS)]
    if not names:
        return None
    text = f"Started {MAX_STARTS} times or more without finishing: {', '.join(names)}. See the worker's log"
    return Attention(text, reverse("admin:llm_scheduledtask_changelist"), "Background tasks")


def _no_worker(now: datetime) -> Attention | None:
    """Some of the tasks are due every minute: if none has started for long, Celery beat isn't running."""
    latest = ScheduledTask.objects.aggregate(at=Max("started_at"))["at"]
    if latest is None or latest > now - WORKER_SILENT_FOR:
        return None
    since = latest.strftime("%Y-%m-%d %H:%M")
    text = f"No background task has started since {since} UTC: check that a Celery worker and beat are running"
    return Attention(text, reverse("admin:llm_scheduledtask_changelist"), "Background tasks")


def _given_up(now: datetime) -> Attention | None:
    number = counted(Outbox.objects.filter(GIVEN_UP))
    if not number:
        return None
    text = f"{things(number, 'message')} {('was' if number == 1 else 'were')} not delivered"
    return Attention(text, f"{reverse('admin:llm_outbox_changelist')}?state=given_up", "Messages")


def _refusing_providers(now: datetime) -> Attention | None:
    """Reported for a day after the last refusal: long enough to be seen."""
    rows = Outbox.objects.filter(event=staff_alerts.EVENT, created_at__gte=now - TOLD_FOR)
    providers = sorted(set(rows.order_by().values_list("payload__provider", flat=True)))
    if not providers:
        return None
    text = (
        f"{', '.join(providers)} refused this gateway's account within the last {TOLD_FOR // timedelta(hours=1)} hours"
    )
    return Attention(text, f"{reverse('admin:llm_outbox_changelist')}?q={staff_alerts.EVENT}", "Messages")


def _skipped_targets(now: datetime) -> Attention | None:
    """As the processes told with their last beats, summed over all of them."""
    alive_since = now - timedelta(seconds=MISSED_BEATS * beat_interval_s())
    told = Process.objects.filter(seen_at__gte=alive_since, ended_at=None).exclude(skipped_targets="")
    numbers = Counter(name for lines in told.values_list("skipped_targets", flat=True) for name in lines.splitlines())
    if not numbers:
        return None
    names = [
        f"{name} ({number} {'process' if number == 1 else 'processes'})" for name, number in sorted(numbers.items())
    ]
    text = f"Skipped after repeated failures: {_named(names)}"
    return Attention(text, reverse("admin:llm_modelroute_changelist"), "Routes")


def _full_limits(now: datetime) -> Attention | None:
    """Without those for each end user: one of many that has used theirs is nothing to see to."""
    number = counted(nearly_full(now).filter(is_per_end_user=False))
    if not number:
        return None
    text = f"{things(number, 'limit')} {('is' if number == 1 else 'are')} at {NEARLY_FULL_PERCENT} % or more"
    if spent := counted(nearly_full(now, 100).filter(is_per_end_user=False)):
        text += f", {'more than ' if spent > MAX_COUNTED else ''}{min(spent, MAX_COUNTED)} used up"
    return Attention(text, f"{reverse('admin:llm_limit_changelist')}?state=full&is_per_end_user__exact=0", "Limits")


def _named(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def counted(rows: QuerySet[Any]) -> int:
    """Counts up to MAX_COUNTED and one more, which means "more than that"."""
    return rows.order_by()[: MAX_COUNTED + 1].count()


def things(number: int, thing: str) -> str:
    """1 message, 2 messages, more than 100 messages."""
    return f"more than {MAX_COUNTED} {thing}s" if number > MAX_COUNTED else plural(number, thing)


_LOOKS: dict[Look, tuple[str, ...]] = {
    _undecided_calls: ("llm.view_usage",),
    _unpriced_models: ("llm.view_usage", "llm.view_price"),
    _refused_writes: ("llm.view_refusedwrite",),
    _books_check: ("llm.view_bookscheck",),
    _unfinished_tasks: ("llm.view_scheduledtask",),
    _no_worker: ("llm.view_scheduledtask",),
    _given_up: ("llm.view_outbox",),
    _refusing_providers: ("llm.view_outbox",),
    _skipped_targets: ("llm.view_modelroute",),
    _full_limits: ("llm.view_limit",),
}
