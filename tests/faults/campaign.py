"""One run: load, faults by seed, a time to come to rest, and the verdict. Django must be set up."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from django.db import connection

from tests.fakes import FakeUpstream
from tests.faults import verdict
from tests.faults.calls import HOSTILE_MIX, KILL_MIX, NORMAL, Calls, Mix
from tests.faults.chaos_proxy import ChaosProxy
from tests.faults.faults import OUTAGES, Stage, WorkerKills, break_something, restart_a_site
from tests.faults.load import Load
from tests.faults.postgres import Database
from tests.faults.sites import Site

_ROOT = Path(__file__).resolve().parent.parent.parent
_REST_S = 60.0
_POLL_S = 0.1

ENVIRONMENT: Mapping[str, str] = {
    "LLM_PROVIDER": "openai",
    "OPENAI_API_KEY": "sk-test-our-own-upstream-key-0123456789",
    "LLM_UNPRICED_MODELS": "refuse",
    "LLM_CONNECT_TIMEOUT_SECONDS": "2",
    "LLM_FIRST_BYTE_TIMEOUT_SECONDS": "2",
    "LLM_IDLE_TIMEOUT_SECONDS": "1",
    "LLM_TOTAL_TIMEOUT_SECONDS": "20",
    "LLM_DISCONNECT_DRAIN_SECONDS": "5",
    "LLM_RELAY_STALL_SECONDS": "5",
    "LLM_DRAIN_SECONDS": "3",
    "LLM_REAP_AFTER_SECONDS": "10",
    "LLM_LOG_LEVEL": "WARNING",
}
"""Short bounds, so that what hangs ends soon."""


@dataclass(frozen=True)
class Goal:
    """What is to happen, at least: kills, outages, hostile streams, or minutes of load with both kinds of fault.

    kills_per_restart: of so many kills one is a whole server's. kinds: of outages. pause_s: between them, on average.
    """

    seed: int = 1
    minutes: float = 0.0
    kills: int = 0
    outages: int = 0
    hostile: int = 0
    workers: int = 2
    sites: int = 1
    callers: int = 24
    kills_per_minute: float = 0.0
    kills_per_restart: int = 20
    kinds: Sequence[str] = tuple(OUTAGES)
    pause_s: float = 0.5


@dataclass
class Report:
    verdict: verdict.Verdict
    happened: Counter[str]
    statuses: Counter[str]
    broken: int
    seconds: float
    under_fire_s: float
    notes: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return self.verdict.is_exact and not self.notes


def run(goal: Goal, *, key: str, folder: Path, upstream: FakeUpstream, database: Database | None) -> Report:
    """database: where the gateways' books are; None for SQLite, as Django is configured.

    key: of an account that may call everything. folder: the gateways' own.
    """
    started = time.monotonic()
    upstream.set_default(NORMAL)
    environment = {**ENVIRONMENT, "LLM_OPENAI_BASE_URL": upstream.openai_base_url, "VAR_DIR": str(folder / "var")}
    with ExitStack() as stack:
        proxy = None
        if database is not None:
            proxy = stack.enter_context(ChaosProxy(database.host, database.port, user=database.user))
        environment["DATABASE_URL"] = _database_url(database, proxy)
        sites = [Site(folder / f"site{n}", environment, workers=goal.workers) for n in range(goal.sites)]
        for site in sites:
            stack.enter_context(site)
        stage = Stage(sites, upstream, database, proxy)
        load = _load(goal, stage, key)
        fired = time.monotonic()
        connection.close()
        with load:
            _wreak(goal, stage, load)
        under_fire_s = time.monotonic() - fired
        _come_to_rest(stage)
        logs = [site.log for site in sites]
    notes = _replay_and_reap(sites[0], Path(environment["VAR_DIR"]), environment)
    result = verdict.compare(upstream.ledger.entries(), verdict.read_rows(), load.outcomes, held=verdict.held_units())
    notes += [f"log: {line}" for log in logs for line in log.splitlines() if "Traceback" in line][:5]
    broken = sum(outcome.status is None and outcome.error != "left" for outcome in load.outcomes)
    seconds = time.monotonic() - started
    return Report(result, stage.happened, load.statuses(), broken, seconds, under_fire_s, notes)


def _database_url(database: Database | None, proxy: ChaosProxy | None) -> str:
    if database is None or proxy is None:
        return f"sqlite:///{connection.settings_dict['NAME']}"
    return proxy.url(database.name)


def _load(goal: Goal, stage: Stage, key: str) -> Load:
    mix: Mix = HOSTILE_MIX if goal.hostile else KILL_MIX
    ports = [site.port for site in stage.sites]
    most = goal.hostile or None
    return Load(Calls(goal.seed, mix), ports=lambda: ports, key=key, callers=goal.callers, most=most)


# --- Faults -----------------------------------------------------------------------------------------------------------


def _wreak(goal: Goal, stage: Stage, load: Load) -> None:
    """Until all that was asked for has happened."""
    draw = random.Random(goal.seed)
    kills = WorkerKills(stage, draw)
    ends_at = time.monotonic() + goal.minutes * 60
    outages = 0
    while True:
        killed = stage.happened["worker killed"] + stage.happened["server killed"]
        wants_kill, wants_outage = killed < goal.kills, outages < goal.outages
        is_over = time.monotonic() >= ends_at
        if is_over and not wants_kill and not wants_outage and _is_answered(goal, load):
            return
        if wants_kill or (goal.kills_per_minute and not is_over):
            is_servers_turn = (killed + 1) % goal.kills_per_restart == 0
            if not (is_servers_turn and restart_a_site(stage, draw)):
                kills.strike()
        if wants_outage or (goal.minutes and not is_over and not goal.kills):
            break_something(stage, draw, kinds=goal.kinds)
            outages += 1
            time.sleep(draw.uniform(0, 2 * goal.pause_s))
        if goal.kills_per_minute:
            time.sleep(60 / goal.kills_per_minute)
        elif not wants_kill:
            time.sleep(_POLL_S)


def _is_answered(goal: Goal, load: Load) -> bool:
    return not goal.hostile or load.wait(0)


# --- Afterwards -------------------------------------------------------------------------------------------------------


def _come_to_rest(stage: Stage) -> None:
    """Until every gateway is back, and what can still be written is written: drained calls and closes kept back."""
    from llm.models import Usage

    for site in stage.sites:
        site.settle()
    deadline = time.monotonic() + _REST_S
    last_change, count = time.monotonic(), -1
    while time.monotonic() < deadline and time.monotonic() - last_change < 4:
        now_open = Usage.objects.open().count() + stage.upstream.ledger.open_calls
        if now_open != count:
            last_change, count = time.monotonic(), now_open
        time.sleep(_POLL_S)
    connection.close()


def _replay_and_reap(site: Site, var_dir: Path, environment: Mapping[str, str]) -> list[str]:
    """Start once more where closes were left on disk; then settle what the dead have left open. Returns complaints."""
    notes = []
    if _spooled(var_dir):
        with site:
            _wait_until(lambda: not _spooled(var_dir))
        if left := _spooled(var_dir):
            notes.append(f"{left} spooled closes were not replayed")
    for command in (("reap", "--now"), ("verify_books",)):
        done = manage(*command, environment=environment)
        if done.returncode:
            notes.append(f"manage.py {' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return notes


def _spooled(var_dir: Path) -> int:
    """Files with something in them: what a process that is gone could not write into the books."""
    spool = var_dir / "spool"
    return sum(path.stat().st_size > 0 for path in spool.rglob("*") if path.is_file()) if spool.is_dir() else 0


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _REST_S
    while not is_so() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def manage(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A command of the project, as staff would run it."""
    # Not through the proxy: it may be gone by now.
    direct = {name: value for name, value in environment.items() if name != "DATABASE_URL"}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=_ROOT,
        env={**os.environ, **direct, "DATABASE_URL": own_database_url()},
        capture_output=True,
        text=True,
        check=False,
    )


def own_database_url() -> str:
    """The database that this process uses."""
    config = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{config['NAME']}"
    password = f":{config['PASSWORD']}" if config["PASSWORD"] else ""
    return f"postgres://{config['USER']}{password}@{config['HOST']}:{config['PORT']}/{config['NAME']}"
