"""The fixture of an earlier version in a database and a folder of its own, upgraded by `manage.py migrate`."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections

from llm.limits.periods import period_of

FIXTURES = Path(__file__).parent
_TIME_LENGTH = len("2026-11-01 00:00:00")


@dataclass(frozen=True)
class Upgraded:
    """name: of the database. folder: VAR_DIR, with spool/, exports/ and documents/. expected: see `store`."""

    name: str
    folder: Path
    expected: Mapping[str, Any]

    @property
    def secrets(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.expected["secrets"]
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to work with it."""
        return {"DATABASE_URL": _url(self.name), "VAR_DIR": str(self.folder)}


def restore(version: str, folder: Path, *, name: str) -> Upgraded:
    """The database as that version left it, in a folder or, on PostgreSQL, under that name, which is dropped first."""
    fixture = FIXTURES / version / connection.vendor
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=BytesIO((fixture / "files.tar.xz").read_bytes())) as files:
        files.extractall(folder, filter="data")
    dump = lzma.decompress((fixture / "database.xz").read_bytes())
    if connection.vendor == "sqlite":
        name = str(folder / "db.sqlite3")
        Path(name).write_bytes(dump)
    else:
        create_database(name)
        with psycopg.connect(_url(name), autocommit=True) as database:
            database.execute(dump)
    _move_to_present(name)
    return Upgraded(name, folder, json.loads((fixture / "expected.json").read_text()))


def migrate(upgraded: Upgraded) -> None:
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        cwd=settings.BASE_DIR,
        env={**os.environ, **upgraded.environment},
        check=True,
    )


def copy_of(upgraded: Upgraded, folder: Path, *, name: str) -> Upgraded:
    """Another one like it."""
    shutil.copytree(upgraded.folder, folder)
    if connection.vendor == "sqlite":
        return Upgraded(str(folder / "db.sqlite3"), folder, upgraded.expected)
    create_database(name, template=upgraded.name)
    return Upgraded(name, folder, upgraded.expected)


def create_database(name: str, *, template: str = "template0") -> None:
    drop_database(name)
    with psycopg.connect(_url("postgres"), autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())


def drop_database(name: str) -> None:
    with psycopg.connect(_url("postgres"), autocommit=True) as server:
        server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


@contextmanager
def connected_to(upgraded: Upgraded) -> Iterator[None]:
    """Django's connections lead there until the end of the block."""
    former = connection.settings_dict["NAME"]
    connections.close_all()
    connection.settings_dict["NAME"] = upgraded.name
    ContentType.objects.clear_cache()
    try:
        yield
    finally:
        connections.close_all()
        connection.settings_dict["NAME"] = former
        ContentType.objects.clear_cache()


def _url(name: str) -> str:
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    config = settings.DATABASES["default"]
    password = f":{quote(config['PASSWORD'])}" if config["PASSWORD"] else ""
    return f"postgres://{quote(config['USER'])}{password}@{config['HOST']}:{config['PORT']}/{name}"


_WINDOWS = (
    "SELECT llm_limitwindow.id, per, time_zone, starts_at FROM llm_limitwindow "
    "JOIN llm_limit ON llm_limit.id = limit_id JOIN llm_account ON llm_account.id = account_id WHERE per = 'month'"
)


def _move_to_present(name: str) -> None:
    """The running month's windows become those of the present month, so that calls of today count in them."""
    now = datetime.now(UTC)
    if connection.vendor == "sqlite":
        with sqlite3.connect(name) as lite:
            for window_id, per, zone, old in lite.execute(_WINDOWS).fetchall():
                start = period_of(per, zone, now).starts_at
                new = f"{start:%Y-%m-%d %H:%M:%S}{old[_TIME_LENGTH:]}"
                lite.execute("UPDATE llm_limitwindow SET starts_at = ? WHERE id = ?", (new, window_id))
        lite.close()
        return
    with psycopg.connect(_url(name)) as database:
        for window_id, per, zone, _ in database.execute(_WINDOWS).fetchall():
            start = period_of(per, zone, now).starts_at
            database.execute("UPDATE llm_limitwindow SET starts_at = %s WHERE id = %s", (start, window_id))
