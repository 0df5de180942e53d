"""One run: load, faults by seed, a time to come to rest, and the verdict. Django must be set up."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from django.db import connection

from tests.fakes import FakeUpstream
from tests.faults import outages, verdict
from tests.faults.calls import HOSTILE_MIX, KILL_MIX, NORMAL, Calls
from tests.faults.chaos_proxy import ChaosProxy
from tests.faults.cluster import Cluster
from tests.faults.kills import Kills
from tests.faults.load import Load
from tests.faults.postgres import Database
from tests.faults.sites import Site
from tests.faults.small_disk import SmallDisk
from tests.faults.stage import Stage

_ROOT = Path(__file__).resolve().parent.parent.parent
_REST_S = 60.0
_POLL_S = 0.1
# Three missed beats, after which `reap --now` takes a process for dead.
_SILENCE_S = 3.5
# For the reserve of a worker, that of one that has just died, and some settlements.
_DISK_MEGABYTES = 9

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
    "LLM_REAP_AFTER_SECONDS": "6",
    "LLM_LOG_LEVEL": "WARNING",
}
"""Short bounds, so that what hangs ends soon."""


@dataclass(frozen=True)
class Goal:
    """What is to happen, at least. Until then, and for so many minutes, all that is asked for goes on.

    kills: SIGKILLs, those of crashes included. crashes: of them, at a line of the code. outages: of the database or the
    upstream. hostile: streams of an upstream that misbehaves. kills_per_restart: of so many kills one is a whole
    server's. kill_pause_s, outage_pause_s: between two of them, on average. kinds: of outages; () for all that
    can be. fills_disks: spools lie on small disks, which may be full.
    """

    seed: int = 1
    minutes: float = 0.0
    kills: int = 0
    crashes: int = 0
    outages: int = 0
    hostile: int = 0
    workers: int = 2
    sites: int = 1
    callers: int = 24
    kills_per_restart: int = 20
    kill_pause_s: float = 0.0
    outage_pause_s: float = 0.5
    kinds: Sequence[str] = ()
    fills_disks: bool = False


@dataclass
class Report:
    """broken: calls that ended without a reply, or in the midst of one, though their caller would have stayed."""

    verdict: verdict.Verdict
    happened: Counter[str]
    kills: int
    statuses: Counter[str]
    broken: int
    seconds: float
    under_fire_s: float
    notes: list[str] = field(default_factory=list)

    @property
    def database_outages(self) -> int:
        return sum(self.happened[name] for name, outage in outages.OUTAGES.items() if outage.is_of_database)

    @property
    def is_good(self) -> bool:
        return self.verdict.is_exact and not self.notes


def run(
    goal: Goal,
    *,
    key: str,
    folder: Path,
    upstream: FakeUpstream,
    database: Database | None,
    cluster: Cluster | None = None,
) -> Report:
    """database: where the gateways' books are; None for SQLite, as Django is configured. cluster: its server, if ours.

    key: of an account that may call everything. folder: the gateways' own.
    """
    started = time.monotonic()
    upstream.set_default(NORMAL)
    with ExitStack() as stack:
        stage = _set_stage(goal, stack, folder, upstream, database, cluster)
        kills = Kills(stage, random.Random(goal.seed))
        load = _load(goal, stage, key)
        connection.close()
        fired = time.monotonic()
        with load:
            _wreak(goal, stage, load, kills)
        under_fire_s = time.monotonic() - fired
        _come_to_rest(stage)
        notes = _replay_and_reap(stage)
    result = verdict.compare(upstream.ledger.entries(), verdict.read_rows(), load.outcomes, held=verdict.held_units())
    notes += [f"log: {line}" for site in stage.sites for line in site.log.splitlines() if "Traceback" in line][:5]
    broken = sum(outcome.status is None and outcome.error != "left" for outcome in load.outcomes)
    return Report(
        verdict=result,
        happened=stage.happened,
        kills=kills.count,
        statuses=load.statuses(),
        broken=broken,
        seconds=time.monotonic() - started,
        under_fire_s=under_fire_s,
        notes=notes,
    )


def _set_stage(
    goal: Goal,
    stack: ExitStack,
    folder: Path,
    upstream: FakeUpstream,
    database: Database | None,
    cluster: Cluster | None,
) -> Stage:
    proxy = None
    if database is not None:
        proxy = stack.enter_context(ChaosProxy(database.host, database.port, user=database.user))
    environment = {
        **ENVIRONMENT,
        "LLM_OPENAI_BASE_URL": upstream.openai_base_url,
        "DATABASE_URL": _database_url(database, proxy),
    }
    sites = [Site(folder / f"site{n}", environment, workers=goal.workers) for n in range(goal.sites)]
    disks = [SmallDisk(site.spool, megabytes=_DISK_MEGABYTES * (goal.workers + 1)) for site in sites]
    for context in (*(disks if goal.fills_disks else ()), *sites):
        stack.enter_context(context)
    return Stage(sites, upstream, database, proxy, cluster, disks if goal.fills_disks else ())


def _database_url(database: Database | None, proxy: ChaosProxy | None) -> str:
    if database is None or proxy is None:
        return f"sqlite:///{connection.settings_dict['NAME']}"
    return proxy.url(database.name)


def _load(goal: Goal, stage: Stage, key: str) -> Load:
    mix = HOSTILE_MIX if goal.hostile else KILL_MIX
    ports = [site.port for site in stage.sites]
    most = goal.hostile or None
    return Load(Calls(goal.seed, mix), ports=lambda: ports, key=key, callers=goal.callers, most=most)


# --- Faults -----------------------------------------------------------------------------------------------------------


def _wreak(goal: Goal, stage: Stage, load: Load, kills: Kills) -> None:
    """Until all that was asked for has happened. Kills and outages know nothing of each other."""
    ends_at = time.monotonic() + goal.minutes * 60

    def is_over() -> bool:
        return time.monotonic() >= ends_at

    with ThreadPoolExecutor(2) as pool:
        wreckers = [pool.submit(_kill, goal, kills, is_over), pool.submit(_break, goal, stage, is_over)]
        for wrecker in wreckers:
            wrecker.result()
    while not is_over() or (goal.hostile and not load.wait(0)):
        time.sleep(_POLL_S)


def _kill(goal: Goal, kills: Kills, is_over: Callable[[], bool]) -> None:
    draw = random.Random(f"{goal.seed} kills")
    crashes = turns = 0
    while kills.count < goal.kills or crashes < goal.crashes or (not is_over() and (goal.kills or goal.crashes)):
        if (turns + 1) % goal.kills_per_restart == 0 and goal.kills:
            has_struck = kills.restart_site()
        elif crashes * max(goal.kills, goal.crashes) < goal.crashes * (kills.count + 1):
            has_struck = kills.crash_worker()
            crashes += has_struck
        else:
            has_struck = kills.kill_worker()
        turns += has_struck
        if has_struck:
            time.sleep(draw.uniform(0, 2 * goal.kill_pause_s))


def _break(goal: Goal, stage: Stage, is_over: Callable[[], bool]) -> None:
    draw = random.Random(f"{goal.seed} outages")
    kinds = goal.kinds or outages.kinds_of(stage)
    count = 0
    while count < goal.outages or (not is_over() and goal.outages):
        outages.break_something(stage, draw, kinds=kinds)
        count += 1
        time.sleep(draw.uniform(0, 2 * goal.outage_pause_s))


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


def _replay_and_reap(stage: Stage) -> list[str]:
    """Stop all gateways, start those once more that have left closes on disk, settle what the dead have left open.

    Returns complaints.
    """
    for site in stage.sites:
        site.stop()
    notes = []
    for site in stage.sites:
        if site.spooled_files:
            site.start()
            _wait_until(lambda site=site: not site.spooled_files)  # type: ignore[misc]
            site.stop()
        if left := site.spooled_files:
            notes.append(f"{left} spools were not replayed")
    time.sleep(_SILENCE_S)
    for command in (("reap", "--now"), ("verify_books",)):
        done = manage(*command, environment=stage.sites[0].environment)
        if done.returncode:
            notes.append(f"manage.py {' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return notes


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
