"""The first start creates what is missing and shows its secrets once; the second creates nothing."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pytest_django import Settings

from llm.management.commands.bootstrap import _describe_provider
from llmproject.providers import InstanceSettings
from tests.llmproject.commands import manage

pytestmark = pytest.mark.processes

TABLES = ("auth_user", "llm_account", "llm_apikey", "llm_price")
CURL = (
    "curl http://127.0.0.1:8123/v1/chat/completions -H 'Authorization: Bearer {key}' "
    "-H 'Content-Type: application/json' "
    '-d \'{{"model": "echo", "messages": [{{"role": "user", "content": "Hello"}}]}}\''
)


def bootstrap(folder: Path) -> str:
    ended = manage(folder, "bootstrap", WEB_PORT="8123")
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def execute(folder: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "db.sqlite3")) as connection, connection:
        connection.create_function("llm_audit_actor", 0, lambda: "{}")
        return connection.execute(statement).fetchall()


def counts(folder: Path) -> dict[str, object]:
    return {table: execute(folder, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}  # noqa: S608


def test_the_first_run_shows_the_secrets_and_later_runs_create_only_what_is_missing(tmp_path: Path) -> None:
    first = bootstrap(tmp_path)
    [password] = re.findall(r"^  User      admin, password (\S{20})$", first, re.MULTILINE)
    [key] = re.findall(r"^  API key   (llm_[0-9A-Za-z]{38})$", first, re.MULTILINE)
    assert first.count(password) == 1
    assert first.splitlines()[-1] == CURL.format(key=key)
    assert first.count(key) == 2
    assert "LLM_PROVIDER is not set, so the built-in echo provider answers" in first
    created = counts(tmp_path)
    assert (created["auth_user"], created["llm_account"], created["llm_apikey"]) == (1, 1, 1)
    assert created["llm_price"] != 0
    assert execute(tmp_path, "SELECT username, is_superuser, is_staff FROM auth_user") == [("admin", 1, 1)]

    second = bootstrap(tmp_path)
    assert "  User      as before\n" in second
    assert "  API key   as before; to create another: " in second
    assert "password" not in second
    assert not re.search(r"llm_[0-9A-Za-z]{38}", second)
    assert second.splitlines()[-1] == CURL.format(key="YOUR-KEY")
    assert counts(tmp_path) == created

    # As a first run that was killed right before its last step leaves it.
    for statement in ("DELETE FROM llm_apikey", "DELETE FROM llm_account", "DELETE FROM auth_user"):
        execute(tmp_path, statement)
    assert re.search(r"^  API key   llm_[0-9A-Za-z]{38}$", bootstrap(tmp_path), re.MULTILINE)
    assert counts(tmp_path) == created


def test_a_file_that_is_no_database_is_refused_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite3").write_text("This is not a database, but it is long enough to be read as one." * 20)
    ended = manage(tmp_path, "bootstrap")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("The database can't be used: the file is not a database, or it is damaged. ")


def test_the_summary_names_the_instances_and_the_default(settings: Settings) -> None:
    settings.LLM_PROVIDERS = (
        InstanceSettings("main", "openai", api_keys=("sk-of-nobody-elses-business",), weights=(1,)),
        InstanceSettings("claude", "anthropic"),
    )
    settings.LLM_PROVIDER, settings.LLM_DEFAULT_MODEL = "claude", ""
    assert _describe_provider() == "main (openai), claude (anthropic); default claude, no default model"
