"""The budget of connections, and what a start says of a server, a database or a role that is too small for it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.core import checks
from django.db import OperationalError, connection
from pytest_django import Settings

from llm.db import connection_checks
from llm.db.connection_budget import ServerLimits, connection_budget, read_role_limit, read_server_limits
from llmproject.startup import problems_at_start

Find = Callable[..., list[tuple[str | None, str]]]


@pytest.fixture
def fleet(settings: Settings) -> None:
    """Three hosts of four processes, and two workers of eight jobs."""
    settings.WEB_HOSTS, settings.WEB_WORKERS = 3, 4
    settings.LLM_DB_THREADS, settings.LLM_DB_PAGES = 4, 5
    settings.CELERY_WORKERS, settings.CELERY_WORKER_CONCURRENCY = 2, 8
    settings.LLM_DB_SPARE = 6


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch, fleet: None) -> Find:
    """What the check says of such limits; role: the one of DATABASE_PAGES_URL, and role_limit its limit."""

    def find(limits: ServerLimits, *, role: str = "", role_limit: int | None = None) -> list[tuple[str | None, str]]:
        monkeypatch.setattr(connection_checks, "read_server_limits", lambda: limits)
        monkeypatch.setattr(connection_checks, "read_role_limit", lambda _role: role_limit)
        monkeypatch.setattr(connection_checks, "pages_role", lambda: role)
        found = checks.run_checks(tags=["llm"], databases=["default"])
        return [(message.id, str(message.msg)) for message in found if re.search("E01[5-8]|W00[35]", str(message.id))]

    return find


@pytest.mark.usefixtures("fleet")
def test_the_budget_is_over_all_processes_and_hosts() -> None:
    budget = connection_budget()
    # The writer, four readers for calls and two for others; then pages.
    assert (budget.gateway, budget.pages, budget.workers, budget.spare) == (12 * 7, 12 * 5, 32, 6)
    assert budget.total == 182


def test_a_server_with_room_is_passed_in_silence(find: Find) -> None:
    assert find(ServerLimits(available=182)) == []
    assert find(ServerLimits(available=182, database=182, role=182)) == []
    assert find(ServerLimits(available=182, role=122), role="llm_pages", role_limit=60) == []
    assert find(ServerLimits()) == []


def test_a_server_that_is_too_small_says_what_to_change(find: Find) -> None:
    assert find(ServerLimits(available=97)) == [
        (
            "llm.E015",
            (
                "All processes together may open 182 connections (gateway 84, pages 60, workers 32, spare 6), but the "
                "server has 97 for them; raise its max_connections by 85, or lower WEB_WORKERS, LLM_DB_THREADS, "
                "LLM_DB_PAGES, CELERY_WORKERS or CELERY_WORKER_CONCURRENCY."
            ),
        )
    ]


def test_a_pages_role_that_is_allowed_more_than_pages_need_counts_with_all_of_it(find: Find) -> None:
    [(check_id, sentence)] = find(ServerLimits(available=182), role="llm_pages", role_limit=61)
    assert check_id == "llm.E015"
    assert "183 connections (gateway 84, pages 61, workers 32, spare 6)" in sentence


@pytest.mark.parametrize(
    ("limits", "check_id", "sentence"),
    [
        (ServerLimits(available=200, database=165), "llm.E016", "the database's CONNECTION LIMIT is 165; raise it"),
        (
            ServerLimits(available=200, role=165),
            "llm.E017",
            "The role in DATABASE_URL needs 182 connections, but its CONNECTION LIMIT is 165; raise it",
        ),
    ],
)
def test_a_limit_of_the_database_or_the_role_counts_too(
    find: Find, limits: ServerLimits, check_id: str, sentence: str
) -> None:
    [(found, text)] = find(limits)
    assert (found, sentence in text) == (check_id, True)


@pytest.mark.parametrize(
    ("limit", "check_id", "sentence"),
    [
        (None, "llm.E018", "DATABASE_PAGES_URL names the role llm_pages, which the server doesn't have."),
        (
            -1,
            "llm.W005",
            (
                "The role llm_pages in DATABASE_PAGES_URL has no CONNECTION LIMIT, so pages have no bound of their "
                "own; ALTER ROLE llm_pages CONNECTION LIMIT 60."
            ),
        ),
        (
            59,
            "llm.W003",
            (
                "The role llm_pages in DATABASE_PAGES_URL has a CONNECTION LIMIT of 59, but pages may need 60: at "
                "busy times some will be refused. Raise it, or lower LLM_DB_PAGES."
            ),
        ),
    ],
)
def test_the_pages_role_is_to_have_a_limit_that_fits(
    find: Find, limit: int | None, check_id: str, sentence: str
) -> None:
    assert find(ServerLimits(available=200), role="llm_pages", role_limit=limit) == [(check_id, sentence)]


def test_nothing_is_asked_where_no_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`manage.py check` looks at settings alone."""
    monkeypatch.setattr(connection_checks, "read_server_limits", lambda: pytest.fail("it was asked"))
    checks.run_checks(tags=["llm"])
    checks.run_checks()


def test_a_database_that_is_away_stops_no_start(monkeypatch: pytest.MonkeyPatch, fleet: None) -> None:
    def fail() -> ServerLimits:
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection_checks, "read_server_limits", fail)
    assert checks.run_checks(tags=["llm"], databases=["default"]) == checks.run_checks(tags=["llm"])


@pytest.mark.usefixtures("fleet")
def test_a_start_is_refused_where_the_server_is_too_small(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(connection_checks, "read_server_limits", lambda: ServerLimits(available=181))
    assert [problem for problem in problems_at_start() if "the server has 181 for them" in problem]
    settings.LLM_DB_SPARE = 5
    assert not [problem for problem in problems_at_start() if "connections" in problem]


@pytest.mark.django_db
def test_the_limits_are_the_servers_own() -> None:
    limits = read_server_limits()
    if connection.vendor == "sqlite":
        assert limits == ServerLimits()
        return
    with connection.cursor() as cursor:
        cursor.execute("SHOW max_connections")
        most = int(cursor.fetchone()[0])
        cursor.execute("SHOW superuser_reserved_connections")
        reserved = int(cursor.fetchone()[0])
    assert limits == ServerLimits(available=most - reserved, database=-1, role=-1)
    assert read_role_limit("llm_no_such_role") is None
