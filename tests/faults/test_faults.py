"""Short campaigns: whatever dies or goes away meanwhile, the books agree with the upstream's ledger afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from tests.fakes import FakeUpstream
from tests.faults import campaign, tariff
from tests.faults.accounts import make_key
from tests.faults.campaign import Goal, Report
from tests.faults.postgres import Database

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

IS_SQLITE = connection.vendor == "sqlite"
WORKERS = 1 if IS_SQLITE else 2


def run(goal: Goal, *, folder: Path, upstream: FakeUpstream) -> Report:
    tariff.set_price()
    return campaign.run(goal, key=make_key(), folder=folder, upstream=upstream, database=_database())


def _database() -> Database | None:
    """The test's own."""
    if IS_SQLITE:
        return None
    config = settings.DATABASES["default"]
    server_url = f"postgres://{config['USER']}@{config['HOST']}:{config['PORT']}"
    return Database(server_url, connection.settings_dict["NAME"])


def assert_books_are_exact(report: Report) -> None:
    books = report.verdict
    assert (books.explanations, report.notes) == ([], [])
    assert (books.missing, books.doubled, books.wrong) == (0, 0, 0)
    assert (books.leaked_holds, books.open_rows, books.unexplained_500s) == (0, 0, 0)
    assert books.complete > 0


def test_processes_that_are_killed_and_a_database_that_goes_away_leave_exact_books(
    transactional_db: None, upstream: FakeUpstream, tmp_path: Path
) -> None:
    goal = Goal(
        seed=7,
        # The one worker of a gateway on SQLite may be killed only every few seconds, its server at any time.
        kills=3 if IS_SQLITE else 8,
        crashes=1 if IS_SQLITE else 4,
        outages=1 if IS_SQLITE else 4,
        kills_per_restart=2 if IS_SQLITE else 5,
        kinds=("database file locked",)
        if IS_SQLITE
        else ("database refuses", "network resets", "network cut", "keys locked"),
        workers=WORKERS,
    )
    report = run(goal, folder=tmp_path, upstream=upstream)
    assert report.kills >= goal.kills
    assert report.database_outages >= goal.outages
    assert_books_are_exact(report)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_an_upstream_that_misbehaves_in_every_way_leaves_exact_books(
    transactional_db: None, upstream: FakeUpstream, tmp_path: Path, provider: str
) -> None:
    report = run(Goal(seed=9, hostile=150, workers=WORKERS, provider=provider), folder=tmp_path, upstream=upstream)
    assert report.verdict.calls == 150
    assert_books_are_exact(report)
