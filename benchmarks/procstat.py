"""What processes have used, as Linux counts it, and the machine that they ran on."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessesChangedError(RuntimeError):
    """A process came or went during a run, so the difference of two counts means nothing."""


@dataclass(frozen=True, slots=True)
class Machine:
    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    database: str
    load_before: float
    """How many processes wanted a core in the minute before: above 0.3 or so, something else spoiled the figures."""


def process_tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            try:
                children.setdefault(int(_stat_fields(int(entry.name))[1]), []).append(int(entry.name))
            except OSError:
                continue  # It ended while we looked.
    tree = [pid]
    for member in tree:
        tree.extend(sorted(children.get(member, ())))
    return tree


def cpu_ms_by_process(pid: int) -> dict[int, float]:
    """User and system time so far of each process of the tree, all threads included, in steps of one tick (10 ms)."""
    return {member: _cpu_ms(member) for member in process_tree(pid)}


def cpu_us_by_thread(pid: int) -> Counter[str]:
    """Microseconds of CPU so far of a process's living threads, by their kernel names.

    Python 3.11 doesn't tell the kernel its threads' names: `main` is the event loop, the others called like the
    program are the books' writer and the readers of the database.
    """
    used: Counter[str] = Counter()
    for task in (_PROC / str(pid) / "task").iterdir():
        with contextlib.suppress(OSError):
            name = "main" if task.name == str(pid) else (task / "comm").read_text().strip()
            used[name] += int((task / "schedstat").read_text().split()[0]) // 1000
    return used


def cpu_ms_between(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Raises ProcessesChangedError where the two don't speak of the same processes."""
    if before.keys() != after.keys():
        raise ProcessesChangedError(f"processes {sorted(before)} became {sorted(after)}: did a worker die?")
    return sum(after.values()) - sum(before.values())


def peak_rss_mb(process: subprocess.Popen[Any]) -> float:
    """The most memory that it had by its end, which is waited for; looked at five times a second.

    What the kernel says after its end won't do: that begins with the memory of the process that it was forked from.
    """
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = (_PROC / str(process.pid) / "status").read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))])
        time.sleep(0.2)
    return peak * 1024 / 1e6


def rss_mb(pid: int) -> float:
    """Memory in use now, shared pages included."""
    pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    return pages * _PAGE_BYTES / 1e6


def describe_machine(database: str) -> Machine:
    """database: its kind and version."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        database=database,
        load_before=round(os.getloadavg()[0], 2),
    )


def _cpu_ms(pid: int) -> float:
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS_PER_SECOND


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on: a program's name may hold spaces and parentheses."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _cpu_model() -> str:
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
