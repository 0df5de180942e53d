"""Short campaigns: whatever dies or goes away meanwhile, the books agree with the upstream's ledger afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands
from django.db import connection

from tests.fakes import FakeUpstream
from tests.faults import campaign, tariff
from tests.faults.accounts import make_key
from tests.faults.campaign import Goal, Report
from tests.faults.postgres import Database

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif("reap" not in get_commands(), reason="nothing settles the rows of processes that died"),
]

WORKERS = 1 if connection.vendor == "sqlite" else 2


def run(goal: Goal, *, folder: Path, upstream: FakeUpstream) -> Report:
    tariff.set_price()
    return campaign.run(goal, key=make_key(), folder=folder, upstream=upstream, database=_database())


def _database() -> Database | None:
    """The test's own."""
    if connection.vendor == "sqlite":
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


def test_killed_workers_and_servers_leave_exact_books(
    transactional_db: None, upstream: FakeUpstream, tmp_path: Path
) -> None:
    report = run(Goal(seed=7, kills=4, kills_per_restart=2, workers=WORKERS), folder=tmp_path, upstream=upstream)
    assert report.happened["worker killed"] > 0
    assert report.happened["server killed"] + report.happened["server stopped"] > 0
    assert_books_are_exact(report)


@pytest.mark.postgres
@pytest.mark.skipif(connection.vendor == "sqlite", reason="needs a server that can refuse connections")
def test_a_database_that_goes_away_leaves_exact_books(
    transactional_db: None, upstream: FakeUpstream, tmp_path: Path
) -> None:
    goal = Goal(seed=8, outages=4, kinds=("database refuses", "network resets", "network cut"), workers=WORKERS)
    report = run(goal, folder=tmp_path, upstream=upstream)
    assert report.happened.total() == 4
    assert_books_are_exact(report)


def test_an_upstream_that_misbehaves_in_every_way_leaves_exact_books(
    transactional_db: None, upstream: FakeUpstream, tmp_path: Path
) -> None:
    report = run(Goal(seed=9, hostile=150, workers=WORKERS), folder=tmp_path, upstream=upstream)
    assert report.verdict.calls == 150
    assert_books_are_exact(report)
