"""One run: load, faults by seed, a time to come to rest, and the verdict. Django must be set up."""

from __future__ import annotations

import math
import random
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
from tests.faults.commands import run_commands
from tests.faults.kills import Kills, crashed, killed
from tests.faults.load import Load
from tests.faults.postgres import Database
from tests.faults.sites import Site
from tests.faults.small_disk import SmallDisk
from tests.faults.stage import Stage

_REST_S = 60.0
_POLL_S = 0.1
# Three missed beats, after which `reap --now` takes a process for dead.
_SILENCE_S = 3.5
# For the reserve of a worker, that of one that has just died, and some settlements.
_DISK_MEGABYTES = 9

ENVIRONMENT: Mapping[str, str] = {
    "LLM_PROVIDER": "openai",
    "OPENAI_API_KEY": "sk-test-our-own-upstream-key-0123456789",
    "ANTHROPIC_API_KEY": "sk-test-our-other-upstream-key-0123456789",
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
    "LLM_SECRETS_KEY": "only-for-campaigns-0123456789-abcdefghijklmnopqrstuvwxyz",
    "LLM_KEPT_REPLY_MINUTES": "5",
}
"""Short bounds, so that what hangs ends soon."""


@dataclass(frozen=True)
class Goal:
    """What is to happen, at least. Until then, and for so many minutes, all that is asked for goes on; but no longer
    than max_minutes, whatever has happened by then.

    kills: SIGKILLs, those of crashes included. crashes: of them, at a line of the code. outages: of the database or the
    upstream. hostile: streams of an upstream that misbehaves. kills_per_restart: of so many kills one is a whole
    server's. kill_pause_s, outage_pause_s: between two of them, on average. kinds: of outages; () for all that
    can be. fills_disks: spools lie on small disks, which may be full. provider: that the upstream plays.
    """

    seed: int = 1
    minutes: float = 0.0
    max_minutes: float = math.inf
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
    provider: str = "openai"


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
        load = _load(goal, stage, key)
        connection.close()
        fired = time.monotonic()
        with load:
            _wreak(goal, stage, load)
        under_fire_s = time.monotonic() - fired
        _come_to_rest(stage)
        notes = _replay_and_reap(stage)
    result = verdict.compare(upstream.ledger.entries(), verdict.read_rows(), load.outcomes, held=verdict.held_units())
    notes += [f"log: {line}" for site in stage.sites for line in site.log.splitlines() if "Traceback" in line][:5]
    broken = sum(outcome.status is None and outcome.error != "left" for outcome in load.outcomes)
    return Report(
        verdict=result,
        happened=stage.happened,
        kills=killed(stage.happened),
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
        "LLM_PROVIDER": goal.provider,
        "LLM_OPENAI_BASE_URL": upstream.openai_base_url,
        "LLM_ANTHROPIC_BASE_URL": upstream.anthropic_base_url,
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
    limit = goal.hostile or None
    return Load(
        Calls(goal.seed, mix, provider=goal.provider), ports=lambda: ports, key=key, callers=goal.callers, limit=limit
    )


# --- Faults -----------------------------------------------------------------------------------------------------------


class _Clock:
    """How long a campaign goes on."""

    def __init__(self, goal: Goal) -> None:
        started = time.monotonic()
        self._ends_at = started + goal.minutes * 60
        self._gives_up_at = started + goal.max_minutes * 60

    def allows(self, *, is_asked_for: bool, is_reached: bool) -> bool:
        """Whether there is to be another of what is asked for."""
        now = time.monotonic()
        return now < self._gives_up_at and (not is_reached or (is_asked_for and now < self._ends_at))

    def stop(self) -> None:
        self._gives_up_at = 0.0


def _wreak(goal: Goal, stage: Stage, load: Load) -> None:
    """Until all that was asked for has happened. Kills, of each site, and outages know nothing of each other."""
    clock = _Clock(goal)
    with ThreadPoolExecutor(len(stage.sites) + 1) as pool:
        wreckers = [pool.submit(_break, goal, stage, clock)]
        for number, site in enumerate(stage.sites):
            draw = random.Random(f"{goal.seed} site {number}")
            wreckers.append(pool.submit(_kill, goal, stage, Kills(stage, site, draw), draw, clock))
        try:
            for wrecker in wreckers:
                wrecker.result()
        except BaseException:
            clock.stop()
            raise
    while clock.allows(is_asked_for=True, is_reached=not goal.hostile or load.wait(0)):
        time.sleep(_POLL_S)


def _kill(goal: Goal, stage: Stage, kills: Kills, draw: random.Random, clock: _Clock) -> None:
    wanted = max(goal.kills, goal.crashes)
    turns = 0

    def is_reached() -> bool:
        return killed(stage.happened) >= goal.kills and crashed(stage.happened) >= goal.crashes

    while clock.allows(is_asked_for=wanted > 0, is_reached=is_reached()):
        if (turns + 1) % goal.kills_per_restart == 0:
            has_struck = kills.restart_site()
        elif draw.random() * wanted < goal.crashes:
            has_struck = kills.crash_worker()
        else:
            has_struck = kills.kill_worker()
        turns += has_struck
        if has_struck:
            time.sleep(draw.uniform(0, 2 * goal.kill_pause_s))


def _break(goal: Goal, stage: Stage, clock: _Clock) -> None:
    draw = random.Random(f"{goal.seed} outages")
    kinds = goal.kinds or outages.kinds_of(stage)
    count = 0
    while clock.allows(is_asked_for=goal.outages > 0, is_reached=count >= goal.outages):
        outages.break_something(stage, draw, kinds=kinds)
        count += 1
        time.sleep(draw.uniform(0, 2 * goal.outage_pause_s))


# --- Afterwards -------------------------------------------------------------------------------------------------------


def _come_to_rest(stage: Stage) -> None:
    """Until every gateway is back, and what can still be written is written: drained calls and closes kept back."""
    from llm.models import OpenCall

    for site in stage.sites:
        site.settle()
    deadline = time.monotonic() + _REST_S
    last_change, count = time.monotonic(), -1
    while time.monotonic() < deadline and time.monotonic() - last_change < 4:
        now_open = OpenCall.objects.count() + stage.upstream.ledger.open_calls
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
    return notes + run_commands(("reap", "--now"), ("verify_books",), environment=stage.sites[0].environment)


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _REST_S
    while not is_so() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
