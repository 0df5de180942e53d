"""A PostgreSQL server of our own, on a free port, that may be stopped in any way: the machine's stays untouched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Literal, Self

from tests.gateway_process import free_port

_SERVER_USER = "postgres"
"""PostgreSQL refuses to run as root."""

_MAX_CONNECTIONS = 60


def server_programs() -> Path | None:
    """Where initdb and pg_ctl are; None where there is no PostgreSQL server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("pg_ctl")
    return None if on_path is None else Path(on_path).resolve().parent


class Cluster:
    """Initialized, started, and thrown away at the end. Durable as in production: fsync is on."""

    def __init__(self, *, max_connections: int = _MAX_CONNECTIONS) -> None:
        self.port = free_port()
        self._settings = f"""
listen_addresses = '127.0.0.1'
max_connections = {max_connections}
shared_buffers = 64MB
"""
        self._folder = Path()

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it accepts connections, after the recovery that an immediate stop makes necessary."""
        log = self._folder / "log"
        self._run("pg_ctl", "start", "--wait", "--silent", "--log", str(log), "--options", f"-p {self.port}")

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """immediate: every server process dies where it stands, as in a crash."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode", mode)

    def __enter__(self) -> Self:
        self._folder = Path(mkdtemp(prefix="llm-cluster-"))
        if "user" in self._identity():
            shutil.chown(self._folder, _SERVER_USER, _SERVER_USER)
        self._run("initdb", "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-locale")
        with (self._folder / "data" / "postgresql.conf").open("a") as conf:
            conf.write(f"{self._settings}unix_socket_directories = '{self._folder}'\n")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        """Raises CalledProcessError."""
        programs = server_programs()
        if programs is None:
            raise RuntimeError("there is no PostgreSQL server on this machine")
        subprocess.run(
            [str(programs / program), *arguments, "--pgdata", str(self._folder / "data")],
            check=True,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            **self._identity(),
        )

    def _identity(self) -> Mapping[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": _SERVER_USER, "group": _SERVER_USER, "extra_groups": []}
