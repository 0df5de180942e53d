"""A command whose database is away ends with one sentence, whichever command it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import OperationalError

from llmproject import commandline
from tests.llmproject.commands import manage, run_python

REFUSED = "The database can't be used: nothing accepts connections at its address. Start it, or correct DATABASE_URL.\n"
PASSWORD = "s3cret-of-the-database"
NOWHERE = f"postgres://nobody:{PASSWORD}@127.0.0.1:1/nothing"


COMMANDS = (
    "verify_books",
    "verify_books --month 2026-10",
    "close_month 2026-10",
    "reap --now",
    "rebuild_rollups --from 2026-10-01 --to 2026-10-31",
    "rerate openai gpt-4o --from 2026-10-01 --to 2026-10-31 --reason wrong",
    "set_exchange_rate EUR 0.9 --on 2026-10-01 --source ECB",
    "import_prices",
    "create_api_key acme",
    "bootstrap",
    "migrate",
    "shell --verbosity 0 -c 'from llm.models import Account; Account.objects.count()'",
)
# What `manage.py` does, for each line that it is given: a process for each would take twelve starts.
ONE_BY_ONE = """
import os, shlex, sys

os.environ["DJANGO_SETTINGS_MODULE"] = "llmproject.settings"
from llmproject.commandline import run_command
for number, line in enumerate(sys.stdin):
    try:
        run_command(["manage.py", *shlex.split(line)])
    except SystemExit as end:
        print(number, end.code, flush=True)
"""


@pytest.mark.processes
def test_a_command_says_that_the_database_is_away(tmp_path: Path) -> None:
    ended = run_python(tmp_path, "-c", ONE_BY_ONE, lines=COMMANDS, DATABASE_URL=NOWHERE)
    said = [f"{number} 1" for number in range(len(COMMANDS))]
    assert (ended.returncode, ended.stdout.splitlines(), ended.stderr) == (0, said, REFUSED * len(COMMANDS))


@pytest.mark.processes
def test_a_file_that_is_no_database_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite3").write_text("This is not a database, but it is long enough to be read as one." * 20)
    ended = manage(tmp_path, "verify_books")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "The database can't be used: the file is not a database, or it is damaged. "
        "Correct DATABASE_URL, or restore a backup.\n"
    )


@pytest.mark.processes
def test_what_cannot_be_opened_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite3").mkdir()
    ended = manage(tmp_path, "verify_books")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "The database can't be used: its file can't be opened. "
        "Correct DATABASE_URL, or the permissions of the file and its folder.\n"
    )


@pytest.mark.processes
def test_a_database_without_tables_is_to_be_migrated(tmp_path: Path) -> None:
    ended = manage(tmp_path, "verify_books")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "The database can't be used: a table is missing. Run manage.py migrate.\n"


@pytest.mark.processes
def test_django_shows_the_whole_of_it_where_it_is_asked_to(tmp_path: Path) -> None:
    ended = manage(tmp_path, "verify_books", "--traceback", DATABASE_URL=NOWHERE)
    assert (ended.returncode, "Traceback" in ended.stderr, PASSWORD in ended.stderr) == (1, True, False)


def test_a_bug_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_arguments: list[str]) -> None:
        raise OperationalError("the batch ran into repeated deadlocks")

    monkeypatch.setattr(commandline, "execute_from_command_line", fail)
    with pytest.raises(OperationalError, match="repeated deadlocks"):
        commandline.run_command(["manage.py", "verify_books"])
