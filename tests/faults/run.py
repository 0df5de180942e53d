"""`python -m tests.faults.run --kills 2000`: a campaign on a scratch database of its own, and what came of it.

Ends with status 1 where a figure that must be zero is not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.faults.postgres import Database

if TYPE_CHECKING:
    from tests.faults.campaign import Goal, Report

_MOST_EXPLANATIONS = 30


def main() -> None:
    options = _parser().parse_args()
    with TemporaryDirectory(prefix="llm-faults-") as name, _scratch_database(options.database_url, Path(name)) as found:
        report, goal = _run(options, Path(name), found)
    _show(report, goal)
    sys.exit(0 if report.is_good else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0.0, help="load and faults for so long, at least")
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs of workers and servers under load")
    parser.add_argument("--kills-per-minute", type=float, default=0.0, help="no faster than that")
    parser.add_argument("--outages", type=int, default=0, help="of the database, the network and the upstream")
    parser.add_argument("--hostile", type=int, default=0, help="streams of an upstream that misbehaves, without faults")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sites", type=int, default=1, help="gateways beside each other")
    parser.add_argument("--callers", type=int, default=24)
    parser.add_argument("--database-url", default="", help="a PostgreSQL server; without one, SQLite with one worker")
    return parser


@contextlib.contextmanager
def _scratch_database(server_url: str, folder: Path) -> Iterator[Database | None]:
    """None for SQLite. Either way DATABASE_URL names an empty database when the block starts."""
    if not server_url:
        os.environ["DATABASE_URL"] = f"sqlite:///{folder / 'db.sqlite3'}"
        yield None
        return
    database = Database(server_url, f"llm_faults_{os.getpid()}")
    database.create()
    os.environ["DATABASE_URL"] = database.url
    try:
        yield database
    finally:
        database.drop()


def _run(options: argparse.Namespace, folder: Path, database: Database | None) -> tuple[Report, Goal]:
    _set_up_django(folder)
    from tests.fakes import FakeUpstream
    from tests.faults import campaign, tariff
    from tests.faults.accounts import make_key

    tariff.set_price()
    goal = campaign.Goal(
        seed=options.seed,
        minutes=options.minutes,
        kills=options.kills,
        outages=options.outages,
        hostile=options.hostile,
        workers=options.workers if database is not None else 1,
        sites=options.sites if database is not None else 1,
        callers=options.callers,
        kills_per_minute=options.kills_per_minute,
    )
    with FakeUpstream(is_lean=True) as upstream:
        report = campaign.run(goal, key=make_key(), folder=folder, upstream=upstream, database=database)
    from django.db import connections

    connections.close_all()
    return report, goal


def _set_up_django(folder: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("OPENAI_", "ANTHROPIC_", "LLM_", "WEB_"))]:
        del os.environ[name]
    os.environ["DJANGO_SETTINGS_MODULE"] = "llmproject.settings"
    os.environ["LLM_ENV_FILE"] = ""
    os.environ["VAR_DIR"] = str(folder / "var")
    os.environ["SECRET_KEY"] = "a secret of the campaign, long enough for what it is asked to protect"
    os.environ["LLM_KEY_PEPPER"] = "a pepper of the campaign"
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def _show(report: Report, goal: Goal) -> None:
    books = report.verdict
    share = books.estimated / books.rows if books.rows else 0.0
    figures: dict[str, object] = {
        "calls": books.calls,
        "of them complete": books.complete,
        "of them broken off by faults": report.broken,
        "statuses": dict(report.statuses.most_common()),
        "faults": dict(report.happened.most_common()),
        "kills": report.happened["worker killed"] + report.happened["server killed"],
        "hostile streams": goal.hostile,
        "ledger entries": books.entries,
        "rows": books.rows,
        "estimated": f"{books.estimated} ({share:.1%})",
        "estimated, never reached the upstream": books.unsent,
        "missing": books.missing,
        "doubled": books.doubled,
        "wrong": books.wrong,
        "leaked holds": books.leaked_holds,
        "open rows": books.open_rows,
        "unexplained 500s": books.unexplained_500s,
        "under fire": f"{report.under_fire_s:.0f} s",
        "duration": f"{report.seconds:.0f} s",
        "seed": goal.seed,
        "command": " ".join(["python -m tests.faults.run", *sys.argv[1:]]),
    }
    for name, value in figures.items():
        print(f"{name:38} {value}")
    for line in [*books.explanations[:_MOST_EXPLANATIONS], *report.notes]:
        print(line)


if __name__ == "__main__":
    main()
