"""What checking the books takes: everything by hand, and a night's share, with so many calls on SQLite.

    python -m benchmarks.verification --rows 1000000

Calls are spread over a hundred days. Each check runs in its own process, and its peak memory is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DAYS = 100

_MAKE = """
import sys
import django
django.setup()
from benchmarks.verification import make_calls
make_calls(int(sys.argv[1]))
"""
_CHECK = """
import json, resource, sys, time
import django
django.setup()
from llm import audit
began = time.perf_counter()
findings = getattr(audit, sys.argv[1])()
print(json.dumps({
    "rows": findings.rows,
    "problems": findings.problems,
    "seconds": time.perf_counter() - began,
    "cpu_seconds": time.process_time(),
    "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def make_calls(rows: int) -> None:
    """Settled calls under two limits, as the books would have written them."""
    from datetime import UTC, datetime, timedelta
    from decimal import Decimal
    from uuid import UUID

    from llm.enums import CallOutcome, LimitMetric, LimitPer, UsageSource, UsageStatus
    from llm.ids import first_id_at
    from llm.keys import create_key, get_or_create_account
    from llm.limits.changes import set_limit
    from llm.limits.periods import EVER
    from llm.models import LimitWindow, Usage

    key = create_key(get_or_create_account("bench"), name="bench")[0]
    limit, _ = set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.TOTAL, 10**12, None)
    window = LimitWindow.objects.create(limit=limit, starts_at=EVER, used=13 * rows)
    last = datetime.now(UTC) - timedelta(hours=30)
    step = timedelta(days=DAYS) / rows
    calls = []
    for number in range(rows):
        moment = last - step * (rows - number)
        usage_id = UUID(int=first_id_at(moment).int + number)
        calls.append(
            Usage(
                id=usage_id,
                request_id=usage_id,
                account=key.account,
                api_key=key,
                process_id=usage_id,
                dialect="openai.chat",
                provider="openai",
                model="m",
                upstream_model="m",
                holds=[[window.pk, 150]],
                status=UsageStatus.SETTLED,
                usage_source=UsageSource.REPORTED,
                outcome=CallOutcome.OK,
                opened_at=moment,
                closed_at=moment,
                recorded_at=moment,
                local_day=moment.date(),
                prompt_tokens=9,
                completion_tokens=4,
                cost=None,
                upstream_cost=Decimal(0),
            ).stamp_digest()
        )
        if len(calls) == 5000 or number == rows - 1:
            Usage.objects.bulk_create(calls)
            calls = []


def run(code: str, argument: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, argument], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="llm-bench-") as folder:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "llmproject.settings",
            "DATABASE_URL": f"sqlite:///{folder}/bench.sqlite3",
            "VAR_DIR": folder,
            "LLM_ENV_FILE": f"{folder}/none",
            "SECRET_KEY": "bench" * 12,
            "LLM_KEY_PEPPER": "pepper" * 12,
        }
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=ROOT, env=environment, check=True
        )
        began = time.perf_counter()
        run(_MAKE, str(rows), environment)
        print(f"{rows:,} calls made in {time.perf_counter() - began:.0f} s, SQLite {sqlite3.sqlite_version}")
        figures = {}
        for name, check in (("everything", "verify"), ("a night", "verify_recent")):
            found = figures[name] = json.loads(run(_CHECK, check, environment).splitlines()[-1])
            print(
                f"{name}: {found['rows']:,} calls, {found['problems']} problems, {found['seconds']:.1f} s, "
                f"{found['cpu_seconds']:.1f} s of CPU, {found['memory_mb']:.0f} MB"
            )
        ratio = figures["a night"]["cpu_seconds"] / figures["everything"]["cpu_seconds"]
        print(f"a night takes {ratio:.2f} of the CPU of everything")


if __name__ == "__main__":
    main()
