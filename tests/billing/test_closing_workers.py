"""Months are closed by real Celery workers that are killed at random, and issued by many people at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from uuid import uuid4

import psutil
import pytest
from django.conf import settings
from django.db import connection, connections

from billing import invoicing, review
from billing.closing import close_due_months
from billing.enums import InvoiceState, JobState, MonthJobKind
from billing.errors import InvoiceError
from billing.models import Invoice, InvoiceSeries, MonthJob
from billing.review import approve, issue, submit
from billing.verify import verify_month
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account
from tests.billing.people import make_approver, make_preparer
from tests.gateway_process import _database_environment

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ACCOUNTS = 8
IS_SQLITE = connection.vendor == "sqlite"
# SQLite has one writer at a time.
WORKERS, CONCURRENCY = (1, 2) if IS_SQLITE else (4, 4)
MESSAGES, KILLS = 8, 6
PATIENCE_S, BEAT_S = 240.0, 10.0


def brokers() -> list[str]:
    found = [settings.CELERY_BROKER_URL]
    return found if IS_SQLITE or not settings.REDIS_URL else [*found, settings.REDIS_URL]


def kind(url: str) -> str:
    return url.partition(":")[0]


class Workers:
    """Celery workers on one broker and a queue of their own, and a file broker's folder of their own."""

    def __init__(self, broker: str, folder: Path, output: IO[bytes]) -> None:
        self._queue = f"closing-{uuid4().hex}"
        self._environment = {
            **os.environ,
            **_database_environment(),
            "CELERY_BROKER_URL": broker,
            "VAR_DIR": str(folder),
        }
        self._has_processes = not broker.startswith("filesystem:")
        self._output = output
        self._mains = [self._start() for _ in range(WORKERS)]

    def send(self, task: str, *args: int, times: int = 1) -> None:
        """From another process, with the workers' own settings. task: of billing, by its name."""
        script = (
            "import django; django.setup(); from llmproject.celery import app; "
            f"[app.send_task('billing.tasks.{task}', args={args}, queue='{self._queue}') for _ in range({times})]"
        )
        environment = {**self._environment, "DJANGO_SETTINGS_MODULE": "llmproject.settings"}
        subprocess.run([sys.executable, "-c", script], cwd=settings.BASE_DIR, env=environment, check=True)

    def kill_one(self, draw: random.Random) -> None:
        """A process of a pool, which its worker replaces, or a whole worker, which is started again.

        The file broker's workers have threads: there it is whole workers.
        """
        if not self._has_processes or draw.random() < 0.2:
            victim = draw.choice(self._mains)
            self._mains.remove(victim)
            self._kill(victim)
            self._mains.append(self._start())
        elif children := [child for main in self._mains for child in self._children(main)]:
            with suppress(psutil.NoSuchProcess):
                draw.choice(children).kill()

    def kill_all(self) -> None:
        """Whoever is at work is among them. Another one starts afterwards."""
        self.stop()
        self._mains = [self._start()]

    def stop(self) -> None:
        for main in self._mains:
            self._kill(main)

    def log(self) -> str:
        self._output.seek(0)
        return self._output.read().decode(errors="replace")[-4000:]

    def _start(self) -> subprocess.Popen[bytes]:
        celery = [sys.executable, "-m", "celery", "-A", "llmproject", "--quiet", "worker", "--without-gossip"]
        return subprocess.Popen(
            [*celery, "--without-mingle", "-Q", self._queue, "--concurrency", str(CONCURRENCY)],
            cwd=settings.BASE_DIR,
            env=self._environment,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def _children(self, main: subprocess.Popen[bytes]) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            found: list[psutil.Process] = psutil.Process(main.pid).children(recursive=True)
            return found
        return []

    def _kill(self, main: subprocess.Popen[bytes]) -> None:
        children = self._children(main)
        main.send_signal(signal.SIGKILL)
        main.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.fixture(params=brokers(), ids=kind)
def workers(request: pytest.FixtureRequest, transactional_db: None, tmp_path: Path) -> Iterator[Workers]:
    with ExitStack() as stack:
        running = Workers(request.param, tmp_path, stack.enter_context(TemporaryFile()))
        stack.callback(running.stop)
        yield running


def make_months() -> Counter[str]:
    """Calls of two months for each account; returns what each owes, in USD."""
    price = make_price()
    owed: Counter[str] = Counter()
    for number in range(ACCOUNTS):
        account = make_account(f"Account {number}")
        for day in (date(2026, 9, 30), date(2026, 10, 1)):
            make_call(account, day=day, price=price, prompt_tokens=(number + 1) * 1_000_000)
        owed[account.name] = 2 * (number + 1)
    return owed


def test_workers_that_are_killed_make_one_invoice_an_account_and_month(workers: Workers) -> None:
    owed = make_months()
    draw = random.Random(11)
    workers.send("close_due_months", times=MESSAGES)
    for _ in range(KILLS):
        time.sleep(draw.uniform(0, 2))
        workers.kill_one(draw)
    _await_invoices(workers, 2 * ACCOUNTS)
    found = Counter(Invoice.objects.values_list("account__name", "period_start"))
    assert set(found.values()) == {1}
    for name, months_cost in owed.items():
        totals = Invoice.objects.filter(account__name=name).values_list("total", flat=True)
        assert list(totals) == [Decimal(months_cost)] * 2


def _await_invoices(workers: Workers, number: int) -> None:
    """What a killed worker had taken from Redis comes back hours later: as in production, beat asks again meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    asked_at = time.monotonic()
    while Invoice.objects.count() < number:
        assert time.monotonic() < deadline, workers.log()
        if time.monotonic() - asked_at > BEAT_S:
            asked_at = time.monotonic()
            workers.send("close_due_months")
        time.sleep(0.2)


def test_a_closing_whose_worker_is_killed_is_taken_up_again(workers: Workers) -> None:
    owed = make_months()
    job = MonthJob.objects.create(kind=MonthJobKind.CLOSE, period_start=date(2026, 10, 1), requested_by=make_preparer())
    workers.send("run_month_job", job.pk)
    _await_state(workers, job, JobState.RUNNING, JobState.DONE)
    workers.kill_all()
    _await_state(workers, job, JobState.DONE)
    assert (job.counts, job.problems, job.error) == ({"drafted": ACCOUNTS, "kept": 0, "empty": 0}, 0, "")
    assert (job.progress, job.total) == (ACCOUNTS, ACCOUNTS)
    # September was never billed: its usage is late on the invoice of October.
    assert dict(Invoice.objects.values_list("account__name", "total")) == owed


def _await_state(workers: Workers, job: MonthJob, *states: JobState) -> None:
    """Messages may be lost with a worker: as beat does, waiting jobs are asked for meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    asked_at = time.monotonic()
    while job.state not in states:
        assert time.monotonic() < deadline, workers.log()
        if time.monotonic() - asked_at > BEAT_S:
            asked_at = time.monotonic()
            workers.send("run_waiting_month_jobs")
        time.sleep(0.01)
        job.refresh_from_db()


def test_many_hands_issue_each_invoice_once_and_leave_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    make_months()
    close_due_months()
    preparer, approver = make_preparer(), make_approver()
    ids = list(Invoice.objects.values_list("pk", flat=True))
    for pk in ids:
        submit(pk, user=preparer)
        approve(pk, user=approver)
    draw = random.Random(12)
    record = invoicing.note_event

    def note_or_die(*args: object, **values: object) -> None:
        # After the number was taken, within the transaction that took it.
        if draw.random() < 0.3:
            raise ConnectionAbortedError
        record(*args, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(review, "note_event", note_or_die)

    def issue_all(seed: int) -> None:
        order = random.Random(seed).sample(ids, len(ids))
        try:
            for pk in order:
                for _ in range(20):
                    with suppress(ConnectionAbortedError, InvoiceError):
                        issue(pk, user=approver)
                        break
        finally:
            connections.close_all()

    hands = 1 if IS_SQLITE else 8
    with ThreadPoolExecutor(hands) as pool:
        list(pool.map(issue_all, range(hands)))
    monkeypatch.undo()
    numbers = Invoice.objects.filter(state=InvoiceState.ISSUED).values_list("number", flat=True)
    assert sorted(number for number in numbers if number is not None) == list(range(1, len(ids) + 1))
    assert InvoiceSeries.objects.get().last_number == len(ids)
    assert verify_month(Invoice.objects.all()[0].period).sentences == []
