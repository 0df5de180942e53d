"""All programs start together and stop together, however the end comes."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx2
import psutil
import pytest

from llmproject.readiness import announce_when_ready
from tests.gateway_process import free_port
from tests.llmproject.commands import ROOT, environment_of, python_command

PATIENCE_S = 240.0
STOP_S = 20.0


class Supervised:
    """A supervisor in a process of its own, and all that it started."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.family: list[psutil.Process] = []

    def log(self) -> str:
        return self._log.read_text()

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def left(self, *, timeout_s: float) -> list[psutil.Process]:
        """Who of them still runs when the time is over."""
        deadline = time.monotonic() + timeout_s
        while (running := [process for process in self.family if is_running(process)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return running

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.family += psutil.Process(self.process.pid).children(recursive=True)
        for process in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait()


def is_running(process: psutil.Process) -> bool:
    """A process that has ended may be a zombie for as long as nobody asks for its status."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


Start = Callable[..., Supervised]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(*arguments: str, **environment: str) -> Supervised:
            command = python_command(*arguments)
            supervised = Supervised(
                command, environment_of(tmp_path, LLM_DRAIN_SECONDS="5", **environment), tmp_path / "log"
            )
            stack.callback(supervised.kill)
            return supervised

        yield start


# --- The gateway itself -----------------------------------------------------------------------------------------------


def is_healthy(port: int) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=2, trust_env=False).status_code == 200
    return False


def wait_for_gateway(supervised: Supervised, port: int) -> None:
    """Until the web process answers, and worker and beat have come up."""
    supervised.wait_until(lambda: " ready." in supervised.log() and "beat.ready" in supervised.log())
    supervised.wait_until(lambda: is_healthy(port))


def roles(supervised: Supervised) -> set[str]:
    """What the supervisor's own children do."""
    children = psutil.Process(supervised.process.pid).children()
    return {role for child in children for role in ("llmproject.server", "worker", "beat") if role in child.cmdline()}


@pytest.mark.e2e
@pytest.mark.slow
def test_web_worker_and_beat_run_until_ctrl_c(supervise: Start, tmp_path: Path) -> None:
    port = free_port()
    supervised = supervise("manage.py", "up", WEB_PORT=str(port))
    wait_for_gateway(supervised, port)
    assert roles(supervised) == {"llmproject.server", "worker", "beat"}
    assert (tmp_path / "metrics" / str(port)).is_dir()
    supervised.process.send_signal(signal.SIGINT)
    assert supervised.process.wait(STOP_S) == 0, supervised.log()
    assert supervised.left(timeout_s=0.5) == []
    assert "Traceback" not in supervised.log()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_first_start_ends_with_a_line_that_works(supervise: Start) -> None:
    port = free_port()
    supervised = supervise("manage.py", "up", "--bootstrap", WEB_PORT=str(port))
    supervised.wait_until(lambda: "\nReady: " in supervised.log() and "curl " in supervised.log())
    log = supervised.log()
    assert log.index("Preparing the database") < log.index("Importing prices") < log.index("shown only once")
    assert log.count("curl ") == log.count("\nReady: ") == 1
    [line] = re.findall(r"^curl .*$", log, re.MULTILINE)
    assert "Bearer llm_" in line
    answered = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert '"content":"Echo: Hello"' in answered.stdout


def test_readiness_is_asked_for_until_it_is_there() -> None:
    statuses = [503, 503, 200]

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    done = threading.Event()
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        announce_when_ready("127.0.0.1", server.server_port, done.set)
        assert done.wait(PATIENCE_S)
        server.shutdown()
        thread.join()
    assert statuses == []


def test_nothing_is_announced_where_nobody_answers() -> None:
    said: list[str] = []
    given_up = announce_when_ready("127.0.0.1", free_port(), lambda: said.append("ready"))
    given_up.set()
    assert said == []


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a poll takes the kernel's place, and beat has none")
def test_nothing_outlives_a_supervisor_that_is_killed(supervise: Start) -> None:
    port = free_port()
    supervised = supervise("-m", "llmproject.supervisor", "15", WEB_PORT=str(port))
    wait_for_gateway(supervised, port)
    assert len(supervised.family) >= 4
    supervised.process.kill()
    assert supervised.left(timeout_s=STOP_S) == []


# --- Any programs -----------------------------------------------------------------------------------------------------

RUN = """
import os, sys
from llmproject.supervisor import Program, Supervisor
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
stubborn = [sys.executable, "-c", deaf]
parent = [sys.executable, "-c", "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"]
failing = [sys.executable, "-c", "import sys; sys.exit(3)"]
kinds = {"sleep": sleep, "stubborn": stubborn, "parent": parent, "failing": failing}
grace, *names = sys.argv[1:]
programs = [Program(name.rstrip("+"), kinds[name.rstrip("+")], is_restarted=name.endswith("+")) for name in names]
sys.exit(Supervisor(programs, grace_seconds=float(grace), environment=os.environ, log=sys.stderr).run())
"""


def children_are(supervised: Supervised, count: int) -> bool:
    children = psutil.Process(supervised.process.pid).children(recursive=True)
    return len([child for child in children if is_running(child)]) == count


@pytest.mark.processes
def test_a_program_that_ends_stops_the_others_and_is_named(supervise: Start) -> None:
    supervised = supervise("-c", RUN, "10", "sleep", "failing")
    assert supervised.process.wait(STOP_S) == 1
    assert supervised.log() == "failing ended with exit status 3; stopping the others.\n"


@pytest.mark.processes
def test_a_program_that_is_killed_stops_the_others_and_is_named(supervise: Start) -> None:
    supervised = supervise("-c", RUN, "10", "sleep", "parent")
    supervised.wait_until(lambda: children_are(supervised, 3))
    [first] = [child for child in supervised.family if child.cmdline()[-1] == "import time; time.sleep(60)"]
    first.kill()
    assert supervised.process.wait(STOP_S) == 1
    assert supervised.left(timeout_s=0.5) == []
    assert supervised.log() == "sleep ended by SIGKILL; stopping the others.\n"


@pytest.mark.processes
def test_a_background_program_that_ends_is_started_again_with_growing_pauses(supervise: Start) -> None:
    supervised = supervise("-c", RUN, "10", "sleep", "failing+")
    supervised.wait_until(lambda: supervised.log().count("\n") == 3)
    assert supervised.log().splitlines() == [
        f"failing ended with exit status 3; starting it again in {pause} s." for pause in (1, 2, 4)
    ]
    supervised.process.terminate()
    assert supervised.process.wait(STOP_S) == 0
    assert supervised.left(timeout_s=0.5) == []


@pytest.mark.processes
def test_a_background_program_that_is_killed_leaves_the_others_alone(supervise: Start) -> None:
    supervised = supervise("-c", RUN, "10", "sleep", "parent+")
    supervised.wait_until(lambda: children_are(supervised, 3))
    first, parent = sorted(psutil.Process(supervised.process.pid).children(), key=lambda child: child.create_time())
    parent.kill()
    supervised.wait_until(lambda: supervised.log() != "" and children_are(supervised, 3))
    assert supervised.log() == "parent ended by SIGKILL; starting it again in 1 s.\n"
    assert is_running(first)
    supervised.process.terminate()
    assert supervised.process.wait(STOP_S) == 0
    assert supervised.left(timeout_s=0.5) == []


@pytest.mark.processes
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_and_their_children(supervise: Start, signum: signal.Signals) -> None:
    supervised = supervise("-c", RUN, "10", "sleep", "parent")
    supervised.wait_until(lambda: children_are(supervised, 3))
    supervised.process.send_signal(signum)
    assert supervised.process.wait(STOP_S) == 0
    assert supervised.left(timeout_s=0.5) == []
    assert supervised.log() == ""


@pytest.mark.processes
def test_a_program_that_does_not_stop_in_time_is_killed(supervise: Start) -> None:
    supervised = supervise("-c", RUN, "0.5", "sleep", "stubborn")
    supervised.wait_until(lambda: supervised.log() == "deaf\n" and children_are(supervised, 2))
    supervised.process.terminate()
    assert supervised.process.wait(STOP_S) == 1
    assert supervised.left(timeout_s=0.5) == []
    assert supervised.log() == "deaf\nstubborn did not stop in time; killing it.\n"


@pytest.mark.processes
def test_a_second_signal_waits_no_longer(supervise: Start) -> None:
    supervised = supervise("-c", RUN, "60", "sleep", "stubborn")
    supervised.wait_until(lambda: supervised.log() == "deaf\n" and children_are(supervised, 2))
    supervised.process.send_signal(signal.SIGINT)
    supervised.wait_until(lambda: children_are(supervised, 1))
    supervised.process.send_signal(signal.SIGINT)
    assert supervised.process.wait(STOP_S) == 1
    assert supervised.left(timeout_s=0.5) == []
    assert supervised.log() == "deaf\nstubborn did not stop in time; killing it.\n"
