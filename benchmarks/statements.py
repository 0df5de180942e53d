"""What a call costs PostgreSQL: CPU of the server's process, the books' statements beside their former ones.

    python -m benchmarks.statements

A call is an open and a close, each in a batch of 1, 16 or 64, with nothing or 2,000 calls in flight beside it. The two
kinds of statements take turns on one server, which must run on this machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from statistics import median

from benchmarks.database import postgres_database

BATCHES = (1, 16, 64)
IN_FLIGHT = (0, 2000)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--calls", type=int, default=640, help="in each turn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llm-bench-") as folder, postgres_database() as database:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "llmproject.settings",
            "DATABASE_URL": database.url,
            "VAR_DIR": folder,
            "LLM_ENV_FILE": "",
            "SECRET_KEY": "bench" * 12,
            "LLM_KEY_PEPPER": "pepper" * 12,
        }
        print(f"{database.description}; medians of {arguments.turns} turns of {arguments.calls} calls")
        print(f"{'in flight':>9}  {'batch':>5}  {'former ms/call':>14}  {'now':>6}  {'ratio':>5}")
        _compare(arguments.turns, arguments.calls)


def _compare(turns: int, calls: int) -> None:
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    call_command("migrate", verbosity=0)

    from benchmarks.batches import FORMER_TABLE, BatchThread
    from llm.keys import create_key, get_or_create_account

    key, _ = create_key(get_or_create_account("bench"), name="bench")
    with connection.cursor() as cursor:
        cursor.execute(FORMER_TABLE)
    former, current = BatchThread(key, is_prepared=False), BatchThread(key, is_prepared=True)
    try:
        for in_flight in IN_FLIGHT:
            current.open(in_flight)
            former.open(in_flight)
            for batch in BATCHES:
                costs: Sequence[tuple[float, float]] = []
                for _ in range(turns):
                    with connection.cursor() as cursor:
                        cursor.execute("VACUUM ANALYZE llm_usage, llm_opencall, former_usage")
                    costs = [*costs, (former.cpu_ms_per_call(calls, batch), current.cpu_ms_per_call(calls, batch))]
                before, now = (median(each) for each in zip(*costs, strict=True))
                print(f"{in_flight:>9}  {batch:>5}  {before:>14.2f}  {now:>6.2f}  {now / before:>5.2f}", flush=True)
    finally:
        former.close()
        current.close()
        connection.close()


if __name__ == "__main__":
    main()
