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
from collections.abc import Iterator, Mapping

import psutil

from tests.faults.crash_points import POINTS
from tests.faults.outages import break_something, database_kinds
from tests.faults.sites import CRASH_LOOP_S, Site
from tests.faults.stage import Stage

# A worker that was forked answers by then; killing it earlier would kill nothing that works.
_GROWN_S = 1.0
_POLL_S = 0.05
# So long an order may stand that nobody carries out.
_ORDER_S = 3.0


class Kills:
    """Of the workers of one gateway, by seed, one after the other."""

    def __init__(self, stage: Stage, site: Site, draw: random.Random) -> None:
        self._stage = stage
        self._site = site
        self._draw = draw
        kinds = [name for name, point in POINTS.items() if not point.is_of_outages or database_kinds(stage)]
        self._points = draw.sample(kinds, len(kinds))

    def kill_worker(self) -> bool:
        """Whether there was one to kill."""
        worker = self._choose()
        if worker is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
            self._note("worker killed")
            self._site.await_end(worker)
            return True
        return False

    def crash_worker(self) -> bool:
        """Have one kill itself at the next of the crash points; whether it did. Takes an outage where it needs one."""
        worker = self._choose()
        if worker is None:
            return False
        name = self._points[0]
        passes = self._draw.randint(1, POINTS[name].max_passes)
        order = self._site.orders.give(worker.pid, name, passes=passes)
        if POINTS[name].is_of_outages:
            break_something(self._stage, self._draw, kinds=database_kinds(self._stage))
        deadline = time.monotonic() + _ORDER_S
        while not order.is_carried_out and time.monotonic() < deadline and worker.is_running():
            time.sleep(_POLL_S)
        order.withdraw()
        # Tried again after all others where nobody came by.
        self._points.append(self._points.pop(0))
        if order.is_carried_out:
            self._note(f"crash {name}")
            self._site.await_end(worker)
        return order.is_carried_out

    def restart_site(self) -> bool:
        """SIGKILL, or now and then SIGTERM, for a main process; it is started again meanwhile."""
        if self._site.is_restarting:
            return False
        signum = signal.SIGTERM if self._draw.random() < 0.3 else signal.SIGKILL
        self._site.restart_soon(signum)
        self._note("server killed" if signum == signal.SIGKILL else "server stopped")
        self._site.kills = 0
        return True

    def _choose(self) -> psutil.Process | None:
        if not self._site.is_running and not self._site.is_restarting:
            self._site.restart_soon(signal.SIGKILL)
            self._site.kills = 0
            self._stage.note("server gave up")
        if victims := list(_victims(self._site)):
            return self._draw.choice(victims)
        time.sleep(_POLL_S)
        return None

    def _note(self, what: str) -> None:
        self._site.kills += 1
        self._stage.note(what)


def killed(happened: Mapping[str, int]) -> int:
    """How many SIGKILLs those were. A killed server takes its workers with it; they are not counted."""
    return sum(happened.get(name, 0) for name in ("worker killed", "server killed")) + crashed(happened)


def crashed(happened: Mapping[str, int]) -> int:
    return sum(count for name, count in list(happened.items()) if name.startswith("crash "))


def _victims(site: Site) -> Iterator[psutil.Process]:
    if site.is_restarting or not site.is_running:
        return
    workers = site.workers()
    if len(workers) < site.worker_count or site.age_s(workers[-1]) < _GROWN_S:
        return
    for worker in workers:
        is_newest = worker.pid == workers[-1].pid and site.kills > 0
        if not is_newest or site.age_s(worker) > CRASH_LOOP_S:
            yield worker
