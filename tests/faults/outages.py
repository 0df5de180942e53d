"""Outages of the database, the network to it, the disk of the spool, and the upstream.

Each takes a moment, sets everything right again, and returns.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
from django.db import connection

from tests.faults.chaos_proxy import PASS, Mode
from tests.faults.postgres import BOOKS_LOCK, Database
from tests.faults.stage import Stage

_SHORTEST_S = 0.3
_LONGEST_S = 1.5
_POLL_S = 0.02
# Longer than a gateway on SQLite waits for its file.
_SQLITE_PATIENCE_S = 5.0


def refuse_connections(stage: Stage, seconds: float) -> None:
    """The database is there, but lets nobody in."""
    with _database(stage).refusing():
        time.sleep(seconds)


def freeze_backends(stage: Stage, seconds: float) -> None:
    """The database accepts connections, and those it had no longer answer."""
    with _database(stage).frozen():
        time.sleep(seconds)


def crowd_out(stage: Stage, seconds: float) -> None:
    """Others have taken all connections that the server allows."""
    ends_at = time.monotonic() + seconds
    with ExitStack() as stack:
        _database(stage).terminate_backends()
        while time.monotonic() < ends_at:
            try:
                stack.enter_context(_database(stage).connect())
            except psycopg.OperationalError:
                time.sleep(_POLL_S)


def crash_server(stage: Stage, seconds: float) -> None:
    """`pg_ctl stop -m immediate`, and a start that has to recover."""
    if stage.cluster is not None:
        stage.cluster.stop("immediate")
        time.sleep(seconds)
        stage.cluster.start()


def fill_disks(stage: Stage, seconds: float) -> None:
    """The disks of the spools are full, and then the database is away too."""
    with ExitStack() as stack:
        for disk in stage.disks:
            stack.enter_context(disk.full())
        stack.enter_context(_database(stage).refusing())
        time.sleep(seconds)


def lock(statement: str) -> Strike:
    """Somebody holds what the statement locks."""

    def strike(stage: Stage, seconds: float) -> None:
        with _database(stage).locked(statement):
            time.sleep(seconds)

    return strike


def lock_file(stage: Stage, seconds: float) -> None:
    """Somebody writes to the SQLite file for longer than anybody waits."""
    with contextlib.closing(
        sqlite3.connect(connection.settings_dict["NAME"], timeout=60, isolation_level=None)
    ) as file:
        file.execute("BEGIN IMMEDIATE")
        time.sleep(_SQLITE_PATIENCE_S + seconds)
        file.execute("ROLLBACK")


def misroute(mode: Mode) -> Strike:
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


Strike = Callable[[Stage, float], None]
Needs = Callable[[Stage], object]


def _always(stage: Stage) -> bool:
    return True


def _needs_sqlite(stage: Stage) -> bool:
    return stage.database is None


def _needs_database(stage: Stage) -> object:
    return stage.database


def _needs_cluster(stage: Stage) -> object:
    return stage.cluster


def _needs_disks(stage: Stage) -> object:
    return stage.disks and stage.database


@dataclass(frozen=True, slots=True)
class Outage:
    """strike: breaks something for so many seconds. needs: whether there is what it breaks."""

    strike: Strike
    needs: Needs = _needs_database
    is_of_database: bool = True


OUTAGES: Mapping[str, Outage] = {
    "database refuses": Outage(refuse_connections),
    "database frozen": Outage(freeze_backends),
    "database crashed": Outage(crash_server, _needs_cluster),
    "database crowded": Outage(crowd_out, _needs_cluster),
    "database file locked": Outage(lock_file, _needs_sqlite),
    "books locked": Outage(lock(f"SELECT pg_advisory_xact_lock({BOOKS_LOCK})")),
    "keys locked": Outage(lock("LOCK TABLE llm_apikey IN ACCESS EXCLUSIVE MODE")),
    "windows locked": Outage(lock("SELECT 1 FROM llm_limitwindow ORDER BY id FOR UPDATE")),
    "network latency": Outage(misroute(Mode("latency", 0.1))),
    "network slow": Outage(misroute(Mode("slow", 20_000))),
    "network resets": Outage(misroute(Mode("reset"))),
    "network refuses": Outage(misroute(Mode("refuse"))),
    "network silent": Outage(misroute(Mode("blackhole"))),
    "network cut": Outage(misroute(Mode("cut", 700))),
    "disk full, database away": Outage(fill_disks, _needs_disks),
    "upstream stopped": Outage(stop_upstream, _always, is_of_database=False),
}


def kinds_of(stage: Stage) -> Sequence[str]:
    """What can be broken here."""
    return [name for name, outage in OUTAGES.items() if outage.needs(stage)]


def database_kinds(stage: Stage) -> Sequence[str]:
    """What of it takes the database away, or its network."""
    return [name for name in kinds_of(stage) if OUTAGES[name].is_of_database]


def break_something(stage: Stage, draw: random.Random, *, kinds: Sequence[str]) -> None:
    """One outage of one of these kinds. The network is cut anywhere: a commit's answer gets lost too."""
    kind = draw.choice(kinds)
    strike = misroute(Mode("cut", draw.randrange(200, 20_000))) if kind == "network cut" else OUTAGES[kind].strike
    seconds = draw.uniform(_SHORTEST_S, _LONGEST_S)
    with stage.outage:
        strike(stage, seconds)
    stage.note(kind)


def _database(stage: Stage) -> Database:
    if stage.database is None:
        raise ValueError("this needs a database server")
    return stage.database
