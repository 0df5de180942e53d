"""`python -m tests.faults.run --kills 2000`: a campaign on a scratch database of its own, and what came of it.

Ends with status 1 where a figure that must be zero is not.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.faults.cluster import Cluster
from tests.faults.postgres import Database
from tests.faults.scratch import scratch_database, set_up_django

if TYPE_CHECKING:
    from tests.faults.campaign import Goal, Report

_MAX_EXPLANATIONS = 30


def main() -> None:
    options = _parser().parse_args()
    # So that nothing is left behind: no gateway, no server, no disk.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(TemporaryDirectory(prefix="llm-faults-")))
        folder.mkdir(parents=True, exist_ok=True)
        cluster = stack.enter_context(Cluster()) if options.own_server else None
        server_url = options.database_url if cluster is None else cluster.url
        database = stack.enter_context(scratch_database(server_url, folder))
        report = _run(options, folder, database, cluster)
    _show(report, options)
    sys.exit(0 if report.is_good else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0.0, help="go on with all that is asked for, for so long")
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="then stop, whatever has happened")
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs of workers and servers under load")
    parser.add_argument("--crashes", type=int, default=0, help="of them at named lines of the gateway's code")
    parser.add_argument("--kill-pause", type=float, default=0.0, help="seconds between two kills, on average")
    parser.add_argument("--outages", type=int, default=0, help="of the database, the network and the upstream")
    parser.add_argument("--outage-pause", type=float, default=0.5, help="seconds between two outages, on average")
    parser.add_argument("--hostile", type=int, default=0, help="streams of an upstream that misbehaves in every way")
    parser.add_argument("--provider", choices=["openai", "anthropic"], default="openai", help="that the upstream plays")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sites", type=int, default=1, help="gateways beside each other, as on hosts of their own")
    parser.add_argument("--callers", type=int, default=24)
    parser.add_argument("--full-disks", action="store_true", help="spools on small disks that get full; needs root")
    parser.add_argument("--folder", type=Path, help="an empty one, where the gateways' logs are kept")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--database-url", default="", help="a PostgreSQL server; without one, SQLite with one worker")
    where.add_argument("--own-server", action="store_true", help="a PostgreSQL server of its own, which crashes too")
    return parser


def _run(options: argparse.Namespace, folder: Path, database: Database | None, cluster: Cluster | None) -> Report:
    set_up_django(folder)
    from django.db import connections

    from tests.fakes import FakeUpstream
    from tests.faults import campaign, tariff
    from tests.faults.accounts import make_key

    tariff.set_price()
    goal = _goal(options, is_sqlite=database is None)
    with FakeUpstream(is_lean=True) as upstream:
        report = campaign.run(
            goal, key=make_key(), folder=folder, upstream=upstream, database=database, cluster=cluster
        )
    connections.close_all()
    return report


def _goal(options: argparse.Namespace, *, is_sqlite: bool) -> Goal:
    from tests.faults.campaign import Goal

    return Goal(
        seed=options.seed,
        minutes=options.minutes,
        max_minutes=options.max_minutes,
        kills=options.kills,
        crashes=options.crashes,
        outages=options.outages,
        hostile=options.hostile,
        workers=1 if is_sqlite else options.workers,
        sites=1 if is_sqlite else options.sites,
        callers=options.callers,
        kill_pause_s=options.kill_pause,
        outage_pause_s=options.outage_pause,
        fills_disks=options.full_disks,
        provider=options.provider,
    )


def _show(report: Report, options: argparse.Namespace) -> None:
    books = report.verdict
    share = books.estimated / books.rows if books.rows else 0.0
    figures: dict[str, object] = {
        "calls": books.calls,
        "of them complete": books.complete,
        "of them broken off by faults": report.broken,
        "statuses": dict(report.statuses.most_common()),
        "faults": dict(report.happened.most_common()),
        "SIGKILLs": report.kills,
        "database outages": report.database_outages,
        "hostile streams": options.hostile,
        "ledger entries": books.entries,
        "rows": books.rows,
        "estimated": f"{books.estimated} ({share:.1%})",
        "estimated, never reached the upstream": books.unsent,
        "missing": books.missing,
        "doubled": books.doubled,
        "repeated": books.repeated,
        "wrong": books.wrong,
        "leaked holds": books.leaked_holds,
        "open rows": books.open_rows,
        "unexplained 500s": books.unexplained_500s,
        "under fire": f"{report.under_fire_s:.0f} s",
        "duration": f"{report.seconds:.0f} s",
        "seed": options.seed,
        "command": " ".join(["python -m tests.faults.run", *sys.argv[1:]]),
    }
    for name, value in figures.items():
        print(f"{name:38} {value}")
    for line in [*books.explanations[:_MAX_EXPLANATIONS], *report.notes]:
        print(line)


if __name__ == "__main__":
    main()
