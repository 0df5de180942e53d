"""Months are closed by real Celery workers and beats that are killed at random, and issued by many people at once."""

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
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from uuid import uuid4

import psutil
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections
from django.utils import timezone

from billing.enums import InvoiceState, JobState, MonthJobKind
from billing.errors import InvoiceError
from billing.invoices import drafting, review
from billing.invoices.closing import close_due_months
from billing.invoices.review import approve, issue, submit
from billing.models import Invoice, InvoiceEvent, InvoiceSeries, MonthJob
from billing.periods import BillingPeriod
from billing.verification import verify_month
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account
from tests.billing.people import make_approver, make_preparer
from tests.gateway_process import _database_environment
from tests.output import written_to

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ACCOUNTS = 8
IS_SQLITE = connection.vendor == "sqlite"
# SQLite has one writer at a time.
WORKERS, CONCURRENCY, BEATS, HANDS = (1, 2, 1, 1) if IS_SQLITE else (4, 4, 2, 3)
NUMBERS_AT_KILLS, KILLS_BEAT_AT = (0, 0, 0, 1, 5, 10), 1
"""So many invoices are issued by then: some die while drafts are made, others while they are computed anew."""
PATIENCE_S, BEAT_S = 240.0, 10.0
BEAT_SCRIPT = """
import sys
from llmproject.celery import app
queue, schedule_file = sys.argv[1:]
entry = {"task": "billing.tasks.close_due_months", "schedule": 2.0, "options": {"queue": queue}}
app.conf.beat_schedule = {"close_due_months": entry}
for _ in range(2):
    app.send_task(entry["task"], queue=queue)
app.Beat(schedule=schedule_file, quiet=True).run()
"""


def brokers() -> list[str]:
    found = [settings.CELERY_BROKER_URL]
    return found if IS_SQLITE or not settings.REDIS_URL else [*found, settings.REDIS_URL]


class Workers:
    """Celery workers on one broker and a queue of their own, and a file broker's folder of their own; later beats."""

    def __init__(self, broker: str, folder: Path, output: IO[bytes]) -> None:
        self._queue = f"closing-{uuid4().hex}"
        self._environment = {
            **os.environ,
            **_database_environment(),
            "CELERY_BROKER_URL": broker,
            "VAR_DIR": str(folder),
        }
        self._has_processes = not broker.startswith("filesystem:")
        self._folder = folder
        self._output = output
        self._mains = [self._start() for _ in range(WORKERS)]
        self._beats: list[subprocess.Popen[bytes]] = []

    def send(self, task: str, *args: int) -> None:
        """From another process, with the workers' own settings. task: of billing, by its name."""
        script = (
            "import django; django.setup(); from llmproject.celery import app; "
            f"app.send_task('billing.tasks.{task}', args={args}, queue='{self._queue}')"
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

    def start_beats(self) -> None:
        """Each asks at once, twice, and then every other second; they don't know of each other."""
        self._beats = [self._start_beat(number) for number in range(BEATS)]

    def running(self) -> tuple[int, int]:
        """How many workers and how many beats have not ended by themselves."""
        workers, beats = (sum(each.poll() is None for each in some) for some in (self._mains, self._beats))
        return workers, beats

    def gave_up(self) -> int:
        """A worker that loses a process of its pool while it starts ends: its supervisor would start it again."""
        return written_to(self._output).count("Unrecoverable error: 'WorkerLostError'")

    def kill_beat(self) -> None:
        """The first of them. It starts again with the schedule that it left."""
        self._kill(self._beats[0])
        self._beats[0] = self._start_beat(0)

    def kill_all(self) -> None:
        """Whoever is at work is among them. Another one starts afterwards."""
        self.stop()
        self._mains = [self._start()]

    def stop(self) -> None:
        for main in (*self._beats, *self._mains):
            self._kill(main)

    def log(self) -> str:
        return written_to(self._output)[-4000:]

    def _start(self) -> subprocess.Popen[bytes]:
        celery = ["-m", "celery", "-A", "llmproject", "--quiet", "worker", "--without-gossip", "--without-mingle"]
        return self._run(*celery, "-Q", self._queue, "--concurrency", str(CONCURRENCY))

    def _start_beat(self, number: int) -> subprocess.Popen[bytes]:
        return self._run("-c", BEAT_SCRIPT, self._queue, str(self._folder / f"schedule-{number}"))

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *arguments],
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


@pytest.fixture(params=brokers(), ids=lambda url: url.partition(":")[0])
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


def test_workers_and_beats_that_are_killed_make_one_invoice_an_account_and_month(workers: Workers) -> None:
    """People issue what is drafted while the others are still closing and being killed."""
    owed = make_months()
    preparer, approver = make_preparer(), make_approver()
    draw = random.Random(11)
    workers.start_beats()
    with ThreadPoolExecutor(HANDS) as pool:
        hands = [pool.submit(issue_what_comes, seed, preparer, approver) for seed in range(HANDS)]
        for numbers in NUMBERS_AT_KILLS:
            time.sleep(draw.uniform(0, 1))
            while Invoice.objects.final().count() < numbers and not all(hand.done() for hand in hands):
                time.sleep(0.02)
            workers.kill_one(draw)
            if numbers == KILLS_BEAT_AT:
                workers.kill_beat()
    assert [hand.result() for hand in hands] == [True] * HANDS, workers.log()
    running, beats = workers.running()
    assert (running + workers.gave_up() >= WORKERS, beats) == (True, BEATS), workers.log()
    workers.stop()
    found = Counter(Invoice.objects.values_list("account__name", "period_start"))
    assert (len(found), set(found.values())) == (2 * ACCOUNTS, {1})
    for name, months_cost in owed.items():
        totals = Invoice.objects.filter(account__name=name).values_list("total", flat=True)
        assert list(totals) == [Decimal(months_cost)] * 2
    assert_numbers_without_gaps(2 * ACCOUNTS)


def issue_what_comes(seed: int, preparer: User, approver: User) -> bool:
    """Whether everything was issued in time. Others are at the same invoices: who comes second is refused."""
    draw = random.Random(seed)
    deadline = time.monotonic() + PATIENCE_S
    steps = ((submit, preparer), (approve, approver), (issue, approver))
    try:
        while Invoice.objects.final().count() < 2 * ACCOUNTS:
            if time.monotonic() > deadline:
                return False
            time.sleep(draw.uniform(0, 0.2))
            ids = Invoice.objects.exclude(state=InvoiceState.ISSUED).values_list("pk", flat=True)
            for pk in draw.sample([*ids], min(len(ids), 2)):
                for step, user in steps:
                    with suppress(InvoiceError), tries_later():
                        step(pk, user=user)
        return True
    finally:
        connections.close_all()


@contextmanager
def tries_later() -> Iterator[None]:
    """SQLite lets one write at a time and knows no queue: under load somebody waits in vain, and tries again."""
    try:
        yield
    except OperationalError as error:
        if "database is locked" not in str(error):
            raise


def assert_numbers_without_gaps(invoices: int) -> None:
    numbers = Invoice.objects.filter(state=InvoiceState.ISSUED).values_list("number", flat=True)
    assert sorted(number for number in numbers if number is not None) == list(range(1, invoices + 1))
    assert InvoiceSeries.objects.get().last_number == invoices
    for month in ("2026-09", "2026-10"):
        assert verify_month(BillingPeriod.parse(month)).sentences == []


def test_a_closing_whose_worker_is_killed_is_taken_up_again(workers: Workers) -> None:
    owed = make_months()
    job = MonthJob.objects.create(kind=MonthJobKind.CLOSE, period_start=date(2026, 10, 1), requested_by=make_preparer())
    workers.send("run_month_job", job.pk)
    _await_state(workers, job, JobState.RUNNING, JobState.DONE)
    workers.kill_all()
    # As if the two minutes were over that its lease had left.
    MonthJob.objects.filter(pk=job.pk, lease_until__isnull=False).update(lease_until=timezone.now())
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
    record = drafting.note_event

    def note_or_die(*args: Any, **values: Any) -> InvoiceEvent:
        # After the number was taken, within the transaction that took it.
        if draw.random() < 0.3:
            raise ConnectionAbortedError
        return record(*args, **values)

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
    assert_numbers_without_gaps(len(ids))
