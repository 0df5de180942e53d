"""Jobs that users request and a worker does: each by one worker at a time, and at most three times.

A worker claims a job by a lease, which a thread renews while the work goes on; if the worker is killed, the lease runs
out and the next worker starts the job again. A job that kills its workers fails after the last attempt, so nothing is
retried for ever. Messages to workers may be lost, since unfinished jobs are also found by query.

A worker that was paused for longer than its lease may resume while another one has the job: it notices at its next
report, and anything it writes about the job is dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import structlog
from django.db import DatabaseError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from billing.enums import JobState
from billing.errors import BillingError
from billing.models.jobs import UNFINISHED_STATES, Job
from billing.types import Progress

_log = structlog.get_logger("billing.jobs")

_J = TypeVar("_J", bound=Job)
Work = Callable[[_J, Progress], Mapping[str, object]]
"""Does the job's work; returns the columns that hold its result. Raises BillingError with a sentence."""

MAX_ATTEMPTS = 3
LEASE = timedelta(minutes=2)
RENEW_SECONDS = LEASE.total_seconds() / 4
NEVER_FINISHED = (
    f"A worker began this job {MAX_ATTEMPTS} times and never finished it: it was killed (out of memory?) or lost the "
    "database. See the log of the worker, then request the job again, for one account at a time if the month is large."
)
_MAX_ERROR = 500
_SECONDS_BETWEEN_REPORTS = 1.0


class LeaseLostError(Exception):
    """Another worker has the job: this one was paused for longer than its lease."""


def run_job(model: type[_J], job_id: int, work: Work[_J]) -> _J:
    """Do the job unless it has ended or another worker has it; returns its current state."""
    if (job := _claim(model, job_id)) is not None:
        _run(job, work)
        return job
    return model._default_manager.get(pk=job_id)


def run_waiting(model: type[_J], work: Work[_J]) -> list[_J]:
    """Do each job that no worker has started, or whose worker has died."""
    waiting = model._default_manager.filter(_is_free(), state__in=UNFINISHED_STATES)
    ids = list(waiting.order_by("pk").values_list("pk", flat=True))
    return [run_job(model, job_id, work) for job_id in ids]


def _is_free() -> Q:
    return Q(lease_until=None) | Q(lease_until__lte=timezone.now())


def _claim(model: type[_J], job_id: int) -> _J | None:
    """The job, leased to us; None if it has ended, or another worker has it.

    The attempt is counted before it begins, so that one that kills its worker counts too.
    """
    with transaction.atomic(durable=True):
        free = model._default_manager.filter(_is_free(), pk=job_id, state__in=UNFINISHED_STATES)
        # SQLite has no row locks, and needs none: its transactions run one after another.
        job = free.select_for_update(of=("self",)).first()
        if job is None:
            return None
        job.attempts += 1
        if job.attempts > MAX_ATTEMPTS:
            _log.warning("job.failed", job=str(job), id=job.pk, reason="never finished", attempts=MAX_ATTEMPTS)
            job.state, job.ended_at, job.error = JobState.FAILED, timezone.now(), NEVER_FINISHED
            job.attempts, job.lease_until = MAX_ATTEMPTS, None
        else:
            job.state, job.started_at, job.progress, job.total = JobState.RUNNING, timezone.now(), 0, 0
            job.lease_until = timezone.now() + LEASE
        job.save()
    return None if job.state == JobState.FAILED else job


def _run(job: _J, work: Work[_J]) -> None:
    reporter = _Reporter(job)
    try:
        with _renewed_lease(job):
            result = work(job, reporter)
    except LeaseLostError:
        _log.warning("job.lease_lost", job=str(job), id=job.pk, attempt=job.attempts)
    except BillingError as error:
        _log.warning("job.failed", job=str(job), id=job.pk, reason=str(error))
        _fail(job, str(error))
    except Exception:
        # Otherwise it would be started again, before all others.
        _fail(job, "The job failed; the worker's log has the cause. Fix it, then request the job again.")
        raise
    else:
        last = {"progress": reporter.progress, "total": reporter.total}
        _end(job, **{**last, **result}, state=JobState.DONE, error="")


def _fail(job: Job, why: str) -> None:
    _end(job, state=JobState.FAILED, error=why[:_MAX_ERROR])


def _end(job: Job, **values: object) -> None:
    if not _set(job, **values, ended_at=timezone.now(), lease_until=None):
        _log.warning("job.lease_lost", job=str(job), id=job.pk, attempt=job.attempts)


class _Reporter:
    """Writes a job's progress, at most about once a second, and remembers the latest. Raises LeaseLostError."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._next = 0.0
        self.progress = 0
        self.total = 0

    def __call__(self, done: int, of: int) -> None:
        self.progress, self.total = done, of
        if time.monotonic() >= self._next:
            if not _set(self._job, progress=done, total=of):
                raise LeaseLostError
            self._next = time.monotonic() + _SECONDS_BETWEEN_REPORTS


def _set(job: Job, **values: object) -> bool:
    """False, and nothing is written, if the job is no longer this attempt's."""
    for name, value in values.items():
        setattr(job, name, value)
    ours = type(job)._default_manager.filter(pk=job.pk, attempts=job.attempts, state=JobState.RUNNING)
    return bool(ours.update(**values))


@contextmanager
def _renewed_lease(job: Job) -> Iterator[None]:
    """Renews the lease while the block runs: the work may report nothing for longer than a lease."""
    is_over = threading.Event()
    thread = threading.Thread(target=_renew_until, args=(job, is_over), name=f"lease of job {job.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _renew_until(job: Job, is_over: threading.Event) -> None:
    """A failed renewal is tried again while the lease lasts; the connection is closed in between."""
    ours = type(job)._default_manager.filter(pk=job.pk, attempts=job.attempts, state=JobState.RUNNING)
    while not is_over.wait(RENEW_SECONDS):
        try:
            ours.update(lease_until=timezone.now() + LEASE)
        except DatabaseError as error:
            _log.warning("job.lease_not_renewed", id=job.pk, error=type(error).__name__)
        finally:
            connection.close()
