"""Jobs that people ask for and a worker does: each once at a time, and again where its worker was killed.

Whoever is at a job holds a lock on a file of its own, which the system takes back when a process dies. The files lie
in the folder for exports, which must be the same for all workers and web processes. A message to a worker that was
lost, and a job that was left halfway, are found by query; so the work must bear to be begun again.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import structlog
from django.conf import settings
from django.utils import timezone

from billing.enums import JobState
from billing.errors import BillingError
from billing.models.jobs import UNFINISHED_STATES, Job
from billing.types import Progress

_log = structlog.get_logger("billing.jobs")

_J = TypeVar("_J", bound=Job)
Work = Callable[[_J, Progress], Mapping[str, object]]
"""Does what the job is about; returns columns of it that say what came of it. Raises BillingError with a sentence."""

_MOST_ERROR = 500
_SECONDS_A_REPORT = 1.0


def run_job(model: type[_J], job_id: int, work: Work[_J]) -> _J:
    """Do the job, unless that was done or somebody is at it; returns it as it then is."""
    with _lock_of(model, job_id) as is_ours:
        job = model._default_manager.get(pk=job_id)
        if is_ours and job.is_unfinished:
            _run(job, work)
    return job


def run_waiting(model: type[_J], work: Work[_J]) -> list[_J]:
    """Do each job that nobody has begun, or whose worker has died."""
    waiting = model._default_manager.filter(state__in=UNFINISHED_STATES)
    ids = list(waiting.order_by("pk").values_list("pk", flat=True))
    return [run_job(model, job_id, work) for job_id in ids]


def _run(job: _J, work: Work[_J]) -> None:
    _set(job, state=JobState.RUNNING, started_at=timezone.now(), progress=0, total=0)
    reporter = _Reporter(job)
    try:
        outcome = work(job, reporter)
    except BillingError as error:
        _log.warning("a job failed", job=str(job), id=job.pk, reason=str(error))
        _fail(job, str(error))
    except Exception:
        # Or it would be taken up again for ever, before all others.
        _fail(job, "It failed for a reason that stands in the log: see to that, and ask again.")
        raise
    else:
        told = {"progress": reporter.progress, "total": reporter.total}
        _set(job, **{**told, **outcome}, state=JobState.DONE, ended_at=timezone.now(), error="")


def _fail(job: Job, why: str) -> None:
    _set(job, state=JobState.FAILED, ended_at=timezone.now(), error=why[:_MOST_ERROR])


class _Reporter:
    """Writes a job's progress, about once a second, and knows the latest."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._next = 0.0
        self.progress = 0
        self.total = 0

    def __call__(self, done: int, of: int) -> None:
        self.progress, self.total = done, of
        if time.monotonic() >= self._next:
            _set(self._job, progress=done, total=of)
            self._next = time.monotonic() + _SECONDS_A_REPORT


def _set(job: Job, **values: object) -> None:
    for name, value in values.items():
        setattr(job, name, value)
    job.save(update_fields=list(values))


@contextmanager
def _lock_of(model: type[Job], job_id: int) -> Iterator[bool]:
    """Whether the job is ours until the end of the block. The file stays: who removes it would let two in."""
    settings.BILLING_EXPORT_DIR.mkdir(parents=True, exist_ok=True)
    with (settings.BILLING_EXPORT_DIR / f".{model._meta.model_name}-{job_id}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
