"""How we speak to PostgreSQL: what pages log in as, and what is said of a URL for them that can't be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from llmproject.database import database_settings, owner_settings
from llmproject.env import EnvReader
from llmproject.postgresql import serves_page
from llmproject.postgresql.base import DatabaseWrapper

APP = "postgres://llm_app:one@127.0.0.1:5432/llm"
PROBLEM = "DATABASE_PAGES_URL must be DATABASE_URL, a PostgreSQL database, with another user and password."


def settings_for(
    url: str, pages: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> tuple[dict[str, Any], list[str]]:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("DATABASE_PAGES_URL", pages)
    read = EnvReader()
    path = folder / "db.sqlite3"
    config = database_settings(read, base_dir=folder, default_path=path, statement_timeout_ms=0, lock_timeout_ms=0)
    return config, read.problems


def login(config: dict[str, Any]) -> tuple[str, str, str]:
    defaults = {**connection.settings_dict, **config, "TIME_ZONE": None}
    parameters = DatabaseWrapper(defaults, "default").get_connection_params()
    return parameters["user"], parameters["password"], parameters["application_name"]


def test_no_request_keeps_a_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, problems = settings_for(APP, "", monkeypatch, tmp_path)
    assert (config["CONN_MAX_AGE"], "PAGES" in config, problems) == (0, False, [])


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ("", ("llm_app", "one", "llm-pages")),
        ("postgres://llm_pages:two@127.0.0.1:5432/llm", ("llm_pages", "two", "llm-pages")),
        ("postgres://llm_pages@127.0.0.1:5432/llm", ("llm_pages", "", "llm-pages")),
    ],
)
def test_a_page_logs_in_as_the_role_of_pages_and_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pages: str, expected: tuple[str, str, str]
) -> None:
    config, problems = settings_for(APP, pages, monkeypatch, tmp_path)
    assert problems == []
    assert login(config) == ("llm_app", "one", "llm-gateway")
    token = serves_page.set(True)
    try:
        assert login(config) == expected
    finally:
        serves_page.reset(token)


@pytest.mark.parametrize(
    ("url", "pages"),
    [
        (APP, "postgres://llm_pages:two@127.0.0.2:5432/llm"),
        (APP, "postgres://llm_pages:two@127.0.0.1:5433/llm"),
        (APP, "postgres://llm_pages:two@127.0.0.1:5432/other"),
        (APP, "postgres://127.0.0.1:5432/llm"),
        ("", "postgres://llm_pages:two@127.0.0.1:5432/llm"),
    ],
)
def test_pages_must_have_the_same_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, pages: str
) -> None:
    config, problems = settings_for(url, pages, monkeypatch, tmp_path)
    assert ("PAGES" in config, problems) == (False, [PROBLEM])


OWNER = "postgres://llm_owner:three@127.0.0.1:5432/llm"


@pytest.mark.parametrize(
    ("url", "owner", "is_right"),
    [
        (APP, OWNER, True),
        (APP, f"{OWNER}_other", False),
        (APP, "sqlite:///llm", False),
        ("sqlite:///llm", OWNER, False),
    ],
)
def test_the_owner_is_of_the_same_postgresql_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, owner: str, is_right: bool
) -> None:
    monkeypatch.setenv("DATABASE_OWNER_URL", owner)
    config, _ = settings_for(url, "", monkeypatch, tmp_path)
    read = EnvReader()
    found = owner_settings(read, config)
    assert (found.get("USER"), bool(read.problems)) == (("llm_owner" if is_right else None), not is_right)
