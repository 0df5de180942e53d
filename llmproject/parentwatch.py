"""A process whose parent was killed must die with it.

`kill -9` gives the parent no chance to stop its children. An orphaned web worker goes on answering, and shares its port
with the next server that is started.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 1.0
# Environment variable by which the supervisor tells its children its pid.
SUPERVISOR_PID = "LLM_SUPERVISOR_PID"


def die_with_parent() -> None:
    """For a worker of a multi-process server: dies with the process that started it.

    Does nothing in a process that `multiprocessing` didn't start, whose parent is a shell or an init, which may go.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    if sys.platform == "linux":
        signal_on_parent_death(parent.pid, signal.SIGKILL)
    else:
        watch_parent(parent.pid)


def die_with_supervisor() -> None:
    """For a child of `manage.py up`: gets a stop signal when the supervisor is gone. Survives exec() on Linux."""
    pid = int(os.environ.get(SUPERVISOR_PID, "0"))
    if not pid:
        return
    if sys.platform == "linux":
        signal_on_parent_death(pid, signal.SIGTERM)
    else:
        watch_parent(pid)


def signal_on_parent_death(parent_pid: int, signum: int) -> None:
    """Linux: has the kernel send signum to this process when the thread that started it ends.

    Survives exec(). parent_pid: the expected parent, which may already be gone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # Not "is it 1?": in a container the parent may well be process 1.
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signum)


def watch_parent(parent_pid: int) -> None:
    """On any platform: a thread that ends this process soon after its parent is gone."""
    threading.Thread(target=_poll_parent, args=(parent_pid,), name="parentwatch", daemon=True).start()


def _poll_parent(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(POLL_SECONDS)
    os._exit(1)
