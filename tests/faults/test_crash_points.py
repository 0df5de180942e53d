"""A worker dies exactly where it is told to, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import crash_points
from tests.faults.crash_points import POINTS, Orders

pytestmark = pytest.mark.processes

# A child that passes one point three times, and says after each that it lives.
_CHILD = """
import sys
from pathlib import Path
from tests.faults.crash_points import Orders

orders = Orders(Path(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    orders.pass_by(line.strip())
    print("alive", flush=True)
"""


@pytest.fixture
def child(tmp_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def say(child: subprocess.Popen[str], *names: str) -> str:
    """All that the child answers to passing these points."""
    answers, _ = child.communicate("".join(f"{name}\n" for name in names), timeout=30)
    return answers.replace("ready\n", "")


def test_a_worker_dies_at_the_pass_that_it_was_ordered_to(child: subprocess.Popen[str], tmp_path: Path) -> None:
    order = Orders(tmp_path).give(child.pid, "after the open", passes=2)
    assert say(child, "after the open", "before sending", "after the open", "after the open") == "alive\nalive\n"
    assert child.wait() == -signal.SIGKILL
    assert order.is_carried_out


def test_a_worker_lives_on_without_an_order_of_its_own(child: subprocess.Popen[str], tmp_path: Path) -> None:
    order = Orders(tmp_path).give(os.getpid(), "after the open", passes=1)
    assert say(child, "after the open") == "alive\n"
    assert child.wait() == 0
    assert not order.is_carried_out


def test_an_order_that_was_withdrawn_is_not_obeyed(child: subprocess.Popen[str], tmp_path: Path) -> None:
    Orders(tmp_path).give(child.pid, "after the open", passes=1).withdraw()
    assert say(child, "after the open") == "alive\n"
    assert child.wait() == 0


@pytest.mark.parametrize("name", POINTS)
def test_each_point_is_where_it_is_said_to_be(name: str) -> None:
    owner, attribute = crash_points._owner_of(POINTS[name].place)
    assert callable(getattr(owner, attribute))


class FakeOrders(Orders):
    """Notes what was passed instead of dying there."""

    def __init__(self) -> None:
        self.passed: list[str] = []

    def is_due(self, name: str) -> bool:
        self.passed.append(name)
        return False


async def test_what_is_watched_does_what_it_did_before() -> None:
    async def send(body: str) -> str:
        await asyncio.sleep(0)
        return body.upper()

    orders = FakeOrders()
    watched = crash_points._watched(send, orders, ["before sending", "after sending", "after the reply's head"])
    assert await watched("hello") == "HELLO"
    assert orders.passed == ["before sending", "after the reply's head"]
    await asyncio.sleep(2 * crash_points._SOON_S)
    assert orders.passed[2:] == ["after sending"]
