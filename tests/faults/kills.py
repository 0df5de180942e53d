"""SIGKILL for gateway processes under load: at any moment, or at a line of their code; now and then for a whole server.

Two workers of a gateway that die at once may be counted as one by its server, which then replaces only one of them; and
a server gives up where a worker that it has just replaced dies within seconds. So they die one after the other, and
the newest one only when it has lived a while.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator

import psutil

from tests.faults.crash_points import POINTS
from tests.faults.outages import break_something, database_kinds
from tests.faults.sites import CRASH_LOOP_S, Site
from tests.faults.stage import Stage

# A worker that was forked answers by then; killing it earlier would kill nothing that works.
_GROWN_S = 1.0
_POLL_S = 0.02
# So long an order may stand that nobody carries out.
_ORDER_S = 3.0


class Kills:
    """By seed, one after the other."""

    def __init__(self, stage: Stage, draw: random.Random) -> None:
        self._stage = stage
        self._draw = draw
        kinds = [name for name, point in POINTS.items() if not point.is_of_outages or database_kinds(stage)]
        self._points = draw.sample(kinds, len(kinds))

    @property
    def count(self) -> int:
        """SIGKILLs so far."""
        return sum(
            count
            for name, count in self._stage.happened.items()
            if name in ("worker killed", "server killed") or name.startswith("crash ")
        )

    def kill_worker(self) -> bool:
        """Whether there was one to kill."""
        victim = self._choose()
        if victim is None:
            return False
        site, worker = victim
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
            self._note(site, "worker killed")
            return True
        return False

    def crash_worker(self) -> bool:
        """Have one kill itself at the next of the crash points; whether it did."""
        victim = self._choose()
        if victim is None:
            return False
        site, worker = victim
        name = self._points[0]
        passes = self._draw.randint(1, POINTS[name].most_passes)
        order = site.orders.give(worker.pid, name, passes=passes)
        if POINTS[name].is_of_outages:
            break_something(self._stage, self._draw, kinds=database_kinds(self._stage))
        deadline = time.monotonic() + _ORDER_S
        while not order.is_carried_out and time.monotonic() < deadline and worker.is_running():
            time.sleep(_POLL_S)
        order.withdraw()
        # Tried again after all others where nobody came by.
        self._points.append(self._points.pop(0))
        if order.is_carried_out:
            self._note(site, f"crash {name}")
        return order.is_carried_out

    def restart_site(self) -> bool:
        """SIGKILL, or now and then SIGTERM, for a main process; it is started again meanwhile."""
        ready = [site for site in self._stage.sites if not site.is_restarting]
        if not ready:
            return False
        signum = signal.SIGTERM if self._draw.random() < 0.3 else signal.SIGKILL
        site = self._draw.choice(ready)
        site.restart_soon(signum)
        site.kills = 0
        self._stage.happened["server killed" if signum == signal.SIGKILL else "server stopped"] += 1
        return True

    def _choose(self) -> tuple[Site, psutil.Process] | None:
        victims = [(site, worker) for site in self._stage.sites for worker in _victims(site)]
        if victims:
            return self._draw.choice(victims)
        time.sleep(_POLL_S)
        return None

    def _note(self, site: Site, what: str) -> None:
        site.kills += 1
        self._stage.happened[what] += 1


def _victims(site: Site) -> Iterator[psutil.Process]:
    if site.is_restarting or not site.is_running:
        return
    workers = site.workers()
    now = time.time()
    if len(workers) < site.worker_count or now - workers[-1].create_time() < _GROWN_S:
        return
    for worker in workers:
        is_newest = worker.pid == workers[-1].pid and site.kills > 0
        if not is_newest or now - worker.create_time() > CRASH_LOOP_S:
            yield worker
