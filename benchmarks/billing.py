"""What a month costs: `python -m benchmarks.billing`.

Fills a fresh PostgreSQL database with ten million calls, then times what billing does with them: the rollups beside
the bare SQL statement that does the same, the end of the month, the export, the reports. docs/benchmarks.md explains
the figures. Exit code 1 where one is beyond what is asked of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.database import AlreadyRunningError, BenchDatabase, DatabaseMissingError, postgres_database
from benchmarks.procstat import describe_machine

if TYPE_CHECKING:
    from benchmarks.billing_steps import Figure

ROWS = 10_000_000
STEPS = ("rollups", "reports", "closing", "export")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], prog="python -m benchmarks.billing")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"calls; default {ROWS:,}")
    parser.add_argument(
        "--steps",
        nargs="+",
        choices=STEPS,
        default=STEPS,
        help="the rollups come first in any case; export needs closing",
    )
    options = parser.parse_args(arguments)
    try:
        with postgres_database() as database, TemporaryDirectory(prefix="llm-bench-") as folder:
            return _run(options, database, Path(folder))
    except (AlreadyRunningError, DatabaseMissingError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, database: BenchDatabase, folder: Path) -> int:
    machine = describe_machine(database.description)
    _set_up_django(database, folder)
    _fill(options.rows)
    print(
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb} GB; {machine.system}; Python {machine.python}; "
        f"{machine.database}; load before: {machine.load_before}"
    )
    figures = []
    for figure in _measure(options.steps, folder):
        figures.append(figure)
        print(_line(figure), flush=True)
    return 0 if all(figure.is_met for figure in figures) else 1


def _set_up_django(database: BenchDatabase, folder: Path) -> None:
    os.environ.update(
        {
            "DATABASE_URL": database.url,
            "DJANGO_SETTINGS_MODULE": "llmproject.settings",
            "LLM_ENV_FILE": "",
            "LLM_KEY_PEPPER": "a pepper of the benchmark",
            "SECRET_KEY": "a secret of the benchmark, which protects nothing but must be long",
            "VAR_DIR": str(folder),
        }
    )
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", interactive=False, verbosity=0)


def _fill(rows: int) -> None:
    from benchmarks.billing_data import make_catalog, settle_statistics, write_adjustments, write_calls

    started = time.perf_counter()
    make_catalog()
    write_calls(rows, on_progress=lambda done: _say(f"{done:,} of {rows:,} calls"))
    adjustments = write_adjustments()
    settle_statistics()
    _say(f"{rows:,} calls and {adjustments:,} adjustments in {time.perf_counter() - started:.0f} s\n")


def _measure(wanted: Sequence[str], folder: Path) -> Iterator[Figure]:
    from benchmarks import billing_steps as steps

    yield from steps.measure_rollups()
    if "reports" in wanted:
        yield from steps.measure_reports()
    if "closing" in wanted or "export" in wanted:
        yield from steps.measure_closing()
    if "export" in wanted:
        yield from steps.measure_export(folder)


def _line(figure: Figure) -> str:
    verdict = "" if figure.limit is None else f" of at most {figure.limit:.3g}: {'met' if figure.is_met else 'MISSED'}"
    note = f"  ({figure.note})" if figure.note else ""
    return f"{figure.name:<45}{figure.value:>9.2f} {figure.unit}{verdict}{note}"


def _say(text: str) -> None:
    print(f"\r{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
