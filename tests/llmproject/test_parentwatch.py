"""A process whose parent was killed dies with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.llmproject.commands import ROOT, python_command

pytestmark = pytest.mark.processes

PARENT = """
import subprocess, sys, time
with subprocess.Popen([sys.executable, "-c", sys.argv[1]]):
    time.sleep(60)
"""
CHILD = """
import os, signal, time
from llmproject.parentwatch import signal_on_parent_death, watch_parent
{watch}
print(os.getpid(), flush=True)
time.sleep(60)
"""
WATCHES = {
    "kernel": "signal_on_parent_death(os.getppid(), signal.SIGTERM)",
    "poll": "watch_parent(os.getppid())",
}
# What a process that is no longer a child of the one it expects does at once.
ORPHAN = "import signal; from llmproject.parentwatch import *; signal_on_parent_death(1 << 22, signal.SIGTERM)"
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal is Linux's")


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("watch", [pytest.param("kernel", marks=only_linux), "poll"])
def test_a_process_dies_with_its_parent(watch: str) -> None:
    with subprocess.Popen(
        python_command("-c", PARENT, CHILD.format(watch=WATCHES[watch])), cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 10
        while is_running(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(child)


@only_linux
def test_a_process_whose_parent_is_gone_already_gets_the_signal_at_once() -> None:
    ended = subprocess.run(python_command("-c", ORPHAN), cwd=ROOT, timeout=30, check=False)
    assert ended.returncode == -signal.SIGTERM
