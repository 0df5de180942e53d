"""`python -m tests.faults.run_limits --keys 250`: many keys on small budgets at once, and whether each limit held.

Ends with status 1 where a limit was overspent or a call refused that fitted.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.faults.scratch import scratch_database, set_up_django

if TYPE_CHECKING:
    from tests.faults.limits import LimitsGoal, LimitsReport


def main() -> None:
    options = _parser().parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="llm-limits-")))
        database = stack.enter_context(scratch_database(options.database_url, folder))
        set_up_django(folder)
        report = _run(options, folder, is_sqlite=database is None)
    _show(report, options)
    sys.exit(0 if report.is_good else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run_limits", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keys", type=int, default=250)
    parser.add_argument("--callers", type=int, default=4, help="at a time, of each key")
    parser.add_argument("--workers", type=int, default=2, help="of each gateway")
    parser.add_argument("--sites", type=int, default=2, help="gateways beside each other, as on hosts of their own")
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs of workers meanwhile")
    parser.add_argument("--database-url", default="", help="a PostgreSQL server; without one, SQLite with one worker")
    return parser


def _run(options: argparse.Namespace, folder: Path, *, is_sqlite: bool) -> LimitsReport:
    from django.db import connections

    from tests.fakes import FakeUpstream
    from tests.faults import limits, tariff

    tariff.set_price()
    goal = _goal(options, is_sqlite=is_sqlite)
    with FakeUpstream(is_lean=True) as upstream:
        report = limits.run(goal, folder=folder, upstream=upstream)
    connections.close_all()
    return report


def _goal(options: argparse.Namespace, *, is_sqlite: bool) -> LimitsGoal:
    from tests.faults.limits import LimitsGoal

    return LimitsGoal(
        seed=options.seed,
        keys=options.keys,
        callers=options.callers,
        workers=1 if is_sqlite else options.workers,
        sites=1 if is_sqlite else options.sites,
        kills=options.kills,
    )


def _show(report: LimitsReport, options: argparse.Namespace) -> None:
    figures: dict[str, object] = {
        "calls asked for": report.statuses.total(),
        "statuses": dict(report.statuses.most_common()),
        "calls that fit into the budgets": report.expected,
        "calls let in": report.admitted,
        "refused that fitted": "not told where workers are killed" if report.kills else report.refused_that_fitted,
        "looked at while under way, times": report.watch.samples,
        "limits overspent": len(report.watch.problems),
        "fullest limit": f"{report.watch.fullest:.1%}",
        "SIGKILLs": report.kills,
        "duration": f"{report.seconds:.0f} s",
        "seed": options.seed,
        "command": " ".join(["python -m tests.faults.run_limits", *sys.argv[1:]]),
    }
    for name, value in figures.items():
        print(f"{name:38} {value}")
    for line in [*report.watch.problems[:30], *report.problems[:30]]:
        print(line)


if __name__ == "__main__":
    main()
