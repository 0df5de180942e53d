"""What goes wrong: kills of processes, and outages of the database, the network and the upstream.

Each outage takes a moment, sets everything right again, and returns.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from tests.fakes import FakeUpstream
from tests.faults.chaos_proxy import PASS, ChaosProxy, Mode
from tests.faults.postgres import BOOKS_LOCK, Database
from tests.faults.sites import CRASH_LOOP_S, Site

# A worker that was forked answers by then; killing it earlier would kill nothing that works.
_GROWN_S = 1.0
_POLL_S = 0.02
_SHORTEST_S = 0.3
_LONGEST_S = 1.5


@dataclass
class Stage:
    """What faults can befall. Without a database to be reached over a network, `database` and `proxy` are None."""

    sites: Sequence[Site]
    upstream: FakeUpstream
    database: Database | None = None
    proxy: ChaosProxy | None = None
    happened: Counter[str] = field(default_factory=Counter)


# --- Kills ------------------------------------------------------------------------------------------------------------


class WorkerKills:
    """SIGKILL for workers, one after the other, as fast as their servers can take it for an accident.

    granian gives up where a worker it has just replaced dies within seconds: then another one is killed.
    """

    def __init__(self, stage: Stage, draw: random.Random) -> None:
        self._stage = stage
        self._draw = draw

    def strike(self) -> bool:
        """Whether there was one to kill."""
        victims = [(site, worker) for site in self._stage.sites for worker in self._victims(site)]
        if not victims:
            time.sleep(_POLL_S)
            return False
        site, worker = self._draw.choice(victims)
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
            site.kills += 1
            self._stage.happened["worker killed"] += 1
            return True
        return False

    def _victims(self, site: Site) -> Iterator[psutil.Process]:
        if site.is_restarting or not site.is_running:
            return
        workers = site.workers()
        now = time.time()
        # Two that die at once may be counted as one by their server, which then replaces only one of them.
        if len(workers) < site.worker_count or now - workers[-1].create_time() < _GROWN_S:
            return
        for worker in workers:
            is_newest = worker.pid == workers[-1].pid and site.kills > 0
            if not is_newest or now - worker.create_time() > CRASH_LOOP_S:
                yield worker


def restart_a_site(stage: Stage, draw: random.Random) -> bool:
    """SIGKILL, or now and then SIGTERM, for a main process; it is started again meanwhile."""
    ready = [site for site in stage.sites if not site.is_restarting]
    if not ready:
        return False
    signum = signal.SIGTERM if draw.random() < 0.3 else signal.SIGKILL
    site = draw.choice(ready)
    site.restart_soon(signum)
    site.kills = 0
    stage.happened["server killed" if signum == signal.SIGKILL else "server stopped"] += 1
    return True


# --- Outages ----------------------------------------------------------------------------------------------------------

Outage = Callable[[Stage, float], None]


def refuse_connections(stage: Stage, seconds: float) -> None:
    """The database is there, but lets nobody in."""
    if stage.database is not None:
        with stage.database.refusing():
            time.sleep(seconds)


def freeze_backends(stage: Stage, seconds: float) -> None:
    """The database accepts connections, and those it had no longer answer."""
    if stage.database is not None:
        with stage.database.frozen():
            time.sleep(seconds)


def hold_the_books_lock(stage: Stage, seconds: float) -> None:
    _lock(stage, f"SELECT pg_advisory_xact_lock({BOOKS_LOCK})", seconds)


def hold_the_keys(stage: Stage, seconds: float) -> None:
    _lock(stage, "LOCK TABLE llm_apikey IN ACCESS EXCLUSIVE MODE", seconds)


def hold_the_windows(stage: Stage, seconds: float) -> None:
    if stage.database is not None and stage.database.has_table("llm_limitwindow"):
        _lock(stage, "SELECT 1 FROM llm_limitwindow FOR UPDATE", seconds)


def _lock(stage: Stage, statement: str, seconds: float) -> None:
    if stage.database is not None:
        with stage.database.locked(statement):
            time.sleep(seconds)


def misroute(mode: Mode) -> Outage:
    """The network to the database does so."""

    def strike(stage: Stage, seconds: float) -> None:
        if stage.proxy is not None:
            stage.proxy.set_mode(mode)
            try:
                time.sleep(seconds)
            finally:
                stage.proxy.set_mode(PASS)

    return strike


def stop_upstream(stage: Stage, seconds: float) -> None:
    stage.upstream.stop()
    time.sleep(seconds)
    stage.upstream.start()


OUTAGES: Mapping[str, Outage] = {
    "database refuses": refuse_connections,
    "database frozen": freeze_backends,
    "books locked": hold_the_books_lock,
    "keys locked": hold_the_keys,
    "windows locked": hold_the_windows,
    "network latency": misroute(Mode("latency", 0.1)),
    "network slow": misroute(Mode("slow", 20_000)),
    "network resets": misroute(Mode("reset")),
    "network refuses": misroute(Mode("refuse")),
    "network silent": misroute(Mode("blackhole")),
    "network cut": misroute(Mode("cut", 700)),
    "upstream stopped": stop_upstream,
}


def break_something(stage: Stage, draw: random.Random, *, kinds: Sequence[str]) -> None:
    """One outage of one of these kinds. The network is cut anywhere: a commit's answer gets lost too."""
    kind = draw.choice(kinds)
    outage = misroute(Mode("cut", draw.randrange(200, 20_000))) if kind == "network cut" else OUTAGES[kind]
    outage(stage, draw.uniform(_SHORTEST_S, _LONGEST_S))
    stage.happened[kind] += 1
