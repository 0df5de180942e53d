"""Runs several programs as one: all start together, and stop together when asked to.

If the web server ends by itself, all stop. Background programs are restarted, after a pause that grows while they keep
failing: a job that kills its worker must not stop paid calls.

Each child leads its own session: Ctrl-C reaches only us, and we pass it on once, as SIGTERM. Children write to our
output directly. We don't load Django: `manage.py up` has checked the settings and hands over to us.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

from llmproject.parentwatch import SUPERVISOR_PID
from llmproject.readiness import announce_when_ready

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_SECONDS = 0.1
FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 300.0
"""A program that ran this long hasn't failed at its start: the next pause is short again."""


@dataclass(frozen=True)
class Program:
    """is_restarted: whether it is restarted when it ends by itself, instead of stopping the others."""

    name: str
    command: Sequence[str]
    is_restarted: bool = False


@dataclass(frozen=True)
class Invitation:
    """Announced once the web server there answers calls."""

    host: str
    port: int
    text: str


@dataclass
class _Restart:
    """For one program: when it last started, when it will be restarted, and the pause before that."""

    started_at: float
    due_at: float | None = None
    pause_seconds: float = FIRST_PAUSE_SECONDS

    def plan(self, now: float) -> float:
        """Returns the pause."""
        if now - self.started_at >= STEADY_SECONDS:
            self.pause_seconds = FIRST_PAUSE_SECONDS
        pause, self.pause_seconds = self.pause_seconds, min(MAX_PAUSE_SECONDS, self.pause_seconds * 2)
        self.due_at = now + pause
        return pause


class Supervisor:
    """One run of several programs."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        grace_seconds: float,
        environment: Mapping[str, str],
        log: TextIO,
        invitation: Invitation | None = None,
    ) -> None:
        self._programs = programs
        self._grace_seconds = grace_seconds
        self._environment = {**environment, SUPERVISOR_PID: str(os.getpid())}
        self._log = log
        self._invitation = invitation
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._restarts: dict[str, _Restart] = {}
        # Unlike an Event, it may be set by a signal handler that interrupts the very thread that waits on it.
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self) -> int:
        """Returns the exit status: 0 if we were asked to stop and every program ended in time, otherwise 1."""
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._note_signal)
        try:
            self._start()
            with self._announcing():
                lost = self._wait_for_end()
        finally:
            killed = self._stop()
        return 1 if lost or killed else 0

    @contextlib.contextmanager
    def _announcing(self) -> Iterator[None]:
        invitation = self._invitation
        if invitation is None:
            yield
            return
        given_up = announce_when_ready(invitation.host, invitation.port, lambda: self._say(invitation.text))
        try:
            yield
        finally:
            given_up.set()

    def _note_signal(self, signum: int, _frame: FrameType | None) -> None:
        self._signals.put(signum)

    def _start(self) -> None:
        for program in self._programs:
            self._start_program(program)

    def _start_program(self, program: Program) -> None:
        self._children[program.name] = subprocess.Popen(  # noqa: S603
            program.command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        restart = self._restarts.setdefault(program.name, _Restart(time.monotonic()))
        restart.started_at, restart.due_at = time.monotonic(), None

    def _wait_for_end(self) -> bool:
        """Waits for a signal, or for the end of a program that isn't restarted."""
        while not self._signal_came():
            for program in self._programs:
                if (status := self._children[program.name].poll()) is None:
                    continue
                if not program.is_restarted:
                    self._say(f"{program.name} ended {_describe_status(status)}; stopping the others.")
                    return True
                self._restart_when_due(program, status)
        return False

    def _restart_when_due(self, program: Program, status: int) -> None:
        restart, now = self._restarts[program.name], time.monotonic()
        if restart.due_at is None:
            self._kill_group(self._children[program.name])
            pause = restart.plan(now)
            self._say(f"{program.name} ended {_describe_status(status)}; starting it again in {pause:.0f} s.")
        elif now >= restart.due_at:
            self._start_program(program)

    def _signal_came(self) -> bool:
        with contextlib.suppress(queue.Empty):
            self._signals.get(timeout=POLL_SECONDS)
            return True
        return False

    def _stop(self) -> bool:
        """Asks all to stop, and kills those that don't in time, or at once on a second signal."""
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + self._grace_seconds
        while self._running() and time.monotonic() < deadline and not self._signal_came():
            pass
        late = self._running()
        for name in late:
            self._say(f"{name} did not stop in time; killing it.")
        for child in self._children.values():
            self._kill_group(child)
            child.wait()
        return bool(late)

    def _kill_group(self, child: subprocess.Popen[bytes]) -> None:
        """Even if its leader has ended: it may have left children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)

    def _running(self) -> list[str]:
        return [name for name, child in self._children.items() if child.poll() is None]

    def _say(self, sentence: str) -> None:
        self._log.write(f"{sentence}\n")
        self._log.flush()


def _describe_status(status: int) -> str:
    if status >= 0:
        return f"with exit status {status}"
    return f"by {signal.Signals(-status).name}"


def gateway_programs() -> list[Program]:
    """Web, Celery worker and Celery beat, run from the project's folder."""
    celery = [sys.executable, "-m", "celery", "-A", "llmproject", "--quiet"]
    return [
        Program("web", [sys.executable, "manage.py", "serve"]),
        # Workers' messages to each other have no listener here, and would pile up in the file broker.
        Program(
            "worker",
            [*celery, "worker", "--without-gossip", "--without-mingle", "--without-heartbeat"],
            is_restarted=True,
        ),
        Program("beat", [*celery, "beat"], is_restarted=True),
    ]


def _build_invitation(arguments: Sequence[str]) -> Invitation | None:
    """Host, port, and the descriptor of a pipe that contains the text."""
    if not arguments:
        return None
    host, port, descriptor = arguments
    with os.fdopen(int(descriptor)) as pipe:
        return Invitation(host, int(port), pipe.read())


if __name__ == "__main__":
    sys.exit(
        Supervisor(
            gateway_programs(),
            grace_seconds=float(sys.argv[1]),
            environment=os.environ,
            log=sys.stderr,
            invitation=_build_invitation(sys.argv[2:]),
        ).run()
    )
