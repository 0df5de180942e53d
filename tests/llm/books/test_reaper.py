"""Calls of processes that died: who is dead, what becomes of their calls, and what a late settlement changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from llm import models
from llm.books import reaper
from llm.books.batches.commit import commit_batch
from llm.books.figures import compute_figures
from llm.books.operations import OpenCall
from llm.books.reaper import ReapReport, reap
from llm.books.spool.files import SUFFIX, SpoolFile
from llm.books.spool.replay import commit_again
from llm.enums import AdjustmentSource, CallOutcome, LimitMetric, LimitPer, Meter, UsageSource, UsageStatus
from llm.ids import uuid7
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import ApiKey, CatalogVersion, LimitWindow, Process, RateSet, Usage
from llm.prices.staff import set_price
from llm.types import Service
from tests.books import get_call
from tests.databases import only_on_postgresql
from tests.llm.books.making import a_close, a_key, an_open

pytestmark = pytest.mark.django_db

DEAD = UUID(int=7)
AFTER_S, TOTAL_S = 60, 300
LONG_AGO_S = TOTAL_S + 10

Later = Callable[[float], None]


@pytest.fixture(autouse=True)
def _bounds(settings: Settings, tmp_path: Path) -> None:
    settings.LLM_REAP_AFTER_SECONDS = AFTER_S
    settings.LLM_TOTAL_TIMEOUT_SECONDS = TOTAL_S
    settings.LLM_SPOOL_DIR = str(tmp_path)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Moves the reaper's clock to so many seconds from now."""

    def move(seconds: float) -> None:
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
        monkeypatch.setattr(reaper, "database_now", lambda: moment)

    return move


def reap_at(later: Later, seconds: float) -> ReapReport:
    later(seconds)
    return reap()


def run_steadily(later: Later, until_s: float) -> ReapReport:
    """As beat runs it: about once a minute, up to that moment."""
    moments = [*range(0, int(until_s), 45), until_s]
    return [reap_at(later, moment) for moment in moments][-1]


def opened(key: ApiKey | None = None, **changes: object) -> OpenCall:
    operation = an_open(key or a_key(), process_id=DEAD, request_bytes=400, **changes)
    commit_batch([operation])
    return operation


def alive(process: UUID, *, seen_s: float) -> None:
    """A process whose last beat comes so many seconds from now."""
    now = datetime.now(UTC)
    Process.objects.create(
        id=process, host="there", pid=1, started_at=now, seen_at=now + timedelta(seconds=seen_s), ended_at=None
    )


def status_of(operation: OpenCall) -> str:
    return get_call(operation.id).status


def spooled(folder: Path, *closes: object) -> Path:
    """The file of a process that is gone."""
    path = folder / f"{uuid4()}{SUFFIX}"
    file = SpoolFile.create(path)
    file.append(closes)  # type: ignore[arg-type]
    file.close()
    return path


def test_a_call_whose_process_died_is_estimated_from_its_request_and_billed_to_nobody(later: Later) -> None:
    price = set_price("openai", "upstream-name", effective_from=timezone.now(), rates={Meter.INPUT: Decimal(1)})
    operation = opened(price_id=price.pk, catalog_version=CatalogVersion.current())
    assert run_steadily(later, LONG_AGO_S).reaped == 1
    row = Usage.objects.get(pk=operation.id)
    assert (row.status, row.outcome, row.usage_source) == ("estimated", CallOutcome.LOST, UsageSource.ESTIMATED)
    assert (row.prompt_tokens, row.completion_tokens, row.is_billable) == (100, 0, False)
    assert row.cost is not None
    assert row.cost * 10_000 == 1


@pytest.mark.parametrize(
    ("tier", "cost_usd", "flags"), [("priority", Decimal("0.0002"), ""), ("flex", None, "tier_unpriced")]
)
def test_a_lost_call_keeps_the_service_that_it_asked_for(
    later: Later, tier: str, cost_usd: Decimal | None, flags: str
) -> None:
    """Nobody can say how it was served, but never silently at standard rates."""
    price = set_price("openai", "upstream-name", effective_from=timezone.now(), rates={Meter.INPUT: Decimal(1)})
    service = Service(tier, "", "us")
    RateSet.objects.create(price=price, service_tier="priority", inference_geo="us").rates.create(
        meter=Meter.INPUT, amount=Decimal(2), per_units=1_000_000
    )
    operation = opened(price_id=price.pk, catalog_version=CatalogVersion.current(), service=service)
    assert get_call(operation.id).service == service
    assert run_steadily(later, LONG_AGO_S).reaped == 1
    row = Usage.objects.get(pk=operation.id)
    assert (row.status, row.service, row.cost, row.flags) == ("estimated", service, cost_usd, flags)
    assert row.is_as_written


def test_a_call_of_a_process_that_beats_is_left_alone_however_old_it_is(later: Later) -> None:
    operation = opened()
    alive(DEAD, seen_s=LONG_AGO_S - AFTER_S + 1)
    assert run_steadily(later, LONG_AGO_S).reaped == 0
    assert status_of(operation) == UsageStatus.OPEN


def test_a_process_that_has_fallen_silent_is_dead(later: Later) -> None:
    operation = opened()
    alive(DEAD, seen_s=LONG_AGO_S - AFTER_S - 1)
    assert run_steadily(later, LONG_AGO_S).reaped == 1
    assert status_of(operation) == UsageStatus.ESTIMATED


def test_a_process_that_said_goodbye_leaves_no_call_waiting(later: Later) -> None:
    operation = opened()
    alive(DEAD, seen_s=LONG_AGO_S)
    Process.objects.update(ended_at=datetime.now(UTC))
    assert run_steadily(later, LONG_AGO_S).reaped == 1
    assert status_of(operation) == UsageStatus.ESTIMATED


def test_a_call_that_may_still_be_under_way_is_left_alone(later: Later) -> None:
    operation = opened()
    assert run_steadily(later, TOTAL_S - 10).reaped == 0
    assert status_of(operation) == UsageStatus.OPEN


def test_after_a_gap_silence_proves_nothing(later: Later) -> None:
    """Where the reaper could not run, processes could not beat: the database was away for all of them."""
    operation = opened()
    assert reap_at(later, 0).waits_s == pytest.approx(AFTER_S, abs=5)
    report = reap_at(later, LONG_AGO_S)
    assert (report.reaped, report.waits_s) == (0, AFTER_S)
    assert status_of(operation) == UsageStatus.OPEN
    assert reap_at(later, LONG_AGO_S + AFTER_S + 1).reaped == 1


def test_who_knows_that_a_process_is_dead_need_not_wait(later: Later) -> None:
    operation = opened()
    later(1)
    assert reap(at_once=True) == ReapReport(replayed=0, reaped=1, left=0)
    assert status_of(operation) == UsageStatus.ESTIMATED


def test_even_then_a_process_that_beats_keeps_its_calls(later: Later) -> None:
    operation = opened()
    alive(DEAD, seen_s=0)
    later(1)
    assert reap(at_once=True).reaped == 0
    assert status_of(operation) == UsageStatus.OPEN


def test_a_spool_that_is_there_counts_before_any_estimate(later: Later, tmp_path: Path) -> None:
    operation = opened()
    path = spooled(tmp_path, a_close(operation.id, account_id=operation.account_id))
    report = run_steadily(later, LONG_AGO_S)
    assert report == ReapReport(replayed=0, reaped=0, left=0), "the first run has replayed it"
    row = Usage.objects.get(pk=operation.id)
    assert (row.status, row.prompt_tokens, row.is_billable) == ("settled", 9, True)
    assert not path.exists()


def test_a_spool_that_turns_up_later_wins_by_an_adjustment(later: Later, tmp_path: Path) -> None:
    operation = opened()
    run_steadily(later, LONG_AGO_S)
    close = a_close(operation.id, account_id=operation.account_id)
    spooled(tmp_path, close)
    assert reap_at(later, LONG_AGO_S + 1).replayed == 1
    row = Usage.objects.get(pk=operation.id)
    [adjustment] = row.adjustments.all()
    figures = compute_figures(row, [adjustment])
    assert (adjustment.source, figures.counts, figures.is_billable) == (AdjustmentSource.SPOOL, close.counts, True)
    spooled(tmp_path, close)
    assert reap_at(later, LONG_AGO_S + 2).replayed == 1
    assert row.adjustments.count() == 1, "the very same settlement twice changes nothing"


def test_a_lost_call_keeps_what_it_held_as_used_until_it_is_known(later: Later, tmp_path: Path) -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.TOTAL, 1000, None)
    operation = opened(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=100, output_tokens=200))
    run_steadily(later, LONG_AGO_S)
    window = LimitWindow.objects.get()
    assert (window.held, window.used) == (0, 300)
    spooled(tmp_path, a_close(operation.id, account_id=operation.account_id))
    reap_at(later, LONG_AGO_S + 1)
    window.refresh_from_db()
    assert (window.held, window.used) == (0, 13)


def test_a_call_that_its_process_settled_meanwhile_keeps_its_figures(
    later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = opened()

    def settle_first(closes: list[object], **options: int) -> object:
        commit_batch([a_close(operation.id)])
        return commit_again(closes, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(reaper, "commit_again", settle_first)
    run_steadily(later, LONG_AGO_S)
    row = Usage.objects.get(pk=operation.id)
    assert (row.status, row.prompt_tokens) == ("settled", 9)
    assert not row.adjustments.exists()


def test_many_calls_are_closed_in_pieces(later: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "_CHUNK", 3)
    keys = [a_key("one"), a_key("two")]
    commit_batch([an_open(keys[number % 2], id=uuid7(), process_id=DEAD) for number in range(8)])
    assert run_steadily(later, LONG_AGO_S).reaped == 8
    assert not models.OpenCall.objects.exists()


def test_processes_that_ended_long_ago_are_forgotten(later: Later) -> None:
    alive(DEAD, seen_s=-31 * 86_400)
    alive(UUID(int=8), seen_s=-29 * 86_400)
    run_steadily(later, AFTER_S + 1)
    # A gateway that other tests have left running beats here too.
    assert [process.id for process in Process.objects.filter(id__in=[DEAD, UUID(int=8)])] == [UUID(int=8)]


# --- The command ------------------------------------------------------------------------------------------------------


def told(*arguments: str) -> str:
    output = StringIO()
    call_command("reap", *arguments, stdout=output)
    return output.getvalue()


def test_the_command_says_why_it_waits() -> None:
    assert told().startswith("Too early to tell which processes are dead: run this again in 60 seconds, or use --now.")


def test_the_command_says_what_it_did(later: Later, tmp_path: Path) -> None:
    opened()
    found = opened()
    spooled(tmp_path, a_close(found.id, account_id=found.account_id))
    later(1)
    assert told("--now") == "Replayed 1 settlement from disk.\nClosed 1 call of dead processes.\n"


@pytest.mark.postgres
@only_on_postgresql("SQLite has no row locks")
@pytest.mark.django_db(transaction=True)
def test_an_account_whose_rows_somebody_has_locked_keeps_nobody_else_waiting(later: Later) -> None:
    import psycopg

    locked, free = opened(a_key("locked")), opened(a_key("free"))
    config = connection.get_connection_params()
    keywords = {name: config[name] for name in ("dbname", "user", "password", "host", "port") if config.get(name)}
    with psycopg.connect(**keywords) as other:
        other.execute("SELECT 1 FROM llm_opencall WHERE id = %s FOR UPDATE", [locked.id])
        assert run_steadily(later, LONG_AGO_S) == ReapReport(replayed=0, reaped=1, left=1)
    assert (status_of(locked), status_of(free)) == (UsageStatus.OPEN, UsageStatus.ESTIMATED)
    assert reap_at(later, LONG_AGO_S + 1).reaped == 1
