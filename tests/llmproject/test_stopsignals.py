"""A worker hears that it shall stop, whenever it is told."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.llmproject.commands import ROOT, python_command

pytestmark = pytest.mark.processes

# As granian drives an event loop: one run to start up, one to serve. Signals come at the end of the first, when the
# loop reads no more of them, and while it serves.
WORKER = """
import asyncio, signal
import uvloop
from granian import _signals
from llmproject.stopsignals import begin_drain_at_stop_signal

loop, is_asked = uvloop.new_event_loop(), asyncio.Event()

async def start():
    for _ in range({before}):
        signal.raise_signal({signum})

async def serve():
    for _ in range({after}):
        signal.raise_signal({signum})
        await asyncio.sleep(0.05)
    await asyncio.wait_for(is_asked.wait(), 20)
    print("asked")

begin_drain_at_stop_signal(lambda: is_asked.set())
_signals.set_loop_signals(loop)
loop.run_until_complete(start())
loop.run_until_complete(serve())
"""
MAIN = """
import os, signal
from llmproject.stopsignals import hold_stop_signals_of_children

hold_stop_signals_of_children()
signal.signal(signal.SIGTERM, lambda *_: print("main heard", flush=True))
is_sent, tell = os.pipe()
worker = os.fork()
if worker == 0:
    os.read(is_sent, 1)
    os._exit(int(signal.SIGTERM in signal.sigpending()))
os.kill(worker, signal.SIGTERM)
os.write(tell, b"x")
_, status = os.waitpid(worker, 0)
print("held" if os.waitstatus_to_exitcode(status) == 1 else "not held", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
"""


def output_of(script: str) -> str:
    done = subprocess.run(
        python_command("-c", script), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 1), (3, 0), (0, 5)])
def test_a_worker_hears_of_a_signal_whenever_and_however_often_it_comes(
    signum: signal.Signals, before: int, after: int
) -> None:
    assert output_of(WORKER.format(signum=int(signum), before=before, after=after)) == "asked"


def test_a_signal_to_a_worker_without_handlers_waits_for_them() -> None:
    assert output_of(MAIN).splitlines() == ["held", "main heard"]
